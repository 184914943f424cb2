"""The registry of real data sets (``data/sources.yaml``): what there is, where to get it, under which licence.

``get`` downloads and unpacks a set into the cache (``COVLIB_DATA``, else the system's cache folder), ``local`` finds it
again, ``write_phantom`` (in ``covbook.runner.phantom_set``) makes a data set of virtual patients in the same layouts.
"""

import functools
import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from covbook import project
from covbook.datasets import archives, download
from covbook.locks import lock
from covbook.tables import Table
from covlib.errors import ConfigError, DataError

RECEIPT = "covlib-source.json"  # written into a finished set: what was fetched from where, with its hashes


@dataclass(frozen=True)
class File:
    """One file to download.

    Attributes:
        size: bytes, None where it is not published or could not be confirmed (``size_note`` says so).
        sha256, md5: hexadecimal, None where not published; ``checksum_note`` says who states it.
        unpack: folder inside the set that an archive is unpacked into ("." for the set's own), None to keep the file;
            ``strip``: leading folders dropped from the names inside.
        folder: folder inside the set that a file that is not unpacked goes to.
    """

    url: str
    filename: str
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    size_note: str = ""
    checksum_note: str = ""
    unpack: str | None = None
    strip: int = 0
    folder: str = "."

    @property
    def known_hash(self) -> str | None:
        """"sha256:..." or "md5:...", or None where neither is published."""
        return f"sha256:{self.sha256}" if self.sha256 else f"md5:{self.md5}" if self.md5 else None


@dataclass(frozen=True)
class Source:
    """One data set; ``data/README.md`` describes the fields, ``data/schema/sources.schema.json`` checks them."""

    name: str
    title: str
    what: dict
    homepage: str
    access: str  # "download" (by us), "kaggle" (account and accepted rules) or "request" (by hand, on a web page)
    files: tuple[File, ...]
    licence: dict
    citation: dict
    chapters: tuple[str, ...]
    layout: str
    steps: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    size_note: str = ""

    @property
    def size(self) -> int | None:
        """Bytes to download, None unless every file's size is known."""
        sizes = [file.size for file in self.files if file.size is not None]
        return sum(sizes) if sizes and len(sizes) == len(self.files) else None


class ManualStepsNeeded(DataError):
    """A set that only its reader can fetch: the message is one line, ``steps`` has the commands to type."""

    def __init__(self, source: Source):
        where = "Kaggle (free account, rules to accept)" if source.access == "kaggle" else "its own web page"
        self.steps = tuple(step.replace("{folder}", str(cache_dir() / source.name)) for step in source.steps)
        super().__init__(f"{source.name}: is only given out by {where}; it takes these {len(self.steps)} steps by hand")


def registry(path: str | Path | None = None) -> dict[str, Source]:
    """All registered data sets by name.

    Args:
        path: another registry file of the same schema (``data/schema/sources.schema.json``).

    Raises:
        DataError: the file is missing or an entry lacks a field.
    """
    return dict(_registry(Path(path) if path else project.DATA / "sources.yaml"))


@functools.lru_cache(maxsize=8)
def _registry(path: Path) -> dict[str, Source]:
    try:
        registry = project.read_yaml(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: the registry of data sets is missing; install covlib from its repository") from error
    project.validate(registry, "sources", str(path), DataError)
    sources = {}
    for name, entry in registry["sources"].items():
        lists = {key: tuple(entry.get(key, ())) for key in ("chapters", "steps", "notes")}
        files = tuple(File(**file) for file in entry["files"])
        sources[name] = Source(**{**entry, **lists, "name": name, "files": files})
    return sources


def find(name: str, path: str | Path | None = None) -> Source:
    """The registered source ``name``; ConfigError with the valid names otherwise."""
    sources = registry(path)
    if name not in sources:
        raise ConfigError(f"data set {name!r} is not registered; registered are {', '.join(sources)}")
    return sources[name]


def cache_dir() -> Path:
    """Where downloaded sets live: ``COVLIB_DATA``, else the system's cache folder for covlib."""
    if os.environ.get("COVLIB_DATA"):
        return Path(os.environ["COVLIB_DATA"]).expanduser().resolve()
    import pooch

    return Path(pooch.os_cache("covlib"))


def is_here(name: str) -> bool:
    """Whether the set lies in the cache (fetched by us, or put there by hand)."""
    folder = cache_dir() / name
    try:
        return folder.is_dir() and any(folder.iterdir())
    except PermissionError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}; give yourself read permission") from error


