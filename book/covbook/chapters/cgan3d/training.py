"""Chapter 07's trainings: one network a task, a twin of the one that depixelates, and the coarse GAN, side by side."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from covbook.chapters import apart, game, leave
from covbook.chapters.cgan3d.scans import Scans
from covlib import phantom
from covlib.data.case import Case
from covlib.data.splits import Split
from covlib.errors import ConfigError
from covlib.papers.cgan3d import method, noise
from covlib.papers.cgan3d.method import CGAN3D, TASKS, Config
from covlib.parallel import spread
from covlib.seeding import derive
from covlib.training.fit import FitResult
from covlib.training.method import Method
from covlib.training.trained import filled

COARSE_FIRST = 10_000  # number of the first virtual patient of the coarse GAN: nobody of the scans
TWIN, TWIN_TASK = "twin", "depixelate"  # with the paper's discriminator; the task whose answer has most to invent
TRAINED = ("autoencode", "denoise", "depixelate", TWIN, "coarse")  # the longest first: two cores are kept busy then
WORTH_A_PROCESS = 50  # steps; a process takes seconds to start
SMALL = 64  # channels; wider networks keep several threads busy themselves
ARCHITECTURE = ("widths", "norm", "residual", "means", "classical", "folded", "noise", "block", "coarse",
                "coarse_latent", "coarse_width")


@dataclass
class Trained:
    """The networks of the chapter: ``methods`` by task, ``noise`` for volumes from noise; ``results``: of ``fit``, by
    task, "coarse", and "twin", where there is one (``game.twin``): ``twin``."""

    methods: dict[str, CGAN3D]
    noise: noise.NoiseModel
    results: dict[str, FitResult] = field(default_factory=dict)
    twin: CGAN3D | None = None

    @property
    def everything(self) -> dict[str, Method]:
        """The methods by task, and "coarse", the coarse GAN."""
        return {**self.methods, "coarse": self.noise.coarse}


def coarse_cases(config: Config, train_cases: list[Case], data="phantom", seed: int = 0):
    """Scans for the coarse GAN: ``coarse_patients`` further virtual patients, or the training scans of real data."""
    if str(data) != "phantom":
        return train_cases
    labels = ("normal", "covid")
    return (phantom.generate(COARSE_FIRST + k, seed=seed, label=labels[k % 2], shape=config.coarse)
            for k in range(config.coarse_patients))


def train(config: Config, roles: tuple[Scans, Split], out, *, data="phantom", seed: int = 0, device="auto",
          resume: bool = True, checkpoint=None) -> tuple[Trained, noise.CoarseSet]:
    """The three tasks and the coarse GAN, in folders of ``out``; or all of them from a checkpoint of an earlier run.

    Args:
        roles: what ``prepare`` gave of ``data``; its training scans are learnt from.

    Returns:
        The trained networks, and the coarse volumes that the coarse GAN learns from (made anew with a checkpoint too).

    Raises:
        ConfigError: a checkpoint of another chapter, or whose networks differ from the configuration's.
    """
    scans, split = roles
    cases = scans.at(split.train)
    volumes = noise.coarse_set(coarse_cases(config, cases, data, seed), config.coarse)
    if checkpoint is not None:
        return _from_checkpoint(config, checkpoint, device), volumes
    out, given = Path(out), {"device": device, "resume": resume}
    parts = [part for part in TRAINED if part != TWIN or game.twin(config)]
    jobs = [(part, config, volumes if part == "coarse" else cases, out / "training" / part,
             derive(seed, TWIN_TASK if part == TWIN else part), given) for part in parts]  # twins start alike
    if worth(config, device):
        spread(leave, [(_train, *job) for job in jobs])
        given["resume"] = True  # what they left in their folders is taken up, at once
    made = {job[0]: _train(*job) for job in jobs}
    coarse, equaliser, coarse_result = made.pop("coarse")
    twin, twin_result = made.pop(TWIN, (None, None))
    methods, results = ({task: made[task][k] for task in TASKS} for k in (0, 1))
    results |= {TWIN: twin_result} if twin else {}
    model = noise.NoiseModel(coarse, methods["depixelate"], equaliser, volumes.extent_mm)
    noise.save_bundle(out / "checkpoints" / noise.BUNDLE, config, methods, model, seed)
    return Trained(methods, model, {**results, "coarse": coarse_result}, twin), volumes


def _train(part: str, config: Config, data, out: Path, seed: int, options: dict) -> tuple:
    if part == "coarse":
        return noise.train_coarse(config, data, out, seed=seed, **options)
    if part == TWIN:
        return method.train(replace(game.twin(config), task=TWIN_TASK), data, out, seed=seed, **options)
    return method.train(replace(config, task=part), data, out, seed=seed, **options)


def worth(config: Config, device) -> bool:
    """Whether trainings are worth processes of their own: small networks on a CPU (``apart``)."""
    steps = config.steps_of(config.augmentations * config.train_patients * config.blocks_per_scan)
    return steps >= WORTH_A_PROCESS and max(config.widths) <= SMALL and apart(device)


def each(function, jobs: list[tuple], config: Config, device) -> list:
    """``function(*job)`` of each job, on a core of its own where that is ``worth`` it, else one by one."""
    return spread(function, jobs) if worth(config, device) else [function(*job) for job in jobs]


def _from_checkpoint(config: Config, checkpoint, device) -> Trained:
    tensors, header, stored = noise.read_bundle(checkpoint)
    for name in ARCHITECTURE:
        if getattr(stored, name) != getattr(config, name):
            raise ConfigError(f"checkpoint {checkpoint}: its {name} is {getattr(stored, name)!r}, this run's is "
                              f"{getattr(config, name)!r}; take the profile and overrides it was trained with")
    methods = {task: filled(CGAN3D(replace(config, task=task), 1), tensors, task, f"checkpoint {checkpoint}", device)
               for task in TASKS}
    model = noise.NoiseModel.load(checkpoint, device)
    return Trained(methods, replace(model, depixelate=methods["depixelate"]))
