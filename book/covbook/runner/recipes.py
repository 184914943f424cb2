"""``covlib train``: a chapter's methods trained without its notebook, on any number of devices and nodes::

    covlib train 06_cyclegan --profile gpu --devices 8 --out runs/06
    torchrun --nproc-per-node 8 --nnodes 4 ... -m covbook.cli train 06_cyclegan --profile gpu --out /shared/06
    covlib run 06_cyclegan --profile gpu --out runs/06          # the chapter takes up what was trained, and judges it

The training is the chapter's own, called with the same data, settings and seeds: what lies in ``out`` afterwards is
what the chapter would have left there. Any number of processes shares the work, and any other number may go on with it.
"""

import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from covbook import claims, places, provenance
from covbook.chapters.global_local import METHODS
from covbook.runner import chapters, jobs
from covlib.errors import ConfigError

BATCH = 32  # images that a process makes at a time


@dataclass(frozen=True)
class Job:
    """What a recipe is given: settings, where the data are, where everything goes. ``out``: the run's folder."""

    config: Any
    profile: str
    data: str
    seed: int
    device: Any
    out: Path
    resume: bool

    @property
    def options(self) -> dict[str, Any]:
        """What every chapter's ``train`` takes."""
        return {"seed": self.seed, "device": self.device, "resume": self.resume}


@dataclass
class Trained:
    """One trained method and what it may be given to synthesise from.

    Attributes:
        name: for messages; also the stem of its images' names. steps: of the whole schedule.
        given: conditions (M, ...), used in turn; None: the method makes images from a number alone.
        patients: M source patients of the conditions. maps: M label maps that become the images' masks.
        group: the data set that its images belong to ("": the only one). label: their class.
    """

    name: str
    method: Any
    steps: int
    given: Any = None
    patients: list[str] | None = None
    maps: Any = None
    group: str = ""
    label: str = ""


@dataclass(frozen=True)
class Recipe:
    """What is trained of a chapter, by functions of ``covbook.chapters``, each as "module:function".

    Attributes:
        prepare: (config, data, seed) -> the patients in their roles.
        train: (config, roles, out, seed=, device=, resume=, ...) -> trained methods.
        listed: (job, roles, the chapter's ``train``, a method's name) -> [Trained].
        methods: what can be trained apart.
    """

    prepare: str
    train: str
    listed: Callable[[Job, Any, Callable, str], list[Trained]]
    methods: tuple[str, ...]


def _dcgan(job: Job, roles, train: Callable, name: str) -> list[Trained]:
    methods, results = train(job.config, roles, job.out, **job.options)
    return [Trained(label, method, results[label].steps, label=label) for label, method in methods.items()]


def _global_local(job: Job, roles, train: Callable, name: str) -> list[Trained]:
    methods, results = train(job.config, roles, job.out, names=[name], profile=job.profile, **job.options)
    test = roles.test
    return [Trained(name, methods[name], results[name].steps, test.maps, test.patients, test.maps, group=name)]


def _cosingan(job: Job, roles, train: Callable, name: str) -> list[Trained]:
    methods, results = train(job.config, roles, job.out, **job.options)
    return [Trained(f"modality_{m}", method, results[m].steps, roles.conditions, roles.train.patients,
                    roles.conditions[:, 0], group=f"modality_{m}") for m, method in methods.items() if m in (1, 2)]


def _cyclegan(job: Job, roles, train: Callable, name: str) -> list[Trained]:
    from covbook.chapters.cyclegan.experiment import by_class, known
    from covlib.papers.cyclegan.config import TARGET

    methods, results = train(job.config, roles, job.out, progress=True, **job.options)
    slices = known(*roles)
    images = by_class(slices, job.config)
    of = lambda source: [p for p, k in zip(slices.patients, slices.labels) if k == slices.classes.index(source)]
    return [Trained(f"from_{source}", method, results[source].steps, images[source], of(source), label=TARGET)
            for source, method in methods.items()]