def local(name: str) -> Path:
    """The folder of a fetched set.

    Raises:
        ConfigError: not a registered name.
        DataError: not downloaded yet; says what to run.
    """
    source = find(name)
    if not is_here(name):
        what = "run" if source.access == "download" else "follow the steps printed by"
        raise DataError(f"data set {name} is not downloaded: {what} `covlib data get {name}`")
    return cache_dir() / name


def get(name: str, dest: str | Path | None = None, *, path: str | Path | None = None) -> Path:
    """Download, verify and unpack a registered data set; returns its folder. A finished set is not fetched again.

    A cut download goes on where it stopped, in this call or the next. The set appears under its name only when all of
    it is there.

    Args:
        dest: folder to make (new or empty); default: the cache.
        path: another registry file.

    Raises:
        ConfigError: not a registered name.
        ManualStepsNeeded: a set that needs an account; ``error.steps`` has what to type.
        DataError: no network, a page that is gone, a wrong checksum, a refused archive, a full disk.
    """
    source = find(name, path)
    folder = Path(dest).expanduser().resolve() if dest else cache_dir() / name
    if _finished(folder, source):
        return folder
    if source.access != "download":
        if dest is None and is_here(name):
            return folder
        raise ManualStepsNeeded(source)
    with _filesystem_errors(), _work_folder(folder) as work:
        receipts = [_fetch(file, work) for file in source.files]
        ready = work / "ready"
        for left in (ready, work / "unpacked", *work.glob(".unpacked.*")):  # by a run that was killed
            shutil.rmtree(left, ignore_errors=True)
        try:
            for file in source.files:
                _place(file, work / file.filename, ready)
            (ready / RECEIPT).write_text(json.dumps({"name": name, "files": receipts}, indent=1) + "\n")
            if folder.exists():
                folder.rmdir()
            os.replace(ready, folder)
        finally:
            shutil.rmtree(ready, ignore_errors=True)
        shutil.rmtree(work)
    return folder


def _finished(folder: Path, source: Source) -> bool:
    """Whether ``folder`` was made by ``get`` for this very entry (same files, same checksums where they are known)."""
    try:
        receipt = json.loads((folder / RECEIPT).read_text())
    except (OSError, ValueError):
        return False
    have = {file["filename"]: file for file in receipt.get("files", ())}
    return receipt.get("name") == source.name and all(
        file.filename in have and have[file.filename]["url"] == file.url
        and file.known_hash in (None, *(f"{kind}:{have[file.filename][kind]}" for kind in ("sha256", "md5")))
        for file in source.files)


def _fetch(file: File, work: Path) -> dict:
    import pooch

    target = download.fetch(file.url, work / file.filename, known_hash=file.known_hash, size=file.size)
    return {"filename": file.filename, "url": file.url, "size": target.stat().st_size,
            **{kind: pooch.file_hash(str(target), alg=kind) for kind in ("sha256", "md5")}}


def _place(file: File, fetched: Path, ready: Path) -> None:
    """Unpack or move one fetched file into the folder that becomes the set."""
    if file.unpack is None:
        target = ready / file.folder / file.filename
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(fetched, target)  # the fetched one stays until the whole set is made, for a further attempt
        return
    try:
        unpacked = archives.unpack(fetched, ready.parent / "unpacked", strip=file.strip)
    except archives.RefusedError:
        fetched.unlink()  # kept, it would be found again by every further attempt
        raise
    try:
        target, inside = ready / file.unpack, unpacked
        if [item.name for item in inside.iterdir()] == [target.name]:
            inside = inside / target.name  # "x.zip" that holds all in "x/"; other packers leave that folder out
        target.mkdir(parents=True, exist_ok=True)
        for item in sorted(inside.iterdir()):
            if (target / item.name).exists():
                raise DataError(f"{file.filename}: {item.name!r} in it was made by another file of this set already")
            os.replace(item, target / item.name)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


