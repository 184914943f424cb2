"""What a step of an arm's training costs here: seconds, memory, parameters; ``covlib sweep side_by_side-cost``.

Time does not depend on what the images show, so random images and masks of the right size do, and no patient is
needed. Training runs through the method's whole schedule, shortened, three times: to warm up, with n and with 2n
steps. The difference over n is the cost of a step, without what every training pays once. Memory is the process's
largest resident set less what it had before the method was built (on a GPU, the largest allocation), so each arm has a
process of its own.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from covbook.chapters.side_by_side.arms import Trained, ema_of, layout, parts, synthesize
from covbook.chapters.side_by_side.budget import PER_STEP, recorded_costs, with_steps
from covbook.chapters.side_by_side.settings import ENTRIES, TARGET, Config
from covbook.chapters.side_by_side.tasks import Part, Task
from covbook.provenance import peak_memory
from covlib.atomic import write_atomically
from covlib.data.case import Case, SliceSet
from covlib.data.splits import Split
from covlib.errors import TrainingError
from covlib.seeding import rng, torch_generator
from covlib.training.fit import fit, resolve_device

IMAGES = 16
STEPS = 24  # n; the study repeats the whole with several seeds


def costs_for(arms, config: Config, profile: str, out, device="auto") -> tuple[dict[str, dict[str, float]], list[str]]:
    """Recorded costs of the arms that are trained; those that were never recorded are measured now, once for ``out``.

    Returns:
        arm -> costs, and a note where something was measured.
    """
    known, notes = recorded_costs(profile), []
    kept = Path(out) / "costs.json"
    here = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    trained = [arm for arm in arms if ENTRIES[arm].module]
    missing = [arm for arm in trained if arm not in known]
    for arm in [] if config.steps else missing:
        if arm not in here:
            here[arm] = measure(arm, profile, device)
            write_atomically(kept, json.dumps(here, indent=2))
        notes.append(f"{arm}: no recorded cost at profile {profile}; measured here, so another machine takes another "
                     "number of steps")
    return {arm: {**here, **known}[arm] for arm in trained if arm in known or arm in here}, notes


def measure(arm: str, profile: str, device) -> dict[str, float]:
    """{"seconds_per_step", "seconds_per_image", "peak_mb", "parameters"} of an arm, in a process of its own."""
    return in_new_process(__name__, "measure_here", arm, profile, str(device))


def measure_here(arm: str, profile: str, device, steps: int = STEPS) -> dict[str, float]:
    """As ``measure``, in this process; the memory is only right where nothing was trained before."""
    config, device = Config.for_profile(profile), resolve_device(device)
    task = random_task(ENTRIES[arm].task, config)
    parts(arm, task, profile, 0, device)  # its imports are not its training's memory
    before = peak_memory(device)
    _timed(arm, task, profile, device, steps)
    short, first = _timed(arm, task, profile, device, steps)
    long, trained = _timed(arm, task, profile, device, 2 * steps)
    seconds = (long - short) / (trained.steps - first.steps)
    synthesize(trained, task.conditions)
    began = time.perf_counter()
    made = synthesize(trained, task.conditions)
    each = (time.perf_counter() - began) / len(made)
    if seconds <= 0:
        raise TrainingError(f"cost of {arm}: {2 * steps} steps took no longer than {steps}; measure on an idle machine")
    peak = (peak_memory(device) - before) / 1e6
    return {PER_STEP: seconds, "seconds_per_image": each, "peak_mb": peak,
            "parameters": float(trained.parameters)}


def random_task(kind: str, config: Config) -> Task:
    """A task of random images, masks of four labels and two classes."""
    size = {"mask": config.mask_size, "noise": config.noise_size, "translate": config.xray_size}[kind]
    draws = torch_generator(0, "cost")
    images = torch.rand(IMAGES, 1, size, size, generator=draws) * 2 - 1
    maps = torch.zeros(IMAGES, size, size, dtype=torch.uint8)
    maps[:, size // 8 : -size // 8, size // 8 : -size // 8] = 1
    maps[:, size // 4 : size // 2, size // 4 : size // 2] = 2
    maps[:, size // 4 : size // 3, size // 4 : size // 3] = 3
    names = [f"p{k}" for k in range(IMAGES)]
    labels = torch.arange(IMAGES) % 2
    part = Part(images, names, names, maps if kind == "mask" else None, None if kind == "mask" else labels)
    slices = SliceSet(images.numpy(), names, names)
    split = Split(*(np.arange(IMAGES) for _ in range(3)))
    task = Task(kind, part, part, part, slices, split, () if kind == "mask" else ("normal", TARGET), (-600.0, 1500.0))
    task.scans = RandomScans(task.classes, config.slices_per_patient)
    return task


@dataclass(frozen=True)
class RandomScans:
    """Stands for ``covbook.chapters.side_by_side.volumes.Scans``: volumes of random HU, two classes in turn."""

    classes: tuple[str, ...]
    per_patient: int
    frame: str = "lungs"

    def cases(self, patients: list[str], shape):
        for k, name in enumerate(patients):
            hu = rng(0, "cost", name).integers(-1000, 400, tuple(shape)).astype(np.int16)
            yield Case(name, hu, (4.0, 3.0, 3.0), label=self.classes[k % 2])

    def heights(self, case: Case) -> tuple[float, ...]:
        return tuple((k + 0.5) / self.per_patient for k in range(self.per_patient))


def _timed(arm: str, task: Task, profile: str, device, steps: int) -> tuple[float, Trained]:
    built, trained = parts(arm, task, profile, 0, device), Trained(arm, task)
    seconds = 0.0
    for key, (method, data) in built.items():
        method.stages = with_steps(method.stages, max(1, steps // len(built)))
        with tempfile.TemporaryDirectory(prefix="covlib-cost-") as folder:
            result = fit(method, data, Path(folder), device=device, progress=False, log_every=10**6,
                         ema=ema_of(method), channels_last=layout(method, device))
        seconds, trained.steps = seconds + result.seconds, trained.steps + result.steps
        trained.methods[key] = method
    return seconds, trained


def in_new_process(module: str, function: str, *given) -> dict:
    """What a function gives, ready for JSON, in a process of its own: a process never gives back the memory it once
    had. Raises TrainingError where the process fails."""
    code = f"import json; from {module} import {function}; print(json.dumps({function}(*{given!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["killed, perhaps for want of memory"])[-1]
        raise TrainingError(f"{module}: the measuring process failed: {why}")
    return json.loads(done.stdout.strip().splitlines()[-1])
