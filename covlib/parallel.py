"""Independent pieces of work in several processes, one thread each: networks and images too small to keep several
threads busy. The numbers do not depend on how many processes there are."""

import os
from collections.abc import Callable, Iterable

from covlib import rehearsal


def cores() -> int:
    """Cores this process may use, as far as the environment lets numerical libraries (``OMP_NUM_THREADS``)."""
    free = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(free, max(1, int(asked))) if asked.isdigit() else free


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
        return Parallel(n_jobs=workers)(delayed(function)(*job) for job in jobs)


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
