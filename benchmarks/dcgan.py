"""``covlib bench dcgan``: a training step beside the plain one, at the sizes of the ``cpu`` profile and around them.

Both augment what they are shown, each in its own way. That they do the same mathematics is shown first, without
augmentation.
"""

from dataclasses import replace

import torch

from benchmarks.measure import pair
from benchmarks.plain import dcgan as plain
from benchmarks.steps import FitStep, Twins, equal, largest_gap
from covlib.papers.dcgan.method import DCGAN, Config
from covlib.seeding import torch_generator

SIZES, BATCHES = (28, 56, 112), (4, 8, 16, 32)
PAPERS = {"discriminator": "paper", "diff_augment": False, "ema": 0.0}  # what the plain step is of


def bench() -> list[dict]:
    """Steps at several image sizes and batches, with augmentation."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    base = Config.for_profile("cpu", PAPERS)
    grown = [("image size", replace(base, image_size=size), size) for size in SIZES]
    grown += [("batch", replace(base, batch_size=n), n) for n in BATCHES if n != base.batch_size]
    rows = []
    for axis, config, x in grown:
        rows += step_rows(config, device, grows={"of": "training step", "with": axis, "x": x})
    at = {"of": "training step", "with": "batch", "x": base.batch_size}
    middle = [row for row in rows if row["grows"]["with"] == "image size" and row["grows"]["x"] == base.image_size]
    return rows + [{**row, "grows": at} for row in middle]  # the same measurement is a point of both lines


def twins(config: Config, augment: bool = False) -> Twins:
    """Ours and the plain step on a batch of noise."""
    shape = (config.batch_size, 1, config.image_size, config.image_size)
    images = torch.rand(shape, generator=torch_generator(0, "bench")) * 2 - 1

    def step(own: FitStep, batch: dict, chance: torch.Generator) -> dict[str, float]:
        shown = batch["image"]
        if augment:
            shown = plain.augment(shown, config.crop_scale, config.crop_aspect, config.flip)
        z = torch.randn(config.batch_size, config.latent, generator=chance, device=chance.device)
        return plain.plain_step(own.method.networks, own.optimizers, shown.expand(-1, config.channels, -1, -1), z)

    return Twins(lambda: (DCGAN(config, config.batch_size), {"image": images}), step, augment=augment)


def step_rows(config: Config, device, repeats: int = 25, **more) -> list[dict]:
    """The plain step and ours, in turn.

    Raises:
        TrainingError: losses that are not equal.
    """
    apart = equal("dcgan", largest_gap(twins(config)))
    both = twins(config, augment=True)
    return pair(f"step with augmentation, {config.image_size}x{config.image_size}, width {config.width}, batch "
                f"{config.batch_size}", both.theirs(device), both.ours(device), repeats=repeats,
                note=f"losses equal to {apart:.0e}", **more)
