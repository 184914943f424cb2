"""The registry, and real downloads through the real code from a server on this machine."""

import gzip
import hashlib
import http.server
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tqdm.auto
import yaml
from PIL import Image

from covbook import project
from covbook.datasets import download, own_layouts, sources
from covlib.errors import ConfigError, DataError
from covlib.files import layouts

BIG = hashlib.shake_256(b"covlib").digest(3_000_000)  # incompressible, and the same in every run


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``server.files`` with ETag and Range; ``server`` says what goes wrong."""

    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.log.append((self.path, wanted))
        if server.statuses:
            status = server.statuses.pop(0)
            if status != 200:
                return self.send_error(status)
        content = server.files.get(self.path)
        if content is None:
            return self.send_error(404)
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        start, same = 0, self.headers.get("If-Range") in (None, etag) or server.ignores_if_range
        if wanted and server.ranges and same:
            start = int(re.match(r"bytes=(\d+)-$", wanted)[1])
            if start >= len(content):
                return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        if server.etags:
            self.send_header("ETag", etag)
        self.end_headers()
        rest = content[start:]
        if server.cuts > 0:
            server.cuts -= 1
            rest = rest[: max(len(rest) // 2, 1)]
        self._send(rest)

    def _send(self, rest: bytes):
        piece = 1 << 16
        for at in range(0, len(rest), piece):
            try:
                self.wfile.write(rest[at: at + piece])
            except (BrokenPipeError, ConnectionResetError):
                return  # the client was killed: that is the test
            time.sleep(self.server.delay)
        self.close_connection = True

    def log_message(self, *args):
        return None  # keep the tests' output clean; what was asked for is in server.log


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.log, self.statuses = {}, [], []
        self.ranges = self.etags = True
        self.ignores_if_range = False
        self.cuts, self.delay = 0, 0.0
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def server():
    running = Server()
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own, and no waiting between attempts."""
    monkeypatch.setenv("COVLIB_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSE", 0.01)
    return tmp_path / "cache"


