"""Files and folders that appear whole or not at all."""

import glob
import os
import platform
import re
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from covlib.errors import DataError, TrainingError, first_line


@contextmanager
def atomic_folder(target, *, replaceable: str | None = None):
    """A temporary folder beside ``target`` that takes its place when the block ends well, and vanishes when it fails.

    Args:
        target: the folder to make. Missing parents are made.
        replaceable: file whose presence shows that an existing ``target`` was written by us; only then is it replaced.
            None: nothing is replaced but an empty folder.

    Raises:
        DataError: ``target`` exists and is not empty and not ours, or it cannot be written (permission, full disk).
    """
    target = Path(target)
    if target.is_symlink() or target.is_file():
        raise DataError(f"{target}: is a file or a link; give the name of a new folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        old, partial = beside(target, "old"), beside(target)
        if target.is_dir() and any(target.iterdir()) and not (replaceable and (target / replaceable).exists()):
            why = f"holds no {replaceable}" if replaceable else "nothing is overwritten"
            raise DataError(f"{target}: is not empty and {why}, so it is left alone; give a new folder")
        partial.mkdir()
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror}); give a folder you may write to") from error
    try:
        yield partial
        if target.exists():
            os.replace(target, old)
        os.replace(partial, target)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise DataError(f"{target}: writing failed ({error.strerror or error}); nothing is kept of it") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def alive(pid) -> bool:
    """Whether a process of this machine has that number."""
    try:
        os.kill(int(pid), 0)
    except (TypeError, ValueError, ProcessLookupError):
        return False
    except PermissionError:  # somebody else's process: it runs
        return True
    return True


def beside(path: Path, kind: str = "partial") -> Path:
    """A name in the same folder for what becomes ``path`` once it is whole ("old": for what it replaces). What killed
    processes of this machine left under such names is removed; an old one is put back where ``path`` is gone."""
    host = re.sub(r"\W", "_", platform.node())[:40]
    stem = f".{path.name}.{kind}-{host}-"
    for left in path.parent.glob(f"{glob.escape(stem)}*"):
        if alive(left.name.removeprefix(stem).partition(".")[0]):
            continue
        if kind == "old" and not path.exists():
            os.replace(left, path)
        elif left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
    return path.with_name(f"{stem}{os.getpid()}")


def write_atomically(path: Path, content: bytes | str | Callable[[BinaryIO], Any]) -> Path:
    """Write a file so that ``path`` is either the old one or the whole new one, on the disk; returns its path.

    Args:
        content: what to write, or a function that writes it into the open file it is given. A ``Path`` that the
            function returns takes the place of ``path`` (a name that depends on the content).

    Raises:
        TrainingError: the disk is full or the folder cannot be written; whatever was at ``path`` is as it was.
    """
    path = Path(path)
    partial = beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            if callable(content):
                renamed = content(file)
                path = renamed if isinstance(renamed, Path) else path
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
        return path
    except (OSError, RuntimeError) as error:  # RuntimeError: what PyTorch's zip writer makes of a failed write
        raise TrainingError(f"cannot write {path}: {_reason(error)}; what was saved before is unharmed") from error
    finally:
        if partial.exists():
            partial.unlink()


def _reason(error: BaseException) -> str:
    while not isinstance(error, OSError) and (deeper := error.__cause__ or error.__context__):
        error = deeper
    return error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
