"""Unpacking of archives from strangers: every member is checked first, then all or nothing is unpacked.

Refused, with the member named: names that leave the folder ("../", absolute, drive letters), links, device files and
FIFOs, encrypted or sparse members, two members of one name, and bombs (by ratio, total size and number of files).
Nothing in an archive is executed, and file modes stored in it are ignored.
"""

import errno
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from covlib.atomic import atomic_folder
from covlib.errors import DataError, first_line

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
CHUNK = 1 << 20
LARGEST_HEADER = 64 << 20  # tarfile reads long names and PAX records whole: more is an attack on memory
TOTAL, FILES = 200 << 30, 1_000_000  # bytes after unpacking, and members, that an archive may hold
RATIO = 200  # unpacked over packed size; medical images pack 1.5 to 5 times, masks up to some hundred times
RATIO_FROM = 64 << 20  # unpacked bytes from which the ratio is looked at
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RefusedError(DataError):
    """The archive is damaged or hostile: another attempt needs another file."""


@dataclass(frozen=True)
class Member:
    """One entry of an archive as it says of itself; ``fault``: why its kind is refused, "" where it is not; ``open``
    gives a binary file."""

    name: str
    size: int
    is_folder: bool
    fault: str
    open: Callable[[], Any]


def is_archive(path: str | Path) -> bool:
    """Whether ``path`` is a file with an archive's ending (".nii.gz" is none)."""
    return Path(path).is_file() and str(path).lower().endswith(SUFFIXES)


def unpack(archive: str | Path, folder: str | Path, *, strip: int = 0) -> Path:
    """Unpack a zip or tar (plain, gz, bz2, xz) into ``folder``, which must not exist yet or be empty.

    Args:
        strip: leading folders to drop from every name (1 for the archives that GitHub makes).

    Raises:
        DataError: anything that the module's first lines call refused, a damaged archive, or a full disk. Nothing is
            left in ``folder`` then.
    """
    archive, folder = Path(archive), Path(folder)
    with atomic_folder(folder) as work, _one_line(archive), _members(archive) as members:
        files = _checked(archive, members, strip)
        needed, free = sum(member.size for member in files.values()), shutil.disk_usage(work).free
        if needed > free:
            raise DataError(f"{folder}: disk full: {archive.name} needs {needed} bytes, {free} are free")
        for path, member in files.items():
            _write(archive, member, work / path)
    return folder


def safe_path(name: str, strip: int = 0) -> PurePosixPath | None:
    """The path inside the target folder that a member's name stands for; None for the folder itself.

    Raises:
        ValueError: a name that is empty or leaves the folder, with the reason.
    """
    if not name or "\0" in name:
        raise ValueError("has no usable name")
    name = name.replace("\\", "/")
    if name.startswith("/") or name[1:2] == ":":
        raise ValueError("has an absolute name")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError('has "../" in its name')
    parts = parts[strip:]
    return PurePosixPath(*parts) if parts else None


def _checked(archive: Path, members: Iterator[Member], strip: int) -> dict[PurePosixPath, Member]:
    """The files by their path in the folder; every member is looked at before anything is written."""
    files: dict[PurePosixPath, Member] = {}
    packed, total = max(archive.stat().st_size, 1), 0
    for number, member in enumerate(members, 1):
        if member.fault:
            raise _refused(archive, member.name, member.fault)
        if number > FILES:
            raise _refused(archive, member.name, f"is one of more than {FILES} files")
        try:
            path = safe_path(member.name, strip)
        except ValueError as error:
            raise _refused(archive, member.name, str(error)) from error
        if path is None or member.is_folder:
            continue
        refuse = partial(_refused, archive, str(path))
        if path in files:
            raise refuse("is there twice")
        files[path] = member
        total += member.size
        if total > TOTAL:
            raise refuse(f"brings the unpacked size above {TOTAL} bytes (a bomb?)")
        if total > RATIO_FROM and total > RATIO * packed:
            raise refuse(f"brings the unpacked size above {RATIO} times the packed one (a bomb?)")
    for parent in (parent for path in files for parent in path.parents if parent in files):
        raise _refused(archive, str(parent), "is both a file and a folder")
    files = {path: member for path, member in files.items() if not _is_junk(path)}
    if not files:
        raise RefusedError(f"{archive.name}: holds no files")
    return files


def _refused(archive: Path, name: str, why: str) -> RefusedError:
    return RefusedError(f"{archive.name}: refused, nothing was unpacked: member {ascii(name)} {why}")


def _is_junk(path: PurePosixPath) -> bool:
    """Files that operating systems leave in archives."""
    return path.parts[0] == "__MACOSX" or path.name.startswith("._") or path.name in (".DS_Store", "Thumbs.db")


def _write(archive: Path, member: Member, target: Path) -> None:
    """Copy one member; zipfile and tarfile never give more bytes than its header announced."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with member.open() as source, open(target, "xb") as sink:  # "x": two names may be one on this file system
            shutil.copyfileobj(source, sink, CHUNK)
    except OSError as error:
        if error.errno in FULL:
            raise DataError(f"{target}: disk full while unpacking {archive.name}; free {member.size} bytes") from error
        raise


@contextmanager
def _one_line(archive: Path) -> Iterator[None]:
    """Turn what missing and damaged archives raise into one line."""
    try:
        yield
    except (OSError, zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, struct.error,
            ValueError, OverflowError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # without a number it is gzip's own
            raise DataError(f"{archive.name}: cannot be unpacked: {error.filename}: {error.strerror}") from error
        why = first_line(error)
        raise RefusedError(f"{archive.name}: cannot be read as an archive: {why}; get it again") from error


# ---- zip and tar -----------------------------------------------------------------------------------------------------


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[Member]]:
    """The archive's entries in order; they can be opened as long as the block lasts."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            yield (Member(info.orig_filename, info.file_size, info.is_dir(), _zip_fault(info),
                          partial(packed.open, info)) for info in packed.infolist())
        return
    try:
        opened = tarfile.open(archive, tarinfo=_Header)
    except tarfile.ReadError as error:
        raise RefusedError(f"{archive.name}: is neither a zip nor a tar archive, or cut off; get it again") from error
    with opened:
        yield _tar_members(opened)


def _zip_fault(info: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "is a link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a device file, FIFO or socket"
    return "is encrypted" if info.flag_bits & 1 else ""


def _tar_members(opened: tarfile.TarFile) -> Iterator[Member]:
    for info in opened:
        yield Member(info.name, info.size, info.isdir(), _tar_fault(info), partial(opened.extractfile, info))
    stream, left = opened.fileobj, LARGEST_HEADER
    while chunk := stream.read(CHUNK):  # only at its very end does a compressed stream check its checksum
        left -= len(chunk)
        if left < 0:
            raise ValueError(f"more than {LARGEST_HEADER} bytes follow the last member (a bomb?)")


def _tar_fault(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return f"is a link to {ascii(info.linkname)}"
    if info.issparse():
        return "is a sparse file"
    return "" if info.isreg() or info.isdir() else "is a device file, FIFO or of an unknown kind"


class _Header(tarfile.TarInfo):
    """A tar header that is refused before tarfile reads what it announces, where that would fill the memory."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        header = super().frombuf(buf, encoding, errors)
        if not header.isreg() and header.size > LARGEST_HEADER:
            raise ValueError(f"a header wants {header.size} bytes in one piece (a bomb?)")
        return header