def zipped(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return packed.getvalue()


def tarred(members: list[tarfile.TarInfo]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as opened:
        for info in members:
            opened.addfile(info, io.BytesIO(bytes(info.size)))
    return packed.getvalue()


def entry(**changes) -> dict:
    """A valid registry entry."""
    base = {"title": "Test set", "what": {"modality": "CT", "counts": "1", "masks": "none", "labels": "none"},
            "homepage": "https://example.org", "access": "download", "files": [], "size_note": "small",
            "licence": {"name": "CC0", "url": None, "note": "free"},
            "citation": {"key": "key2020", "text": "Somebody", "doi": None}, "chapters": ["01_data"], "layout": "plain"}
    return base | changes


def register(tmp_path: Path, *files: dict, name: str = "test-set", **changes) -> Path:
    """A registry file with one set of these files."""
    notes = {"size": None, "size_note": "unknown", "checksum_note": "unknown", "sha256": None}
    content = {"version": 1, "sources": {name: entry(files=[notes | file for file in files], **changes)}}
    path = tmp_path / f"registry-{len(list(tmp_path.iterdir()))}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def serve(server: Server, tmp_path: Path, content: bytes = BIG, **file) -> Path:
    """Serve one file and register it."""
    server.files["/big.bin"] = content
    return register(tmp_path, {"url": f"{server.url}/big.bin", "filename": "big.bin"} | file)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def error_of(action) -> str:
    """The one line of the DataError that ``action`` ends with."""
    with pytest.raises(DataError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- the registry ----------------------------------------------------------------------------------------------------


def test_registry_fits_its_schema():
    document = yaml.safe_load((project.DATA / "sources.yaml").read_text())
    project.validate(document, "sources", "data/sources.yaml", DataError)
    assert list(document["sources"]) == ["covid-ct", "medseg-volumes", "medseg-slices", "covid-19-ct-seg",
                                         "covid19-ct-scans", "covid-chestxray", "rsna-pneumonia", "mosmeddata",
                                         "covid19-radiography"]


@pytest.mark.parametrize("change", [{"chapters": []}, {"access": "kaggle"}, {"homepage": "http://example.org"},
                                    {"surprise": 1}, {"citation": {"key": "a", "text": "b", "doi": "doi:10.1/x"}}])
def test_schema_refuses(change):
    file = {"url": "https://example.org/a.zip", "filename": "a.zip", "size": None, "size_note": "unknown",
            "md5": None, "checksum_note": "none published"}
    good = {"version": 1, "sources": {"test-set": entry(files=[file])}}
    project.validate(good, "sources", "good", DataError)
    with pytest.raises(DataError):
        project.validate(good | {"sources": {"test-set": entry(files=[file]) | change}}, "sources", "x", DataError)


@pytest.mark.parametrize("change", [{"url": "http://example.org/a"}, {"filename": "../a"}, {"unpack": "../a"},
                                    {"unpack": "/a"}, {"md5": "abc"}, {"size": 0}, {"checksum_note": ""}])
def test_schema_refuses_files(change):
    file = {"url": "https://example.org/a.zip", "filename": "a.zip", "size": None, "size_note": "unknown",
            "md5": None, "checksum_note": "none published"}
    bad = {"version": 1, "sources": {"test-set": entry(files=[file | change])}}
    with pytest.raises(DataError):
        project.validate(bad, "sources", "bad", DataError)


def test_every_source_is_whole():
    bibliography = (project.DATA / "references_sources.bib").read_text()
    for name, source in sources.registry().items():
        assert f"{{{source.citation['key']}," in bibliography and source.citation["doi"] in bibliography
        assert len({file.filename for file in source.files}) == len(source.files)
        assert (source.access == "download") == bool(source.files) == (not source.steps)
        text = sources.describe(name)
        assert source.title in text and source.licence["name"] in text and source.citation["text"] in text
        assert all(file.url in text for file in source.files)


def test_rows_and_table_show_every_source(cache):
    rows = {row["name"]: row for row in sources.list_rows()}
    table = sources.markdown_table()
    assert set(rows) == set(sources.registry())
    assert not any(row["here"] for row in rows.values())
    assert all(f"`covlib data get {name}`" in table for name in rows)
    assert len({line.count("|") - line.count("\\|") for line in table.splitlines()}) == 1
    (cache / "mosmeddata" / "studies").mkdir(parents=True)
    assert {row["name"] for row in sources.list_rows() if row["here"]} == {"mosmeddata"}
    assert sources.local("mosmeddata") == cache / "mosmeddata"


def test_unknown_and_missing_names():
    with pytest.raises(ConfigError, match="'covidct' is not registered; registered are covid-ct, "):
        sources.local("covidct")
    assert "run `covlib data get covid-ct`" in error_of(lambda: sources.local("covid-ct"))
    assert "steps" in error_of(lambda: sources.local("rsna-pneumonia"))


@pytest.mark.parametrize("text", ["sources: [", "version: 1", "sources: {a: {title: x}}", "- 1", ""])
def test_a_broken_registry_is_one_line(tmp_path, text):
    (tmp_path / "bad.yaml").write_text(text)
    assert "bad.yaml" in error_of(lambda: sources.registry(tmp_path / "bad.yaml"))
    assert "missing.yaml" in error_of(lambda: sources.registry(tmp_path / "missing.yaml"))


def test_registry_executes_nothing(tmp_path):
    (tmp_path / "evil.yaml").write_text(f"sources: !!python/object/apply:os.mkdir ['{tmp_path}/made']")
    error_of(lambda: sources.registry(tmp_path / "evil.yaml"))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["rsna-pneumonia", "mosmeddata"])
def test_sets_that_need_an_account_give_the_steps(name, cache):
    with pytest.raises(sources.ManualStepsNeeded) as caught:
        sources.get(name)
    steps = "\n".join(caught.value.steps)
    assert f"covlib data check '{cache / name}'" in steps and "{folder}" not in steps and "\n" not in str(caught.value)
    if name == "rsna-pneumonia":
        assert "kaggle competitions download -c rsna-pneumonia-detection-challenge" in steps and "rules" in steps
    (cache / name).mkdir(parents=True)
    (cache / name / "something").write_text("put here by hand")
    assert sources.get(name) == cache / name == sources.local(name)


# ---- downloads -------------------------------------------------------------------------------------------------------


def test_get_makes_the_whole_set_and_only_once(server, tmp_path, cache, capfd, monkeypatch):
    monkeypatch.setattr(tqdm.auto, "tqdm", partial(tqdm.auto.tqdm, disable=False))  # tests run without bars
    server.files = {"/a.zip": zipped({"repo-1/x.txt": b"x", "repo-1/deep/y.txt": b"y"}),
                    "/b.tar.gz": tarred([tarfile.TarInfo("z.nii")]), "/c.csv": b"file,patient\n"}
    registry = register(
        tmp_path, {"url": f"{server.url}/a.zip", "filename": "a.zip", "unpack": ".", "strip": 1,
                   "sha256": sha256(server.files["/a.zip"]), "size": len(server.files["/a.zip"])},
        {"url": f"{server.url}/b.tar.gz", "filename": "b.tar.gz", "unpack": "masks",
         "md5": hashlib.md5(server.files["/b.tar.gz"]).hexdigest()},
        {"url": f"{server.url}/c.csv", "filename": "c.csv"})
    folder = sources.get("test-set", path=registry)
    assert folder == cache / "test-set"
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert found == {"x.txt", "deep/y.txt", "masks/z.nii", "c.csv", sources.RECEIPT}
    assert sorted(p.name for p in cache.iterdir()) == ["test-set"]  # neither archives nor partial files stay
    shown = capfd.readouterr()
    assert "a.zip" in shown.err and "100%" in shown.err and shown.out == ""
    receipt = json.loads((folder / sources.RECEIPT).read_text())
    assert receipt["files"][2]["sha256"] == sha256(b"file,patient\n")
    asked = len(server.log)
    assert sources.get("test-set", path=registry) == folder and len(server.log) == asked == 3


def test_an_archive_with_one_folder_of_its_own_name_is_flattened(server, tmp_path):
    server.files = {"/CT_COVID.zip": zipped({"CT_COVID/1.png": b"1", "__MACOSX/._1.png": b"junk"})}
    registry = register(tmp_path, {"url": f"{server.url}/CT_COVID.zip", "filename": "CT_COVID.zip",
                                   "unpack": "Images-processed/CT_COVID"})
    folder = sources.get("test-set", path=registry)
    assert (folder / "Images-processed" / "CT_COVID" / "1.png").read_bytes() == b"1"


def test_a_cut_connection_is_resumed_in_the_same_call(server, tmp_path):
    server.cuts = 2
    registry = serve(server, tmp_path, sha256=sha256(BIG))
    folder = sources.get("test-set", path=registry)
    assert (folder / "big.bin").read_bytes() == BIG
    starts = [int(wanted[6:-1]) if wanted else 0 for _, wanted in server.log]
    assert len(starts) == 3 and 1_400_000 < starts[1] <= 1_500_000 < 2_100_000 < starts[2] <= 2_250_000


def test_a_cut_connection_is_resumed_in_the_next_call(server, tmp_path, cache):
    server.cuts = download.ATTEMPTS
    registry = serve(server, tmp_path)
    text = error_of(lambda: sources.get("test-set", path=registry))
    assert text.startswith("big.bin:") and "goes on from there" in text
    assert not (cache / "test-set").exists()
    have = (cache / ".test-set.partial" / "big.bin.part").stat().st_size
    assert 0 < have < len(BIG)
    server.log.clear()
    folder = sources.get("test-set", path=registry)
    assert (folder / "big.bin").read_bytes() == BIG
    assert server.log == [("/big.bin", f"bytes={have}-")]


def test_a_killed_download_is_resumed(server, tmp_path, cache):
    server.delay = 0.05
    registry = serve(server, tmp_path)
    code = f"from covbook.datasets import sources; sources.get('test-set', path={str(registry)!r})"
    child = subprocess.Popen([sys.executable, "-c", code], cwd=project.ROOT, stderr=subprocess.DEVNULL)
    part = cache / ".test-set.partial" / "big.bin.part"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 300_000):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    have = part.stat().st_size
    assert have < len(BIG) and not (cache / "test-set").exists()
    server.delay = 0
    folder = sources.get("test-set", path=registry)
    assert (folder / "big.bin").read_bytes() == BIG
    assert server.log[-1] == ("/big.bin", f"bytes={have}-")
    assert sorted(p.name for p in cache.iterdir()) == ["test-set"]


def test_what_a_killed_unpacking_left_is_no_hindrance(server, tmp_path, cache):
    server.files["/a.zip"] = zipped({"x.txt": b"x"})
    registry = register(tmp_path, {"url": f"{server.url}/a.zip", "filename": "a.zip", "unpack": "."})
    for left in ("ready", "unpacked", ".unpacked.abc"):
        (cache / ".test-set.partial" / left).mkdir(parents=True)
        (cache / ".test-set.partial" / left / "half.txt").write_text("half")
    folder = sources.get("test-set", path=registry)
    assert sorted(p.name for p in folder.iterdir()) == [sources.RECEIPT, "x.txt"]
    assert sorted(p.name for p in cache.iterdir()) == ["test-set"]


def test_a_server_without_ranges_is_asked_for_the_whole_file(server, tmp_path):
    server.ranges, server.cuts = False, 1
    registry = serve(server, tmp_path, sha256=sha256(BIG))
    assert (sources.get("test-set", path=registry) / "big.bin").read_bytes() == BIG
    assert len(server.log) == 2


@pytest.mark.parametrize("checked", [True, False])
def test_without_an_etag_only_a_checksum_allows_to_go_on(server, tmp_path, checked):
    server.etags, server.cuts = False, 1
    registry = serve(server, tmp_path, **({"sha256": sha256(BIG)} if checked else {}))
    assert (sources.get("test-set", path=registry) / "big.bin").read_bytes() == BIG
    assert [bool(wanted) for _, wanted in server.log] == [False, checked]


@pytest.mark.parametrize("ignores_if_range", [False, True])
@pytest.mark.parametrize("change", [lambda content: content[::-1], lambda content: content[:1000]])
def test_a_file_that_changed_meanwhile_is_fetched_anew(server, tmp_path, cache, ignores_if_range, change):
    server.cuts, server.ignores_if_range = download.ATTEMPTS, ignores_if_range
    registry = serve(server, tmp_path)
    error_of(lambda: sources.get("test-set", path=registry))
    server.files["/big.bin"] = change(BIG)
    folder = sources.get("test-set", path=registry)
    assert (folder / "big.bin").read_bytes() == change(BIG)


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_wrong_checksum_names_both_and_removes_the_file(server, tmp_path, cache, kind):
    wrong = hashlib.new(kind, b"another file").hexdigest()
    registry = serve(server, tmp_path, **{kind: wrong})
    text = error_of(lambda: sources.get("test-set", path=registry))
    assert text.startswith("big.bin: checksum mismatch") and wrong in text
    assert hashlib.new(kind, BIG).hexdigest() in text
    assert not (cache / "test-set").exists() and not list(cache.rglob("big.bin*"))
    assert not list((cache / ".test-set.partial").glob("*bin*"))


def test_a_wrong_size_is_refused(server, tmp_path, cache):
    registry = serve(server, tmp_path, size=len(BIG) + 1)
    text = error_of(lambda: sources.get("test-set", path=registry))
    assert "expected 3000001 bytes, got 3000000" in text and not list(cache.rglob("big.bin*"))


def test_a_set_of_which_one_file_fails_does_not_appear_and_is_not_fetched_twice(server, tmp_path, cache):
    server.files["/good.bin"] = BIG
    registry = register(tmp_path, {"url": f"{server.url}/good.bin", "filename": "good.bin", "sha256": sha256(BIG)},
                        {"url": f"{server.url}/gone.bin", "filename": "gone.bin"})
    text = error_of(lambda: sources.get("test-set", path=registry))
    assert text.startswith("gone.bin") and "404" in text and not (cache / "test-set").exists()
    server.files["/gone.bin"] = b"back"
    server.log.clear()
    sources.get("test-set", path=registry)
    assert server.log == [("/gone.bin", None)]


@pytest.mark.parametrize("status", [202, 403, 404, 410])
def test_http_errors_are_one_line(server, tmp_path, status):
    server.statuses = [status]
    registry = serve(server, tmp_path)
    text = error_of(lambda: sources.get("test-set", path=registry))
    assert str(status) in text and f"{server.url}/big.bin" in text and len(server.log) == 1


@pytest.mark.parametrize(("page", "word"), [(b"\n<!DOCTYPE html><title>Sign in</title>", "web page"), (b"", "nothing")])
def test_a_web_page_in_place_of_the_file_is_not_kept(server, tmp_path, page, word):
    registry = serve(server, tmp_path, page)
    assert word in error_of(lambda: sources.get("test-set", path=registry))
    server.files["/big.bin"] = BIG
    assert (sources.get("test-set", path=registry) / "big.bin").read_bytes() == BIG


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.statuses = [503, 429, 200]
    registry = serve(server, tmp_path)
    assert (sources.get("test-set", path=registry) / "big.bin").read_bytes() == BIG
    server.statuses = [503] * download.ATTEMPTS
    text = error_of(lambda: sources.get("test-set", tmp_path / "other", path=registry))
    assert "answers 503" in text


def test_no_network_is_one_line(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    registry = register(tmp_path, {"url": f"http://127.0.0.1:{port}/a.zip", "filename": "a.zip", "unpack": "."})
    assert "no connection to 127.0.0.1" in error_of(lambda: sources.get("test-set", path=registry))


def png(grey: int = 90) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((32, 32), grey, np.uint8)).save(file, "PNG")
    return file.getvalue()


def nifti(top: int) -> bytes:
    """A small volume with values 0..top, as .nii.gz."""
    array = (np.arange(24 * 24 * 6) % (top + 1)).reshape(24, 24, 6).astype(np.uint8)
    return gzip.compress(nibabel.Nifti1Image(array, np.diag([1.0, 1.0, 5.0, 1.0])).to_bytes(), mtime=0)


def as_published() -> dict[str, bytes]:
    """Small files named and packed as the sources name and pack theirs."""
    top = "covid-chestxray-dataset-0.41"
    table = b"patientid,finding,view,modality,folder,filename\n7,COVID-19,PA,X-ray,images,a.png\n"
    return {"CT_COVID.zip": zipped({"CT_COVID/2020.01.24.919183-p27-132.png": png(), "__MACOSX/CT_COVID/._x": b"junk"}),
            "CT_NonCOVID.zip": zipped({"CT_NonCOVID/10.jpg": png(80)}), "COVID-CT-MetaInfo.xlsx": b"PK",
            "rp_im.zip": zipped({"rp_im/1.nii.gz": nifti(200)}), "rp_msk.zip": zipped({"rp_msk/1.nii.gz": nifti(3)}),
            "rp_lung_msk.zip": zipped({"rp_lung_msk/1.nii.gz": nifti(1)}),
            "tr_im.nii.gz": nifti(200), "tr_mask.nii.gz": nifti(3), "val_im.nii.gz": nifti(200),
            "Test-Images-Clinical-Details.csv": b"slice,age\n",
            "COVID-19-CT-Seg_20cases.zip": zipped({"coronacases_001.nii.gz": nifti(200)}),  # flat, all three
            "Lung_and_Infection_Mask.zip": zipped({"coronacases_001.nii.gz": nifti(3)}),
            f"{top}.zip": zipped({f"{top}/images/a.png": png(), f"{top}/metadata.csv": table})}


@pytest.mark.parametrize("name", [name for name, source in sources.registry().items() if source.access == "download"])
def test_a_fetched_set_has_the_layout_that_the_readers_know(server, tmp_path, name):
    document = yaml.safe_load((project.DATA / "sources.yaml").read_text())
    for file in document["sources"][name]["files"]:
        content = as_published()[file["filename"]]
        server.files[f"/{file['filename']}"] = content
        file |= {"url": f"{server.url}/{file['filename']}", "sha256": sha256(content), "md5": None}
    (tmp_path / "registry.yaml").write_text(yaml.safe_dump(document))
    folder = sources.get(name, path=tmp_path / "registry.yaml")
    assert layouts.find(folder).kind == layouts.find(sources.located(name)).kind == sources.find(name).layout


# ---- hostile archives, full disks, folders that are in the way -------------------------------------------------------


def link() -> tarfile.TarInfo:
    info = tarfile.TarInfo("link")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return info


@pytest.mark.parametrize(("name", "content", "word"), [
    ("evil.zip", zipped({"good.txt": b"good", "../evil.txt": b"evil"}), "../evil.txt"),
    ("evil.tar.gz", tarred([link()]), "'link'"),
    ("bomb.zip", zipped({"bomb.bin": bytes(70 << 20)}), "bomb"),
    ("text.zip", b"this is no archive\n" * 50, "neither a zip nor a tar")])
def test_a_hostile_archive_leaves_no_set(server, tmp_path, cache, name, content, word):
    server.files[f"/{name}"] = content
    registry = register(tmp_path, {"url": f"{server.url}/{name}", "filename": name, "unpack": "."})
    text = error_of(lambda: sources.get("test-set", path=registry))
    assert name in text and word in text
    assert not (cache / "test-set").exists() and not list(tmp_path.rglob("evil.txt"))
    assert not list((cache / ".test-set.partial").iterdir())  # the bad archive is not kept either


def test_two_archives_that_hold_the_same_file_are_refused(server, tmp_path, cache):
    server.files = {"/a.zip": zipped({"1.nii": b"image"}), "/b.zip": zipped({"1.nii": b"mask"})}
    files = [{"url": f"{server.url}/{x}.zip", "filename": f"{x}.zip", "unpack": "."} for x in "ab"]
    registry = register(tmp_path, *files)
    text = error_of(lambda: sources.get("test-set", path=registry))
    assert "b.zip: '1.nii'" in text and not (cache / "test-set").exists()


def test_a_set_larger_than_the_disk_is_not_begun(server, tmp_path):
    registry = serve(server, tmp_path, size=10**18)
    assert "disk full" in error_of(lambda: sources.get("test-set", path=registry)) and not server.log


FULL_DISK = """
import resource, sys
from covbook.datasets import sources
from covlib.errors import DataError
sources.registry(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))  # writing more fails, as it does on a full disk
try:
    sources.get("test-set", path=sys.argv[1])
except DataError as error:
    print(error)
"""


@pytest.mark.parametrize("packed", [False, True])
def test_a_disk_that_fills_up_is_one_line(server, tmp_path, cache, packed):
    pytest.importorskip("resource")
    content = zipped({"a.txt": b"a", "zeros.bin": bytes(3_000_000)}) if packed else BIG
    registry = serve(server, tmp_path, content, **({"unpack": "."} if packed else {}))
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(registry)], cwd=project.ROOT, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    assert ("zeros.bin" if packed else "big.bin.part") + ": disk full" in done.stdout and done.stdout.count("\n") == 1
    left = {str(p.relative_to(cache / ".test-set.partial")) for p in (cache / ".test-set.partial").rglob("*")}
    assert not (cache / "test-set").exists() and left <= {"lock", "big.bin", "big.bin.part", "big.bin.part.json"}


