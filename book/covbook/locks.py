"""Lock files: at most one process at a time does a piece of work in a folder that several share.

The operating system holds the lock and frees it when its process ends, however that ends; the file is only its name.
"""

from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from covlib.errors import ConfigError


@contextmanager
def lock(path: Path):
    """Hold ``path`` as a lock inside the block; gives whether it could be had. It does not wait.

    Raises:
        ConfigError: the folder cannot be written.
    """
    held = FileLock(path, blocking=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held.acquire()
    except Timeout:
        yield False
        return
    except OSError as problem:
        raise ConfigError(f"out: {path.parent} cannot be written ({problem.strerror}); give another --out") from problem
    try:
        yield True
    finally:
        with suppress(OSError):  # before it is freed: whoever locks a file without a name is told that it has none
            path.unlink()
        held.release()
