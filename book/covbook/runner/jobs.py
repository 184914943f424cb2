"""The jobs of studies and sweeps (``covlib sweep``): each done once, by whichever process comes to it first.

A job leaves one file, whole or not at all: where that is, the job is finished and not done again. A lock keeps others
off it meanwhile. One that was cut off is simply done again, and takes up what it had kept in its own folder.

Jobs are done in this process, one after the other, or on Dask: there a job whose worker dies is given to another, one
on a GPU takes it whole, and on a CPU each worker does one at a time.
"""

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from covbook.locks import lock
from covlib.errors import ConfigError, did_you_mean
from covlib.parallel import cores

TOPIC = "covlib-sweep"
ANSWERS = 5  # seconds within which a scheduler does
_one_at_a_time = threading.Lock()  # a job changes its process's environment and seed: never two in one process


@dataclass(frozen=True)
class Job:
    """One piece of work.

    Attributes:
        name: unique among the jobs of its folder. file: what it leaves.
        settings: what it is, plain values; "out" is its own folder, in which it keeps what it may take up again, and
            "device" where it computes.
        work: makes ``file`` of the settings; JobFailed says that this job can't be done and the others may go on.
    """

    name: str
    file: Path
    settings: dict[str, Any]
    work: Callable[[dict[str, Any]], None]

    @property
    def lock(self) -> Path:
        """The file that says that somebody is at it."""
        own = Path(self.settings["out"])
        return own.with_name(f"{own.name}.lock")

    @property
    def finished(self) -> bool:
        """Whether its file is there and its lock is not: one whose process was killed at its very end is looked at
        again, so that the lock goes."""
        return self.file.is_file() and not self.lock.exists()


def known(what: str, name: str, valid: Iterable[str]) -> str:
    """``name`` if it is one of ``valid``; ConfigError listing those otherwise. ``what``: the option it was given to."""
    if name not in (valid := list(valid)):
        raise ConfigError(f"{what}: there is no {name!r}{did_you_mean(name, valid)}; valid are "
                          f"{', '.join(valid) or '(none yet)'}")
    return name


def chosen(what: str, names: Iterable[str] | None, valid: Iterable[str]) -> list[str]:
    """Those of ``names`` in the order of ``valid``, all when None; ConfigError listing the valid ones otherwise."""
    valid = list(valid)
    wanted = valid if names is None else [known(what, name, valid) for name in names]
    if not wanted:
        raise ConfigError(f"{what}: none given; valid are {', '.join(valid)}")
    return [name for name in valid if name in wanted]


def check_same(folder: Path, what: str, there: dict[str, Any], wanted: dict[str, Any]) -> None:
    """ConfigError unless ``what`` a folder holds is of the kind that is ``wanted`` there."""
    for key, value in wanted.items():
        if there.get(key) != value:
            raise ConfigError(f"out: {folder} holds {what} of another {key} ({_difference(there.get(key), value)}); "
                              "give another --out")


def _difference(there, wanted) -> str:
    """The first thing that differs, in few words."""
    name = ""
    if isinstance(there, dict) and isinstance(wanted, dict):
        key = next(k for k in {**there, **wanted} if there.get(k) != wanted.get(k))
        there, wanted, name = there.get(key), wanted.get(key), f"{key}: "
    return f"{name}{str(there)[:40]} there, {str(wanted)[:40]} wanted"


class JobFailed(Exception):
    """A job that did not come to its end, and why in one line."""


@dataclass
class Outcome:
    """What became of the jobs, by their names: done now, there already, left to another process, failed and why."""

    done: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return (f"{len(self.done)} done, {len(self.there)} there already, {len(self.elsewhere)} left to other "
                f"processes, {len(self.failed)} failed")


def run(jobs: list[Job], *, dask: bool, scheduler: str | None = None, workers: int | None = None, retries: int = 2,
        say: Callable[[str], None] = print) -> Outcome:
    """Do the jobs that are not finished, and say how it goes.

    Args:
        dask: whether Dask's workers do them, or this process in the order given; there an error that is no JobFailed
            stops the sweep, and what is done stays done.
        scheduler: address of a Dask scheduler whose workers have covlib and see the jobs' folders; None: workers
            started here.
        workers: how many are started here; by default one a GPU, or one a core.
        retries: how often a job is given to another worker when its worker dies.

    Raises:
        ConfigError: the jobs' folder cannot be written, or the scheduler cannot be reached.
    """
    outcome = Outcome()
    reports = _on_dask(jobs, scheduler, workers, retries, say) if dask else ((job, *_do(job, say)) for job in jobs)
    for k, (job, became, text) in enumerate(reports, start=1):
        if became == "failed":
            outcome.failed[job.name] = text
        else:
            getattr(outcome, became).append(job.name)
        words = {"done": f"done in {text}", "there": "already there", "elsewhere": "left to another process",
                 "failed": f"failed: {text}"}
        say(f"[{k}/{len(jobs)}] {job.name}: {words[became]}")
    return outcome


