"""What a run is given to read and to write: a data set by its kind and name, a folder that can be written."""

import os
from pathlib import Path

from covlib.errors import ConfigError, did_you_mean


def name_data(data) -> tuple[str, str]:
    """Kind ("phantom", "source", "folder") and name of a data set, both free of this machine's paths.

    Raises:
        ConfigError: neither "phantom", nor a registered source, nor a path that exists and can be read.
    """
    if not isinstance(data, (str, Path)) or not str(data):
        raise ConfigError(f'data: must be "phantom", a registered source or a folder, got {data!r}')
    if str(data) == "phantom":
        return "phantom", "phantom"
    if "::" in str(data) and not Path(data).exists():  # how a folder is to be read, see covlib.files.layouts.find
        from covlib.files.folders import parse_spec

        data, _, layout = str(data).partition("::")
        parse_spec(layout)
        return name_data(data)
    path = Path(data).expanduser()
    if path.exists():  # a reader's own folder comes before a source of that name, as in ``sources.located``
        if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
            raise ConfigError(f"data: {str(data)!r} cannot be read; check its permissions")
        return "folder", path.resolve().name
    from covbook.datasets import sources

    names = list(sources.registry())
    if str(data) not in names:
        raise ConfigError(f"data: {str(data)!r} does not exist{did_you_mean(data, ['phantom', *names])}; give "
                          f'"phantom", a folder or file, or a registered source ({", ".join(names)})')
    sources.local(str(data))
    return "source", str(data)


def check_writable(out) -> None:
    """ConfigError unless the folder ``out`` is there and writable or can be made; nothing is made."""
    if not isinstance(out, (str, Path)) or not str(out):
        raise ConfigError(f"out: must be a folder, got {out!r}")
    folder = Path(out).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"out: {out} is a file; give a folder")
    parent = folder
    while not parent.exists():
        parent = parent.parent if parent != parent.parent else Path(".")
    if not os.access(parent, os.W_OK | os.X_OK) or not parent.is_dir():
        raise ConfigError(f"out: cannot write to {out}; {parent} is not a folder that can be written to")


def make_out(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".writable-{os.getpid()}"
        probe.write_bytes(b"covlib")
        probe.unlink()
    except OSError as problem:
        raise ConfigError(f"out: {str(path)!r} cannot be written ({problem.strerror}); "
                          "give a folder with write permission and free space") from problem
    return path