def _cgan3d(job: Job, roles, train: Callable, name: str) -> list[Trained]:
    trained, _ = train(job.config, roles, job.out, data=job.data, **job.options)
    return [Trained(task, method, trained.results[task].steps, group="volume")
            for task, method in trained.everything.items()]


RECIPES = {
    "03_dcgan": Recipe("dcgan:prepare", "dcgan:train", _dcgan, ("dcgan",)),
    "04_global_local": Recipe("global_local.experiment:prepare", "global_local.experiment:train", _global_local,
                              METHODS),
    "05_cosingan": Recipe("cosingan.roles:prepare", "cosingan.training:train", _cosingan, ("cosingan",)),
    "06_cyclegan": Recipe("cyclegan.experiment:prepare", "cyclegan.experiment:train", _cyclegan, ("cyclegan",)),
    "07_cgan3d": Recipe("cgan3d.experiment:prepare", "cgan3d.training:train", _cgan3d, ("cgan3d",)),
}


# ---- the command -----------------------------------------------------------------------------------------------------


def find(chapter: str) -> tuple[chapters.Chapter, Recipe]:
    """A chapter and its recipe; ConfigError naming the chapters that have one."""
    found = chapters.find(chapter)
    if found.name not in RECIPES:
        raise ConfigError(f"train: nothing is trained for {chapter!r}; chapters with a recipe are {', '.join(RECIPES)}")
    return found, RECIPES[found.name]


def train(chapter: str, *, profile: str = "cpu", data: str = "phantom", seed: int = 0, out: str | Path | None = None,
          device: str = "auto", devices: int = 1, nodes: int = 1, methods: Iterable[str] | None = None,
          overrides: dict[str, Any] | None = None, resume: bool = True, save_minutes: float = 5.0, images: int = 0,
          say: Callable[[str], None] = print) -> list[Trained]:
    """Train a chapter's methods, and make ``images`` synthetic images with each.

    Args:
        chapter: name or number of a chapter in ``RECIPES``. methods: names of its methods; None: all.
        profile, data, seed, overrides, out, resume: as the chapter's own parameters.
        device, devices, nodes: as ``covlib.training.fit.fit``; under torchrun or srun their number counts.
        save_minutes: how often a training state is kept; at most that much is lost when a process dies.
        images: how many synthetic images each method makes, shared out among the processes, into
            ``out``/synthetic_<images>; 0: none.
        say: is told what goes on, on the first process alone.

    Raises:
        ConfigError, DataError: what was given does not fit; nothing is written then. TrainingError: divergence, or
            another process of the job has gone.
    """
    found, recipe = find(chapter)
    name, names = found.name, jobs.chosen("methods", methods, recipe.methods)
    if images < 0 or not save_minutes >= 0:
        raise ConfigError(f"synthesize {images}, save-minutes {save_minutes:g}: numbers of at least 0 are wanted")
    config = resolve_name(chapters.CONFIGS[name]).for_profile(profile, overrides)
    out = Path(f"runs/{name}" if out is None else out)
    chapters.check_settings(found, {"profile": profile, "data": data, "seed": seed, "device": device, "out": str(out),
                                     "checkpoint": None, "overrides": overrides or {}, "resume": resume})

    from covlib.seeding import seed_everything
    from covlib.training.devices import resolve_device, team

    with team(resolve_device(device), devices, nodes, 60 * save_minutes) as fabric:
        tell = say if fabric.global_rank == 0 else lambda text: None
        tell(f"{name}: profile={profile}, data={data}, seed={seed}; {fabric.world_size} process"
             f"{'es' if fabric.world_size > 1 else ''} on {fabric.device.type}; into {out}")
        if fabric.global_rank == 0:
            changed = {k: getattr(config, k) for k in overrides or {}}
            claims.claim(out, name, profile, places.name_data(data)[1], seed, changed)
        seed_everything(seed)
        job = Job(config, profile, data, seed, fabric.device, out, resume)
        roles, done = resolve_name(f"covbook.chapters.{recipe.prepare}")(config, data, seed), []
        train_chapter = resolve_name(f"covbook.chapters.{recipe.train}")
        for method in names:
            began = time.monotonic()
            trained = recipe.listed(job, roles, train_chapter, method)
            tell(f"{method}: " + ", ".join(f"{t.name} {t.steps} steps" for t in trained)
                 + f", {time.monotonic() - began:.1f} s")
            done += trained
        if images:
            synthesise(done, images, job, fabric, tell)
    return done