def _do(job: Job, say: Callable[[str], None], where: str = "") -> tuple[str, str]:
    """Do a job unless it is finished or somebody else is at it: what became of it, and a word about that."""
    if job.finished:
        return "there", ""
    with lock(job.lock) as mine:
        if job.file.is_file():  # finished by another process between the two looks
            return "there", ""
        if not mine:
            return "elsewhere", ""
        say(f"{job.name}: running{where}" + (" again" if Path(job.settings["out"]).exists() else ""))
        began = time.monotonic()
        try:
            job.work(job.settings)
        except JobFailed as failed:
            return "failed", str(failed)
        return "done", f"{time.monotonic() - began:.1f} s"


# ---- on Dask ---------------------------------------------------------------------------------------------------------


def _on_dask(jobs: list[Job], scheduler: str | None, workers: int | None, retries: int, say):
    """Jobs, what became of them and a word about it, as they end; those that are there already first."""
    waiting = [job for job in jobs if not job.finished]
    yield from ((job, "there", "") for job in jobs if job not in waiting)
    if not waiting:
        return
    device = waiting[0].settings["device"]
    gpus = _gpus(device) if scheduler is None else 0
    n = min(workers or gpus or cores(), len(waiting), gpus or len(waiting))
    with _client(scheduler, n, gpus, retries) as client:
        yield from _submitted(client, waiting, device, retries, say)


def _submitted(client, jobs: list[Job], device: str, retries: int, say):
    from distributed import as_completed

    offers = [w.get("resources", {}) for w in client.scheduler_info(n_workers=-1)["workers"].values()]
    on_gpu = device.startswith("cuda") or any("GPU" in offer for offer in offers)
    client.subscribe_topic(TOPIC, lambda event: say(event[1]["text"]))
    futures = {client.submit(_do_here, job, key=str(job.file), pure=False, retries=0,
                             resources={"GPU": 1} if on_gpu else None): job for job in jobs}
    say(f"{len(futures)} runs on {len(offers)} worker{'s' if len(offers) != 1 else ''}"
        + (", one a GPU" if on_gpu else ""))
    for future in as_completed(futures):
        try:
            yield futures[future], *future.result()
        except Exception as error:  # whatever became of the worker: it is this job's outcome, the others go on
            text = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            if type(error).__name__ == "KilledWorker":
                text = f"its worker died {retries + 1} times; the usual cause is too little memory"
            yield futures[future], "failed", text


def _do_here(job: Job) -> tuple[str, str]:
    """``_do`` on a worker."""
    from distributed import get_worker

    worker = get_worker()
    with _one_at_a_time:
        return _do(job, lambda text: worker.log_event(TOPIC, {"text": text}), f" on {worker.address}")


@contextmanager
def _client(scheduler: str | None, n: int, gpus: int, retries: int):
    """A client of the scheduler at an address, or of one with ``n`` workers of one thread started here."""
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster

    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=ANSWERS)
        except (OSError, ValueError, TimeoutError) as error:
            raise ConfigError(f"--scheduler: no Dask scheduler answers at {scheduler} "
                              f"({' '.join(str(error).split())[:100]}); an address such as tcp://host:8786 is wanted"
                              ) from None
        with client:
            if not client.scheduler_info()["workers"]:
                raise ConfigError(f"--scheduler: {scheduler} has no workers; start some with dask worker {scheduler} "
                                  "--nthreads 1, or dask-jobqueue")
            yield client
        return
    settings = {"distributed.scheduler.allowed-failures": retries, "distributed.worker.memory.terminate": False,
                "distributed.worker.memory.pause": False, "distributed.worker.memory.spill": False,
                "distributed.worker.memory.target": False}
    threads = str(max(1, cores() // n))  # of each run's numerical libraries: no more in all than there are cores
    env = {f"{library}_NUM_THREADS": threads for library in ("OMP", "MKL", "OPENBLAS", "NUMBA")}
    options = lambda k: {"nthreads": 1, "dashboard": False, "silence_logs": 50, "resources": {"GPU": 1} if gpus else {},
                         "env": env | ({"CUDA_VISIBLE_DEVICES": str(k % gpus)} if gpus else {})}
    with dask.config.set(settings):
        nannies = {k: {"cls": Nanny, "options": options(k)} for k in range(n)}
        place = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard": False}}
        with SpecCluster(workers=nannies, scheduler=place, silence_logs=50) as cluster, Client(cluster) as client:
            client.wait_for_workers(n, timeout=120)
            yield client


def _gpus(device: str) -> int:
    if device not in ("auto", "cuda"):
        return 0
    import torch

    return torch.cuda.device_count()
