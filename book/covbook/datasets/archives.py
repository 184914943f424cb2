"""Unpacking of archives from strangers: every member is checked first, then all or nothing is unpacked.

Refused, with the member named: names that leave the folder ("../", absolute, drive letters), links, device files and
FIFOs, encrypted or sparse members, two members of one name, and bombs (by ratio, total size and number of files).
Nothing in an archive is executed, and file modes stored in it are ignored.
"""

import bz2
import errno
import gzip
import lzma
import os
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from covlib.errors import DataError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
CHUNK = 1 << 20
LARGEST_READ = 64 << 20  # a tar header that asks for more than this in one piece is an attack on memory
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RefusedError(DataError):
    """The archive is damaged or hostile: another attempt needs another file."""


@dataclass(frozen=True)
class Limits:
    """What an archive may hold. Medical images pack 1.5 to 5 times, masks up to some hundred times.

    Attributes:
        total: bytes after unpacking.
        files: number of members.
        ratio: unpacked over packed size of the whole archive; looked at only above ``ratio_from`` unpacked bytes.
    """

    total: int = 200 << 30
    files: int = 1_000_000
    ratio: float = 200.0
    ratio_from: int = 64 << 20


@dataclass(frozen=True)
class Member:
    """One file of an archive: its cleaned path inside the target folder, size in bytes, and how to open it."""

    path: PurePosixPath
    size: int
    open: Callable[[], BinaryIO]


def is_archive(path: str | Path) -> bool:
    """Whether ``path`` is a file with an archive's ending (".nii.gz" is none)."""
    return Path(path).is_file() and str(path).lower().endswith(SUFFIXES)


