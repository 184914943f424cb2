"""A command that is stopped leaves no process behind: neither the kernel of its chapter nor what that had started."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from covbook import project

HELPERS = Path(__file__).parents[1] / "helpers"
PARAMETERS = """profile = "cpu"
data = "phantom"
seed = 0
device = "auto"
out = "runs/90_tiny"
checkpoint = None
resume = True
overrides = {}"""
WORK = """import os, pathlib
import sleeper
from covlib import parallel
pathlib.Path(out, "kernel.pid").write_text(str(os.getpid()))
parallel.spread(sleeper.sleep_on, [(out, "one"), (out, "two")], workers=2)"""
LONG = 120  # seconds until a test gives up


def wait_until(condition, what: str) -> None:
    last = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < last, f"{what}: not within {LONG} s"
        time.sleep(0.1)


def lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not yet collected by its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def start(*words) -> subprocess.Popen:
    places = [HELPERS, project.ROOT, project.ROOT / "book"]
    return subprocess.Popen([sys.executable, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))})


def ids(folder: Path, names) -> dict[str, int]:
    wait_until(lambda: all((folder / f"{name}.pid").exists() for name in names), f"the processes {names} at work")
    return {name: int((folder / f"{name}.pid").read_text()) for name in names}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_run_leaves_no_kernel_and_no_workers(tmp_path, number, status):
    v4 = nbformat.v4
    cells = [v4.new_markdown_cell("# Tiny"), v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
             v4.new_code_cell(WORK)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), tmp_path / "90_tiny.ipynb")
    process = start("-m", "covbook.cli", "run", tmp_path / "90_tiny.ipynb", "--out", tmp_path / "out")
    there = ids(tmp_path / "out", ("kernel", "one", "two"))
    assert len(set(there.values())) == 3 and all(map(lives, there.values()))
    process.send_signal(number)
    _, said = process.communicate(timeout=LONG)
    assert process.returncode == status, said
    assert number == signal.SIGKILL or "covlib: stopped" in said and "Traceback" not in said
    wait_until(lambda: not any(map(lives, there.values())), "kernel and workers gone")
    assert number == signal.SIGKILL or not list((tmp_path / "out").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_a_program_that_is_ended(tmp_path, number):
    """Studies and ``covlib train`` spread work from their own process, without a kernel."""
    code = ("import sleeper; from covlib.parallel import spread; "
            f"spread(sleeper.sleep_on, [({str(tmp_path)!r}, 'one'), ({str(tmp_path)!r}, 'two')], workers=2)")
    process = start("-c", code)
    there = ids(tmp_path, ("one", "two"))
    process.send_signal(number)
    process.communicate(timeout=LONG)
    wait_until(lambda: not any(map(lives, there.values())), "workers gone")