@contextmanager
def _work_folder(folder: Path):
    """A hidden folder beside ``folder`` that keeps partial downloads between attempts; for one process at a time."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: is there already and was not made by `covlib data get`; move it away")
    work = folder.parent / f".{folder.name}.partial"
    work.mkdir(parents=True, exist_ok=True)
    with lock(work / "lock") as alone:
        if not alone:
            raise DataError(f"{folder}: another process is fetching this set now; wait until it has ended")
        yield work


@contextmanager
def _filesystem_errors():
    try:
        yield
    except OSError as error:
        why = "disk full; free some space" if error.errno in archives.FULL else error.strerror or error
        raise DataError(f"{error.filename or cache_dir()}: {why}") from error


def located(data: str | Path) -> str | Path:
    """What a chapter's ``data`` names, as the readers of ``covlib.files`` want it: "phantom" or a path that exists.

    A file or folder is taken as it is, an archive is unpacked into the cache, a registered set's name becomes its
    folder. What stands after "::" says how the folder is to be read (``covlib.files.layouts.find``) and stays.

    Raises:
        DataError: nothing of that name, or a set that is not downloaded yet.
    """
    from covbook.datasets import own_layouts

    own_layouts.make_known()
    if str(data) == "phantom":
        return "phantom"
    place, _, layout = (str(data), "", "") if Path(data).exists() else str(data).partition("::")
    path = Path(place)
    if layout:
        return f"{located(place)}::{layout}"
    if path.exists():
        return unpack_user_archive(path) if archives.is_archive(path) else data
    if str(data) not in registry():
        raise DataError(f"data: {str(data)!r} is neither 'phantom' nor a folder nor a registered source "
                        f"({', '.join(registry())})")
    return local(str(data))


def unpack_user_archive(path: str | Path) -> Path:
    """Unpack an archive that a reader gave as ``data`` into the cache; returns the folder to read.

    The folder's name holds the archive's SHA-256, so that an unchanged archive is unpacked once. If all lies in one
    folder inside, that folder is returned.

    Raises:
        DataError: see ``covbook.datasets.archives.unpack``.
    """
    import pooch

    archive = Path(path).expanduser()
    if not archive.is_file():
        raise DataError(f"{archive}: no such file")
    if not archives.is_archive(archive):
        raise DataError(f"{archive}: is no archive; give a folder, or one of {', '.join(archives.SUFFIXES)}")
    with _filesystem_errors():
        stem = archive.name.split(".")[0] or "archive"
        folder = cache_dir() / "archives" / f"{stem}-{pooch.file_hash(str(archive))[:16]}"
        if not folder.is_dir():
            archives.unpack(archive, folder)
    inside = list(folder.iterdir())
    while len(inside) == 1 and inside[0].is_dir():
        folder, inside = inside[0], list(inside[0].iterdir())
    return folder


def list_rows() -> list[dict]:
    """One row per set for ``covlib data list``: name, title, size (text), licence, chapters (text), here (bool)."""
    return [{"name": source.name, "title": source.title, "size": size_text(source), "licence": source.licence["name"],
             "chapters": ", ".join(source.chapters), "access": source.access, "here": is_here(source.name)}
            for source in registry().values()]


def describe(name: str) -> str:
    """Several lines about one set: what it holds, where from, licence, how to cite and to get it."""
    source = find(name)
    what = source.what
    lines = [f"{source.name}: {source.title}", f"  holds      {what['modality']}: {what['counts']}",
             f"  masks      {what['masks']}", f"  labels     {what['labels']}", f"  homepage   {source.homepage}",
             f"  size       {size_text(source)}", f"  licence    {source.licence['name']}: {source.licence['note']}",
             f"  cite       {source.citation['text']}", f"  chapters   {', '.join(source.chapters)}",
             f"  layout     {source.layout}"]
    lines += [f"  note       {note}" for note in source.notes]
    for file in source.files:
        lines.append(f"  file       {file.filename}  {file.known_hash or 'no published checksum'}")
        lines.append(f"             {file.url}")
    lines.append(f"  here       {cache_dir() / name}" if is_here(name) else f"  get it by  covlib data get {name}")
    return "\n".join(lines)


def markdown_table() -> str:
    """The data sets and their licences as a Markdown table, for the book's page on data sets."""
    head = ["Data set", "What it holds", "Masks and labels", "Size", "Licence", "Used in", "How to get it"]
    rows = []
    for source in registry().values():
        licence = source.licence
        named = f"[{licence['name']}]({licence['url']})" if licence.get("url") else licence["name"]
        how = f"`covlib data get {source.name}`" + ("" if source.access == "download" else " prints the steps")
        rows.append([f"[{source.title}]({source.homepage}) {{cite}}`{source.citation['key']}`",
                     f"{source.what['modality']}: {source.what['counts']}",
                     f"masks: {source.what['masks']}; labels: {source.what['labels']}", size_text(source),
                     f"{named}. {licence['note']}", ", ".join(source.chapters), how])
    return str(Table(head, rows))


def size_text(source: Source) -> str:
    return human_size(source.size) if source.size else source.size_note or "not published"


def human_size(size: int) -> str:
    """1234567 -> "1.2 MB" (decimal units, as the archives' pages print them)."""
    value, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.1f} {units[0]}" if units[0] != "B" else f"{size} B"
