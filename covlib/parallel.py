"""Independent pieces of work in several processes, one thread each: networks and images too small to keep several
threads busy. The numbers do not depend on how many processes there are. No process outlives the one that asked for it,
however that one ends."""

import os
import threading
import time
from collections.abc import Callable, Iterable

from covlib import rehearsal

LOOK = 0.5  # seconds between two looks at whether the parent still lives
_watched: set[int] = set()


def cores() -> int:
    """Cores this process may use, as far as the environment lets numerical libraries (``OMP_NUM_THREADS``)."""
    free = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(free, max(1, int(asked))) if asked.isdecimal() else free


def spread(function: Callable, jobs: Iterable[tuple], workers: int | None = None) -> list:
    """``[function(*job) for job in jobs]``, on as many cores as there are; results in the order of the jobs.

    Args:
        function: of an importable module; it, its arguments and results are pickled. Errors it raises are raised here.
        workers: processes; default ``cores()``, and never more than jobs. With 1 everything runs in this process, with
            PyTorch held to one thread where it is loaded.
    """
    jobs = list(jobs)
    workers = min(len(jobs), cores() if workers is None else workers)
    if workers <= 1 or rehearsal.active():  # which counts this process's trainings
        return _here(function, jobs)
    from joblib import Parallel, delayed, parallel_config

    with parallel_config(backend="loky", inner_max_num_threads=1):
        return Parallel(n_jobs=workers)(delayed(_in_worker)(os.getpid(), function, *job) for job in jobs)


def end_with(parent: int) -> None:
    """End this process at once when its parent has: a kill leaves a parent no time to end its children, and a training
    of hours would go on for nobody. Without effect where there are no parents to ask for (Windows).

    Args:
        parent: process id.
    """
    if parent in _watched or os.name != "posix":
        return
    _watched.add(parent)

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK)
        os._exit(1)

    threading.Thread(target=look, daemon=True, name="end with parent").start()


def _in_worker(parent: int, function: Callable, *job):
    """A job in a worker. The asking process is the worker's parent: one that is gone ends the worker before the job."""
    end_with(parent)
    return function(*job)


def _here(function: Callable, jobs: list[tuple]) -> list:
    import sys

    if "torch" not in sys.modules:
        return [function(*job) for job in jobs]
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [function(*job) for job in jobs]
    finally:
        torch.set_num_threads(before)
