"""``covlib bench dcgan``: a training step beside the plain one, at the sizes of the ``cpu`` profile and around them.

Both start from the same weights; their losses are shown equal first. On a GPU also at the paper's size, and with bf16,
channels_last and compiled networks.
"""

from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.measure import pair, timed
from benchmarks.plain import dcgan as plain
from covlib.errors import TrainingError
from covlib.papers.dcgan.method import DCGAN, Config
from covlib.seeding import torch_generator
from covlib.training.method import Step

EQUAL = 1e-5  # relative; ours and the plain step, float32 on a CPU
SIZES, BATCHES = (28, 56, 112), (4, 8, 16, 32)


def bench() -> list[dict]:
    """Steps at several image sizes and batches, with augmentation; on a GPU at 224x224 and width 192 too."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    base = Config.for_profile("cpu")
    grown = [("image size", replace(base, image_size=size), size) for size in SIZES]
    grown += [("batch", replace(base, batch_size=n), n) for n in BATCHES if n != base.batch_size]
    rows = []
    for axis, config, x in grown:
        rows += step_rows(config, device, grows={"of": "training step", "with": axis, "x": x})
    at = {"of": "training step", "with": "batch", "x": base.batch_size}
    middle = [row for row in rows if row["grows"]["with"] == "image size" and row["grows"]["x"] == base.image_size]
    rows += [{**row, "grows": at} for row in middle]  # the same measurement is a point of both lines
    if device.type == "cuda":
        rows += step_rows(Config(), device)
    return rows


class Both:
    """Ours and the plain step from the same weights, on a device."""

    def __init__(self, config: Config, device, *, fast: bool = False, compiled: bool = False):
        self.config, self.device, self.fast = config, torch.device(device), fast
        self.method = DCGAN(config, config.batch_size)
        self.module = plain
        self.twin = {name: deepcopy(net).to(device) for name, net in self.method.networks.items()}
        self.optimizers = {}
        for net in self.method.networks.values():
            net.to(device, memory_format=torch.channels_last if fast else torch.preserve_format)
            if compiled:
                net.compile()
        for name, spec in self.method.optimizers(self.method.stages[0]).items():
            weights = [p for net in spec.nets for p in self.method.networks[net].parameters()]
            self.optimizers[name] = weights, spec.build(weights)
        self.plain_optimizers = self.module.make_optimizers(self.twin, config.learning_rate,
                                                            (config.beta1, config.beta2))
        chance = torch_generator(0, "bench")
        shape = (config.batch_size, 1, config.image_size, config.image_size)
        self.images = (torch.rand(shape, generator=chance) * 2 - 1).to(device)
        chance = torch.Generator(self.device)
        self.step = Step(self.method.stages[0], self.method.networks, self._minimise, chance, 0, 1)

    def _minimise(self, name, loss, retain_graph):
        weights, optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, enabled=False):
            loss.backward(inputs=weights)
            optimizer.step()

    def noise(self) -> Tensor:
        """What ``step.randn`` draws after ``manual_seed(0)``."""
        generator = torch.Generator(self.device).manual_seed(0)
        return torch.randn(self.config.batch_size, self.config.latent, generator=generator, device=self.device)

    def ours(self, augmented: bool = True) -> dict[str, Tensor]:
        """One step as ``fit`` does it."""
        self.step.generator.manual_seed(0)
        batch = {"image": self.images}
        if augmented:
            batch = self.method.augment(batch, self.step.generator)
            self.step.generator.manual_seed(0)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.fast, cache_enabled=False):
            losses = self.method.training_step(batch, self.step)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return losses

    def plain(self, augmented: bool = True) -> dict[str, float]:
        """One plain step."""
        c, images = self.config, self.images
        if augmented:
            images = self.module.augment(images, c.crop_scale, c.crop_aspect, c.flip)
        return self.module.plain_step(self.twin, self.plain_optimizers, images.expand(-1, c.channels, -1, -1),
                                      self.noise())


def largest_gap(config: Config, steps: int = 1) -> float:
    """Largest relative difference of a loss between our steps and the plain ones: same weights, images and noise, no
    augmentation, float32 on the CPU. From the second step on Adam blows rounding up."""
    both, gaps = Both(config, "cpu"), []
    for _ in range(steps):
        ours, plain = both.ours(augmented=False), both.plain(augmented=False)
        gaps += [abs(ours[name].item() - value) / max(abs(value), 1e-12) for name, value in plain.items()]
    return max(gaps)


def step_rows(config: Config, device, repeats: int = 25, grows: dict | None = None) -> list[dict]:
    """The plain step and ours, in turn; on a GPU ours with what makes it faster.

    Raises:
        TrainingError: losses that are not equal to ``EQUAL``.
    """
    small = config if torch.device(device).type == "cpu" else Config.for_profile("cpu")
    gap = largest_gap(small)
    if gap > EQUAL:
        raise TrainingError(f"bench dcgan: ours and the plain step differ by {gap:.2g}, {EQUAL} is allowed")
    where = f"{config.image_size}x{config.image_size}, width {config.width}, batch {config.batch_size}"
    both, extra = Both(config, device), {"grows": grows} if grows else {}
    rows = pair(f"step with augmentation, {where}", both.plain, both.ours, repeats=repeats,
                note=f"losses equal to {gap:.0e}", **extra)
    if torch.device(device).type == "cuda":
        for words, options in (("bf16, channels_last", {"fast": True}),
                               ("bf16, channels_last, compiled", {"fast": True, "compiled": True})):
            fast = Both(config, device, **options)
            rows.append(timed(f"our step, {words}, {where}", fast.ours, repeats=repeats, warm_up=3))
    return rows
