"""Lock files: at most one process at a time does a piece of work in a folder that several share.

The owner touches its lock every minute. A lock whose process is gone (same machine), or that nobody has touched for a
quarter of an hour, was left behind by a killed process: it is taken over, and that is said.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

from covlib.atomic import alive
from covlib.errors import ConfigError

BEAT, STALE = 60.0, 900.0  # seconds: how often a lock is touched, and after how long without it counts as left behind


@contextmanager
def lock(path: Path, say: Callable[[str], None] = print):
    """Hold ``path`` as a lock inside the block; gives whether it could be had.

    Args:
        say: is told who has it, or whose lock is taken over and why.

    Raises:
        ConfigError: the folder cannot be written.
    """
    mine = _take(path, say)
    if not mine:
        yield False
        return
    stop = threading.Event()
    beat = threading.Thread(target=_keep_touching, args=(path, stop), daemon=True)
    beat.start()
    try:
        yield True
    finally:
        stop.set()
        beat.join()
        if _read_lock(path) == _me():  # else it was taken over while this machine slept
            path.unlink(missing_ok=True)


def _take(path: Path, say) -> bool:
    """Make the lock, or take over one left behind."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if _make(path):
            return True
        why = _left_behind(path)
        if not why:
            say(f"{path.stem}: left to {_owner(path)}, which is running it")
            return False
        # Of several processes that find the same old lock only one may take it away.
        gate = path.with_suffix(".takeover")
        if not _make(gate):
            if time.time() - gate.stat().st_mtime > STALE:
                gate.unlink(missing_ok=True)
            say(f"{path.stem}: left to another process, which is taking it over")
            return False
        try:
            if not _left_behind(path):
                say(f"{path.stem}: left to {_owner(path)}, which has just taken it over")
                return False
            say(f"{path.stem}: taking over the lock of {_owner(path)}: {why}")
            path.unlink(missing_ok=True)
            return _make(path)
        finally:
            gate.unlink(missing_ok=True)
    except FileNotFoundError:
        say(f"{path.stem}: another process has just finished with it; sweep again to see what came of it")
        return False
    except OSError as problem:
        raise ConfigError(f"out: {path.parent} cannot be written ({problem.strerror}); give another --out") from problem


def _make(path: Path) -> bool:
    """Create ``path``, naming this process, if nobody has."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w") as file:
        file.write(json.dumps(_me()))
    return True


def _me() -> dict:
    return {"pid": os.getpid(), "host": socket.gethostname()}


def _left_behind(path: Path) -> str:
    """Why the lock counts as left behind; empty where it does not."""
    age = time.time() - path.stat().st_mtime
    if age > STALE:
        return f"not touched for {age / 60:.0f} minutes"
    owner = _read_lock(path)
    if owner.get("host") == socket.gethostname() and not alive(owner.get("pid")):
        return "that process is gone"
    return ""


def _read_lock(path: Path) -> dict:
    """Process and machine of a lock; empty where it is gone, or was just made and not yet written."""
    try:
        owner = json.loads(path.read_text())
    except (ValueError, FileNotFoundError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _owner(path: Path) -> str:
    owner = _read_lock(path)
    return f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"




def _keep_touching(path: Path, stop: threading.Event) -> None:
    while not stop.wait(BEAT):
        try:
            os.utime(path)
        except OSError:  # taken away by hand: the arm goes on, its result is written all the same
            return