def unpack(archive: str | Path, folder: str | Path, *, strip: int = 0, limits: Limits = Limits()) -> Path:
    """Unpack a zip or tar (plain, gz, bz2, xz) into ``folder``, which must not exist yet or be empty.

    Args:
        strip: leading folders to drop from every name (1 for the archives that GitHub makes).

    Raises:
        DataError: anything that the module's first lines call refused, a damaged archive, or a full disk. Nothing is
            left in ``folder`` then.
    """
    archive, folder = Path(archive), Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: is not an empty folder; give a new one to unpack {archive.name} into")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _readable(archive), _reader(archive, strip) as read_members:
        total = _check(archive, read_members(), limits)
        free = shutil.disk_usage(folder.parent).free
        if total > free:
            raise DataError(f"{folder}: disk full: {archive.name} needs {total} bytes, {free} are free")
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            for member in read_members():
                if not _is_junk(member.path):
                    _write(archive, member, work / member.path)
            os.chmod(work, 0o755)  # mkdtemp's 0700 is for us while we write
            if folder.exists():
                folder.rmdir()  # it was empty; fails if somebody filled it meanwhile
            os.replace(work, folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
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


def _is_junk(path: PurePosixPath) -> bool:
    """Files that operating systems leave in archives."""
    return path.parts[0] == "__MACOSX" or path.name.startswith("._") or path.name in (".DS_Store", "Thumbs.db")


def _check(archive: Path, members: Iterator[Member], limits: Limits) -> int:
    """Look at every member before anything is written; returns the unpacked size in bytes."""
    packed, total, seen = max(archive.stat().st_size, 1), 0, set()
    for number, member in enumerate(members, 1):
        if number > limits.files:
            raise _refuse(archive, str(member.path), f"is one of more than {limits.files} files")
        if member.path in seen:
            raise _refuse(archive, str(member.path), "is there twice")
        seen.add(member.path)
        total += member.size
        if total > limits.total:
            raise _refuse(archive, str(member.path), f"brings the unpacked size above {limits.total} bytes (a bomb?)")
        if total > limits.ratio_from and total > limits.ratio * packed:
            raise _refuse(archive, str(member.path),
                          f"brings the unpacked size above {limits.ratio:g} times the packed one (a bomb?)")
    if all(_is_junk(path) for path in seen):
        raise RefusedError(f"{archive.name}: holds no files")
    for path in seen:
        for parent in path.parents:
            if parent in seen:
                raise _refuse(archive, str(parent), "is both a file and a folder")
    return total


def _write(archive: Path, member: Member, target: Path) -> None:
    """Copy one member; never more bytes than its header announced."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        left = member.size
        with member.open() as source, open(target, "xb") as sink:
            while chunk := source.read(min(CHUNK, left + 1)):
                left -= len(chunk)
                if left < 0:
                    raise _refuse(archive, str(member.path), "is longer than its header says (a bomb?)")
                sink.write(chunk)
        if left:
            raise RefusedError(f"{archive.name}: is truncated: {str(member.path)!r} lacks {left} bytes; get it again")
    except OSError as error:
        if error.errno in FULL:
            raise DataError(f"{target}: disk full while unpacking {archive.name}; free {member.size} bytes") from error
        if isinstance(error, (FileExistsError, NotADirectoryError)):
            raise _refuse(archive, str(member.path), "meets another member's name on this file system") from error
        if error.errno == errno.ENAMETOOLONG:
            raise _refuse(archive, str(member.path), "has too long a name for this file system") from error
        raise


def _refuse(archive: Path, name: str, why: str) -> RefusedError:
    return RefusedError(f"{archive.name}: refused, nothing was unpacked: member {ascii(name)} {why}")


@contextmanager
def _readable(archive: Path):
    """Turn what missing and damaged archives raise into one line."""
    try:
        yield
    except OSError as error:  # gzip's own error is one, without a number
        if error.errno is None:
            raise RefusedError(f"{archive.name}: cannot be read as an archive: {_line(error)}; get it again") from error
        raise DataError(f"{error.filename or archive}: {error.strerror}") from error
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, struct.error, ValueError,
            OverflowError, RuntimeError) as error:
        raise RefusedError(f"{archive.name}: cannot be read as an archive: {_line(error)}; get it again") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def _reader(archive: Path, strip: int):
    """A function that yields the archive's files in order, each checked for name and kind; may be called twice."""
    with open(archive, "rb") as head:
        magic = head.read(6)
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            yield lambda: _zip_members(archive, opened, strip)
    else:
        with _tar_stream(archive, magic) as stream:
            yield lambda: _tar_members(archive, stream, strip)


def _zip_members(archive: Path, opened: zipfile.ZipFile, strip: int) -> Iterator[Member]:
    for info in opened.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind == stat.S_IFLNK:
            raise _refuse(archive, info.filename, "is a link")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _refuse(archive, info.filename, "is a device file, FIFO or socket")
        if info.flag_bits & 1:
            raise _refuse(archive, info.filename, "is encrypted")
        path = _member_path(archive, info.orig_filename, strip)
        if path is None or info.is_dir():
            continue
        yield Member(path, info.file_size, lambda info=info: opened.open(info))


def _tar_members(archive: Path, stream: "_Guard", strip: int) -> Iterator[Member]:
    stream.seek(0)
    try:
        opened = tarfile.open(fileobj=stream, mode="r:")
    except tarfile.ReadError as error:
        raise RefusedError(f"{archive.name}: is neither a zip nor a tar archive, or cut off; get it again") from error
    with opened:
        for info in opened:
            if info.issym() or info.islnk():
                raise _refuse(archive, info.name, f"is a link to {ascii(info.linkname)}")
            if info.issparse():
                raise _refuse(archive, info.name, "is a sparse file")
            if not (info.isreg() or info.isdir()):
                raise _refuse(archive, info.name, "is a device file, FIFO or of an unknown kind")
            path = _member_path(archive, info.name, strip)
            if path is None or info.isdir():
                continue
            yield Member(path, info.size, lambda info=info: opened.extractfile(info))
    stream.drain()


def _member_path(archive: Path, name: str, strip: int) -> PurePosixPath | None:
    try:
        return safe_path(name, strip)
    except ValueError as error:
        raise _refuse(archive, name, str(error)) from error


class _Guard:
    """A decompressed stream for tarfile that never hands out a huge piece (tarfile reads long headers whole)."""

    def __init__(self, archive: Path, raw: BinaryIO):
        self.archive, self.raw = archive, raw

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > LARGEST_READ:
            raise _refuse(self.archive, "(a header)", f"asks for {size} bytes in one piece (a bomb?)")
        return self.raw.read(size)

    def drain(self) -> None:
        """Read what follows the last member: only at its very end does a compressed stream check its checksum."""
        left = LARGEST_READ
        while chunk := self.raw.read(CHUNK):
            left -= len(chunk)
            if left < 0:
                raise _refuse(self.archive, "(end)", f"is followed by more than {LARGEST_READ} bytes (a bomb?)")

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.raw.seek(offset, whence)

    def tell(self) -> int:
        return self.raw.tell()


@contextmanager
def _tar_stream(archive: Path, magic: bytes):
    if magic.startswith(b"\x1f\x8b"):
        opened = gzip.open(archive, "rb")
    elif magic.startswith(b"BZh"):
        opened = bz2.open(archive, "rb")
    elif magic.startswith(b"\xfd7zXZ"):
        opened = lzma.open(archive, "rb")
    else:
        opened = open(archive, "rb")
    with opened:
        yield _Guard(archive, opened)