def test_a_folder_in_the_way_is_left_alone(server, tmp_path):
    registry = serve(server, tmp_path)
    mine = tmp_path / "mine"
    mine.mkdir()
    assert sources.get("test-set", mine, path=registry) == mine  # empty: used
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    text = error_of(lambda: sources.get("test-set", other, path=registry))
    assert "move it away" in text and [p.name for p in other.iterdir()] == ["thesis.txt"]
    (tmp_path / "file").write_text("a file")
    error_of(lambda: sources.get("test-set", tmp_path / "file" / "below", path=registry))


def test_two_processes_do_not_fetch_one_set(server, tmp_path, cache):
    fcntl = pytest.importorskip("fcntl")
    registry = serve(server, tmp_path)
    (cache / ".test-set.partial").mkdir(parents=True)
    with open(cache / ".test-set.partial" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another process" in error_of(lambda: sources.get("test-set", path=registry))
    assert sources.get("test-set", path=registry)


def test_a_changed_entry_is_not_taken_for_the_one_that_is_here(server, tmp_path):
    folder = sources.get("test-set", path=serve(server, tmp_path))
    again = serve(server, tmp_path, sha256=sha256(b"the file of another release"))
    assert str(folder) in error_of(lambda: sources.get("test-set", path=again))


# ---- archives that readers give as data ------------------------------------------------------------------------------


def test_a_reader_s_archive_is_unpacked_once(tmp_path, cache):
    archive = tmp_path / "my scans.zip"
    archive.write_bytes(zipped({"scans/covid/1.png": b"1", "scans/normal/2.png": b"2"}))
    folder = sources.unpack_user_archive(archive)
    assert sorted(p.name for p in folder.iterdir()) == ["covid", "normal"] and cache in folder.parents
    made = folder.stat().st_mtime_ns, folder.stat().st_ino
    assert sources.unpack_user_archive(archive) == folder and made == (folder.stat().st_mtime_ns, folder.stat().st_ino)
    archive.write_bytes(zipped({"covid/1.png": b"changed", "normal/2.png": b"2"}))
    assert (sources.unpack_user_archive(archive) / "covid" / "1.png").read_bytes() == b"changed"


def test_a_reader_s_bad_archive_is_one_line(tmp_path, cache):
    (tmp_path / "evil.zip").write_bytes(zipped({"../evil": b"x"}))
    assert "../evil" in error_of(lambda: sources.unpack_user_archive(tmp_path / "evil.zip"))
    (tmp_path / "scan.nii.gz").write_bytes(b"x")
    assert "is no archive" in error_of(lambda: sources.unpack_user_archive(tmp_path / "scan.nii.gz"))
    assert "no such file" in error_of(lambda: sources.unpack_user_archive(tmp_path / "gone.zip"))
    assert not list(cache.rglob("*evil*")) and not (tmp_path / "evil").exists()


def test_every_layout_is_one_that_the_readers_know():
    assert {source.layout for source in sources.registry().values()} == set(own_layouts.LAYOUTS)


def test_an_archive_is_read_as_data(tmp_path):
    (tmp_path / "mine.zip").write_bytes(zipped({f"mine/{c}/{c}{k}.png": png(60 + k) for c in ("covid", "normal")
                                                for k in range(3)}))
    read = layouts.load_slices(sources.located(str(tmp_path / "mine.zip")), size=32, need=("labels",))
    assert len(read) == 6 and set(read.classes) == {"covid", "normal"}
    (tmp_path / "evil.zip").write_bytes(zipped({"covid/../../evil.png": png(0)}))
    assert "'covid/../../evil.png'" in error_of(lambda: sources.located(tmp_path / "evil.zip"))


def test_data_is_a_place_or_a_name(tmp_path):
    assert sources.located("phantom") == "phantom" and sources.located(tmp_path) == tmp_path
    said = error_of(lambda: sources.located(tmp_path / "gone"))
    assert "gone" in said and "neither 'phantom' nor a folder" in said and "covid-ct" in said
    assert "covlib data get covid-ct" in error_of(lambda: sources.located("covid-ct"))


def test_importing_loads_nothing_heavy():
    code = ("import sys, covbook.datasets.sources; heavy = {'torch', 'pooch', 'requests', 'yaml', 'nibabel', 'PIL'} "
            "& set(sys.modules); print(sorted(heavy))")
    done = subprocess.run([sys.executable, "-c", code], cwd=project.ROOT, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(project.ROOT)})
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