def synthesise(trained: list[Trained], n: int, job: Job, fabric, tell: Callable[[str], None]) -> None:
    """Make ``n`` images with each method, each process its share, and write the data sets on the first one.

    Raises:
        ConfigError: a method that makes volumes.
    """
    from covbook.runner import shards

    if any(t.group == "volume" for t in trained):
        raise ConfigError("synthesize: chapter 07 makes volumes; covlib volume writes one from its weights")
    out = job.out / f"synthetic_{n}"
    folders = {}
    for t in trained:
        t.method.networks = {k: net.to(fabric.device).eval() for k, net in t.method.networks.items()}
        folders[t.name] = shards.folder_for(job.out, t.method.networks, t.name, n, job.seed, BATCH)
        shards.make(lambda numbers, chance, t=t: _images(t, numbers, chance, fabric.device), n, folders[t.name],
                    seed=job.seed, key=t.name, batch=BATCH, rank=fabric.global_rank, world=fabric.world_size,
                    device=fabric.device)
    fabric.barrier()
    if fabric.global_rank == 0:
        for group in dict.fromkeys(t.group for t in trained):
            part = [t for t in trained if t.group == group]
            tell(f"synthetic images: {_export(part, n, job, folders, out / group)}")
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)
    fabric.barrier()


def _images(t: Trained, numbers: range, chance, device):
    import torch

    if t.given is None:
        return t.method.synthesize(len(numbers), chance).clamp(-1, 1)
    rows = torch.tensor([k % len(t.given) for k in numbers])
    return t.method.synthesize(t.given[rows].to(device), chance).clamp(-1, 1)


def _export(part: list[Trained], n: int, job: Job, folders: dict[str, Path], to: Path) -> Path:
    import numpy as np
    import torch

    from covbook.export import LIMITS, export_set
    from covbook.runner import shards

    images = torch.cat([shards.collect(folders[t.name], n) for t in part])
    rows = [k % len(t.patients) if t.patients else k for t in part for k in range(n)]
    owners = [t for t in part for _ in range(n)]
    patients = [t.patients[k] if t.patients else f"{t.name}_seed{job.seed}" for t, k in zip(owners, rows, strict=True)]
    files = sorted((job.out / "checkpoints").glob("*.safetensors"))
    sheet = {"method": f"{', '.join(t.name for t in part)}, profile {job.profile}, trained on {job.data}",
             "seed": job.seed, "limits": LIMITS, "checkpoint": provenance.sums(files) or "in the run's folder"}
    masks = {}
    if part[0].maps is not None:
        maps = np.stack([np.asarray(t.maps[k]) for t, k in zip(owners, rows, strict=True)])
        masks = {"lung": (maps > 0).astype(np.uint8), "infection": np.maximum(maps.astype(np.int16) - 1, 0)
                 .astype(np.uint8)}
    classes = list(dict.fromkeys(t.label for t in part))
    labels = None if not classes[0] else np.array([classes.index(t.label) for t in owners])
    return export_set(to, images.numpy(), labels=labels, classes=classes if classes[0] else (), datasheet=sheet,
                      names=[f"{t.name}_{k:06d}" for t in part for k in range(n)], patients=patients, **masks)
