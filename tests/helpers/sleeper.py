"""Work that never ends by itself, for tests of how it is ended."""

import os
import time
from pathlib import Path


def sleep_on(folder: str, name: str) -> None:
    """Leave this process's id in ``folder``/``name``.pid, and sleep."""
    partial = Path(folder, f".{name}")
    partial.write_text(str(os.getpid()))
    partial.rename(Path(folder, f"{name}.pid"))
    while True:
        time.sleep(60)
