"""Downloads that go on where they stopped: pooch checks and moves the file, this module fetches it piece by piece.

What has arrived lies in ``NAME.part`` with ``NAME.part.json`` beside it (address, ETag), so that an attempt may end at
any moment. The next one asks for the rest with ``Range`` and ``If-Range``: a server that cannot do this, or whose file
has changed, answers with the whole file, and the download starts over.
"""

import json
import os
import re
import shutil
import time
from pathlib import Path
from urllib.parse import urlsplit

from covbook.datasets.archives import FULL
from covlib.errors import DataError, first_line

TIMEOUT = (15, 60)  # seconds to connect; without a byte arriving
ATTEMPTS = 4
PAUSE = 1.0  # seconds before the second attempt, then twice as long each time
BUSY = (429, 500, 502, 503, 504)
CHUNK = 1 << 16  # what a cut connection can lose


def fetch(url: str, target: str | Path, *, known_hash: str | None = None, size: int | None = None) -> Path:
    """Download ``url`` to ``target`` unless a file that fits ``known_hash`` is there already.

    Args:
        known_hash: "sha256:..." or "md5:...", None where none is published (an existing file is then believed).
        size: expected bytes, if known; looked at before (is there room?) and after.

    Raises:
        DataError: one line: no network, an HTTP error, a wrong size or checksum (the file is removed), a full disk.
    """
    import pooch

    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    pooch.get_logger().setLevel("WARNING")  # our bar and our errors say all that is worth saying
    downloader = Resuming(target, size=size, checked=known_hash is not None)
    try:
        pooch.retrieve(url, known_hash, fname=target.name, path=target.parent, downloader=downloader)
    except ValueError as error:  # pooch's way to say that the checksum is wrong; it has removed the file
        found = re.search(r"expected (\S+) but got (\w+)", str(error))
        said = f"expected {found[1]}, got {found[2]}" if found else " ".join(str(error).split())
        raise DataError(f"{target.name}: checksum mismatch: {said}; the file was removed; the one at {url} is damaged "
                        f"or has changed") from error
    except OSError as error:
        why = "disk full; free some space, the same command goes on" if error.errno in FULL else error.strerror
        raise DataError(f"{error.filename or downloader.part}: {why}") from error
    _refuse_web_page(target, url)
    return target


def _refuse_web_page(target: Path, url: str) -> None:
    """Networks that want a sign-in, and archives that moved, answer 200 with a page in place of the file."""
    with open(target, "rb") as file:
        head = file.read(512).lstrip().lower()
    if not head or head.startswith((b"<!doctype html", b"<html")):
        target.unlink()
        what = "a web page, not with the file" if head else "nothing"
        raise DataError(f"{target.name}: {url} answers with {what}; open it in a browser to see what it asks for")


class Resuming:
    """A pooch downloader (called with url, output file, pooch) that keeps its partial file beside ``target``."""

    def __init__(self, target: Path, *, size: int | None = None, checked: bool = False):
        self.name, self.size, self.checked = target.name, size, checked
        self.part = target.with_name(target.name + ".part")
        self.about = target.with_name(target.name + ".part.json")

    def __call__(self, url: str, output_file: str, pooch=None) -> None:
        import requests

        host = urlsplit(url).netloc
        self._room(self.size or 0)
        for attempt in range(1, ATTEMPTS + 1):
            before = self._have(url)
            try:
                self._attempt(url, before)
                break
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError,
                    _Busy) as error:
                have = self._have(url)
                if attempt == ATTEMPTS:
                    kept = f"; the {have} bytes fetched so far are kept, the same command goes on from there"
                    raise DataError(f"{self.name}: {_reason(error, host)}{kept if have else ''}") from error
                time.sleep(PAUSE * 2 ** (attempt - 1))
            except requests.RequestException as error:
                raise DataError(f"{self.name}: {url}: {first_line(error)}") from error
        if self.size is not None and self.part.stat().st_size != self.size:
            got = self.part.stat().st_size
            self._forget()
            raise DataError(f"{self.name}: expected {self.size} bytes, got {got}; the file was removed; the one at "
                            f"{url} is not the registered one")
        os.replace(self.part, output_file)
        self._forget()

    def _attempt(self, url: str, have: int) -> None:
        """One request; what arrives is appended to the partial file, or replaces it."""
        import requests

        headers = {"Accept-Encoding": "identity"}  # a compressed transfer would make ranges and lengths meaningless
        if have:
            headers["Range"] = f"bytes={have}-"
            if self._about()["validator"]:
                headers["If-Range"] = self._about()["validator"]
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if response.status_code == 416:  # the file is shorter than what we have: start over
                self._forget()
                raise _Busy("the file has changed on the server")
            if response.status_code in BUSY:
                raise _Busy(f"answers {response.status_code} {response.reason}")
            if response.status_code not in (200, 206):  # a 202 without content is a bot check's way to say no
                raise DataError(f"{self.name}: {url} answers {response.status_code} {response.reason}; see the data "
                                f"set's homepage for its present address")
            have = self._start(url, response, have)
            self._receive(response, have)

    def _start(self, url: str, response, have: int) -> int:
        """Where the answer's bytes go: at ``have``, or at 0 (a whole file; its validator is noted)."""
        etag = response.headers.get("ETag", "")
        validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")
        if response.status_code == 206:
            start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
            if start is None or int(start[1]) != have or validator != self._about()["validator"]:
                self._forget()
                raise _Busy("answers with a part of another file than the one begun")
            return have
        self.part.unlink(missing_ok=True)
        self.about.write_text(json.dumps({"url": url, "validator": validator}))
        return 0

    def _receive(self, response, have: int) -> None:
        from tqdm.auto import tqdm

        length = response.headers.get("Content-Length", "")
        coded = response.headers.get("Content-Encoding", "identity") != "identity"
        expected = have + int(length) if length.isdecimal() and not coded else None
        self._room((expected or have) - have)
        with open(self.part, "ab") as sink, tqdm(total=expected or self.size, initial=have, unit="B", unit_scale=True,
                                                 desc=self.name) as bar:
            for chunk in response.iter_content(CHUNK):
                sink.write(chunk)
                sink.flush()  # so that a kill loses nothing that is shown as done
                bar.update(len(chunk))
                have += len(chunk)
        if expected is not None and have < expected:
            raise _Busy(f"closed the connection {expected - have} bytes before the end")

    def _have(self, url: str) -> int:
        """Bytes of a partial file that can be gone on with. One from another address is dropped; so is one that
        neither a validator nor a checksum at the end could show to be of the same file."""
        about = self._about()
        sure = about.get("validator") or (self.checked and "validator" in about)
        if not self.part.is_file() or about.get("url") != url or not sure:
            self._forget()
            return 0
        return self.part.stat().st_size

    def _about(self) -> dict:
        try:
            about = json.loads(self.about.read_text())
        except (OSError, ValueError):
            return {}
        return about if isinstance(about, dict) else {}

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.about.unlink(missing_ok=True)

    def _room(self, needed: int) -> None:
        free = shutil.disk_usage(self.part.parent).free
        if needed > free:
            raise DataError(f"{self.part.parent}: disk full: {self.name} needs {needed} bytes, {free} are free; set "
                            f"COVLIB_DATA to a folder with room")


class _Busy(Exception):
    """A server that may do better on the next attempt."""


def _reason(error: Exception, host: str) -> str:
    if isinstance(error, _Busy):
        return f"{host} {error}"
    return f"no connection to {host}, or it was cut ({type(error).__name__}); check the network"
