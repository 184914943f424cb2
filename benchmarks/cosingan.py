"""``covlib bench cosingan``: steps per second at every scale, and what each thing that makes a step cheap did to it.

Starts from the plain step (``benchmarks/plain/cosingan.py``), takes its habits away one after the other, and ends with
the step as ``fit`` runs it, all in float32; losses are shown equal first. On a CPU with the networks of the ``cpu``
profile, on a GPU with the paper's.
"""

from copy import deepcopy
from dataclasses import replace
from functools import partial

import torch

from benchmarks.measure import flops, in_turn
from benchmarks.plain import cosingan as plain
from benchmarks.steps import FitStep, Twins, equal, largest_gap
from covlib.papers.cosingan.augment import draw_grid, strength
from covlib.papers.cosingan.method import Config, CoSinGAN, OneSlice
from covlib.seeding import derive, torch_generator

GROUP = 16  # steps of ours whose lower scales go through the generators at once; all are timed in such groups
HABITS = {"read_back": "nothing read back", "graph_below": "no graph below", "one_by_one": "augmentation batched",
          "three_passes": "one pass through D"}


def bench() -> list[dict]:
    """The first stage of every scale; the second differs by one more frozen network."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = replace(Config() if device.type == "cuda" else Config.for_profile("cpu"), unet_steps=0)
    rows = []
    for size in config.scales:
        rows += scale(config, size, device)
    return rows


def phantom_like(size: int) -> OneSlice:
    """Noise in the shape of a slice, with a lung and an infection."""
    image = torch.rand((1, 1, size, size), generator=torch_generator(0, "bench", "slice")) * 2 - 1
    condition = torch.zeros((1, 1, size, size), dtype=torch.uint8)
    condition[..., size // 4 : -size // 4, size // 8 : -size // 8] = 1
    condition[..., size // 3 : size // 2, size // 4 : size // 2] = 2
    return OneSlice(image, condition, "bench", "bench")


def twins(config: Config, stage: str, *, ahead: int = 1, dropped: tuple[str, ...] = (),
          grown: CoSinGAN | None = None) -> Twins:
    """Ours and the plain step in a stage.

    Args:
        ahead: steps of ours that are prepared in one go; with 1 both draw the same augmentations.
        dropped: habits that the plain step is without. grown: a method that has begun the stage already.
    """
    one, config = phantom_like(config.size), replace(config, ahead=ahead)

    def make():
        return deepcopy(grown) if grown else CoSinGAN(config, one), one.training_data()

    begun = [s.name for s in grown.stages].index(stage) + 1 if grown else 0
    return Twins(make, partial(_plain, dropped), stage, begun)


def _plain(dropped: tuple[str, ...], own: FitStep, batch: dict, chance: torch.Generator) -> dict:
    """A plain step, minus some habits."""
    method, stage, nets = own.method, own.stage, own.method.networks
    size, part = int(stage.name.split()[0]), stage.name.split()[1]
    places = torch.Generator(own.device).manual_seed(derive(method.seed, "augment", stage.name, own.step.index, 0))
    grids = draw_grid(stage.batch_size, size, strength(method.config, part), places)
    return plain.plain_step(nets, own.optimizers, *method.scaled(size, own.device), grids,
                            sizes=[s for s in method.config.scales if s <= size], part=part, rec=method.rec,
                            second=bool(method.config.epochs_second), **{name: False for name in dropped})


def scale(config: Config, size: int, device, repeats: int = 5) -> list[dict]:
    """Rows of one scale: the plain step, minus one habit after the other, ours.

    Raises:
        TrainingError: losses of ours and of the plain step that are not equal.
    """
    stage, tested = f"{size} first", config if device.type == "cpu" else Config.for_profile("cpu")
    apart = equal("cosingan", largest_gap(twins(tested, stage if size in tested.scales else f"{tested.size} first"),
                                          steps=2))
    where, dropped, works = f"{size}x{size}, batch {config.batch(size)}, {device.type}", (), {}
    for name, words in ((None, "plain step"), *HABITS.items()):
        dropped += (name,) if name else ()
        works[f"{words}, {where}"] = partial(twins(config, stage, dropped=dropped).theirs(device), GROUP)
    works[f"lower scales of {GROUP} steps in one batch: our step, {where}"] = partial(
        twins(config, stage, ahead=GROUP).ours(device), GROUP)
    rows = [{**row, "flops": flops(works[row["name"]]) // GROUP} for row in in_turn(works, repeats, steps=GROUP)]
    plain_s = rows[0]["median_s"]
    return [{**row, "note": f"{1 / row['median_s']:.1f} steps/s, {plain_s / row['median_s']:.2f} times the plain step"
             + (f"; losses equal to {apart:.0e} (float32, CPU)" if k == 0 else "")} for k, row in enumerate(rows)]
