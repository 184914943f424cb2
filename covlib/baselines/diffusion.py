"""A conditional diffusion model: what a reader would take today for the task of the five papers.

Ho, Jain and Abbeel (2020, arXiv 2006.11239) train a network to undo noise: an image ``x0`` is mixed with Gaussian
noise, ``x_t = sqrt(a_t) x0 + sqrt(1 - a_t) noise``, and the network is told t and asked for what was mixed. To make an
image one starts from noise and undoes it. Song, Meng and Ermon (2021, arXiv 2010.02502, DDIM) do so in few steps, and
without further chance. Network and schedules are MONAI's (``DiffusionModelUNet``, ``DDPMScheduler``,
``DDIMScheduler``).

The condition is a label map (its one-hot channels beside the noisy image, as Palette, Saharia et al. 2022, lays an
image beside it), a class (an embedding added to that of t), or nothing. Choices, all ours among the usual ones: the
cosine schedule of Nichol and Dhariwal (2021), the velocity of Salimans and Ho (2022) as what is predicted, which
stays defined where almost all is noise, and a running average of the weights.

MONAI's DDIM scheduler lays n time steps out evenly from T - 1 to 0, (T - 1) / (n - 1) apart, while its ``step`` goes
back by T // n (so does that of diffusers: its issue 12633). The two differ, grossly for few steps (of 2, the second is
at t = 0 on an image that has the noise of t = 499). Here steps are T // n apart, and n must divide T, so that both
agree and the last one ends at the image.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from covlib.config import Config as BaseConfig
from covlib.data import label_maps
from covlib.data.augment import horizontal_flip
from covlib.errors import ConfigError, DataError
from covlib.nets import batched
from covlib.training.method import Method, OptimizerSpec, Stage, Step, seeded


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings. Defaults are those of a model for 256x256 on one GPU; nothing is copied from a paper of this book."""

    image_size: int = 256
    condition: Literal["map", "class", "none"] = "map"
    labels: int = label_maps.LABELS  # of a map
    classes: int = 2  # where the condition is a class
    patch: int = 1  # squares of so many pixels a side are folded into channels: 2 quarters the work (Hoogeboom 2023)
    channels: tuple[int, ...] = (64, 128, 256, 256)  # of the U-Net, from full resolution (or that of the folds) down
    blocks: int = 2  # residual blocks at each resolution
    attention: tuple[bool, ...] = (False, False, False, True)  # at which resolutions, besides the innermost
    groups: int = 32  # of group normalisation; divides all channels
    head_channels: int = 64
    timesteps: int = 1000  # T
    noise_schedule: Literal["cosine", "linear_beta", "scaled_linear_beta"] = "cosine"
    predict: Literal["v_prediction", "epsilon"] = "v_prediction"
    sampling_steps: int = 50  # of DDIM; divides T
    eta: float = 0.0  # 0: DDIM, all chance is in the first noise; 1: as much new noise in every step as DDPM has
    batch_size: int = 16
    epochs: int = 200
    learning_rate: float = 1e-4
    ema: float = 0.999
    augment: bool = True

    def __post_init__(self):
        down = self.patch * 2 ** (len(self.channels) - 1)
        if self.patch < 1 or self.image_size < 2 * down or self.image_size % down:
            raise ConfigError(f"image_size: {self.image_size} does not fit folds of {self.patch} pixels and "
                              f"{len(self.channels) - 1} halvings; a multiple of {max(down, 1)} of at least "
                              f"{2 * max(down, 1)} is wanted")
        if len(self.attention) != len(self.channels):
            raise ConfigError(f"attention: {len(self.attention)} values for {len(self.channels)} resolutions; one each "
                              "is wanted")
        if wrong := [c for c in self.channels if c % self.groups]:
            raise ConfigError(f"channels: {wrong[0]} is not a multiple of groups, {self.groups}")
        if wrong := [c for c, a in zip(self.channels, (*self.attention[:-1], True)) if a and c % self.head_channels]:
            raise ConfigError(f"channels: {wrong[0]} is not a multiple of head_channels, {self.head_channels}")
        for name in ("blocks", "timesteps", "batch_size", "epochs", "classes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, not {getattr(self, name)}")
        check_sampling(self.sampling_steps, self.timesteps, self.eta)

    @classmethod
    def profiles(cls) -> dict[str, dict]:
        """What each profile changes from the defaults."""
        cpu = {"image_size": 64, "patch": 2, "channels": (32, 64, 64), "blocks": 1, "groups": 8, "head_channels": 32,
               "attention": (False, False, False), "sampling_steps": 20, "batch_size": 8, "epochs": 20,
               "learning_rate": 1e-3, "ema": 0.99}
        return {
            "smoke": {"image_size": 32, "channels": (8, 16), "blocks": 1, "attention": (False, False), "groups": 4,
                      "head_channels": 8, "timesteps": 20, "sampling_steps": 2, "batch_size": 4, "epochs": 1,
                      "learning_rate": 1e-3, "ema": 0.5},
            "cpu": cpu,
            "long": cpu | {"epochs": 80},
            "gpu": {"epochs": 60},
            "paper": {},
        }


def check_sampling(steps: int, timesteps: int, eta: float = 0.0) -> None:
    """ConfigError unless ``steps`` is a divisor of ``timesteps`` and ``eta`` lies in [0, 1]."""
    if steps < 1 or timesteps % steps:
        near = [n for n in range(1, timesteps + 1) if timesteps % n == 0]
        close = sorted(sorted(near, key=lambda n: abs(math.log(n / max(steps, 1))))[:4])
        raise ConfigError(f"sampling_steps: {steps} does not divide timesteps, {timesteps}; "
                          f"{', '.join(map(str, close))} would")
    if not 0 <= eta <= 1:
        raise ConfigError(f"eta: {eta} does not lie between 0 and 1")


class Diffusion(Method):
    """Masks, classes or nothing to images.

    Trains on {"image": float32 (N, 1, S, S) in [-1, 1]} with "map": uint8 (N, S, S) or "label": int64 (N,) as the
    config's ``condition`` says. One network, "U", one optimiser of that name, one loss.

    Args:
        n_images: training images, from which the number of steps follows.
    """

    name = "diffusion"
    generators = ("U",)
    repeating = True

    def __init__(self, config: Config, n_images: int, seed: int = 0):
        from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet
        from monai.networks.schedulers import DDIMScheduler, DDPMScheduler

        if n_images < 1:
            raise ConfigError(f"n_images: {n_images} leaves nothing to train on; at least 1 is wanted")
        c = self.config = config
        extra = c.labels if c.condition == "map" else 0
        with seeded(seed, self.name, "init"):
            self.networks = {"U": DiffusionModelUNet(
                spatial_dims=2, in_channels=(1 + extra) * c.patch**2, out_channels=c.patch**2, num_res_blocks=c.blocks,
                channels=c.channels, attention_levels=c.attention, norm_num_groups=c.groups,
                num_head_channels=c.head_channels, num_class_embeds=c.classes if c.condition == "class" else None)}
        schedule = {"num_train_timesteps": c.timesteps, "schedule": c.noise_schedule, "prediction_type": c.predict}
        self.forward_process, self.reverse = DDPMScheduler(**schedule), DDIMScheduler(**schedule)
        steps = max(1, math.ceil(c.epochs * n_images / c.batch_size))
        self.stages = [Stage("denoise", steps, c.batch_size, ("U",), "linear", constant_steps=steps // 2)]

    def optimizers(self, stage: Stage) -> dict[str, OptimizerSpec]:
        return {"U": OptimizerSpec(("U",), lr=self.config.learning_rate, betas=(0.9, 0.999))}

    def augment(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """With maps, as all methods that paint from maps do (``label_maps.augment_pair``); else a random flip."""
        if not self.config.augment:
            return batch
        if self.config.condition == "map":
            return label_maps.augment_pair(batch, generator)
        return {**batch, "image": horizontal_flip(batch["image"], generator)}

    # ---- training ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """One step down the mean squared error of what is predicted, each image at a time t of its own."""
        image = batch["image"]
        noise = step.randn(*image.shape)
        t = (step.rand(len(image)) * self.config.timesteps).long().clamp_max(self.config.timesteps - 1)
        noisy = self.forward_process.add_noise(image, noise, t)
        made = self.predict(noisy, t, self.encode(batch, image.device))
        loss = F.mse_loss(made.float(), self.target(image, noise, t))
        step.minimise("U", loss)
        return {"loss": loss}

    def target(self, image: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network is to say: the noise, or the velocity ``sqrt(a_t) noise - sqrt(1 - a_t) x0``."""
        return noise if self.config.predict == "epsilon" else self.forward_process.get_velocity(image, noise, t)

    def predict(self, noisy: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        """The network's answer (N, 1, S, S) for noisy images, times t (N,) and what ``encode`` gave."""
        U, kind = self.networks["U"], self.config.condition
        x = torch.cat([noisy, condition.to(noisy.dtype)], 1) if condition is not None and kind == "map" else noisy
        said = U(F.pixel_unshuffle(x, self.config.patch), t, class_labels=condition if kind == "class" else None)
        return F.pixel_shuffle(said, self.config.patch)

    def encode(self, batch: dict[str, Tensor], device) -> Tensor | None:
        """A batch's condition as ``predict`` takes it: one-hot maps (N, labels, S, S), classes (N,), or None."""
        kind = self.config.condition
        if kind == "map":
            return label_maps.one_hot(batch["map"].to(device))
        return batch["label"].to(device) if kind == "class" else None

    # ---- synthesis --------------------------------------------------------------------------------------------------

    def synthesize(self, condition, generator: torch.Generator, batch: int = 32, steps: int | None = None) -> Tensor:
        """One image for each condition, by DDIM.

        Args:
            condition: maps (N, S, S), classes (N,), or a number of images, as the config says.
            generator: draws the first noise of all images at once, so that an image does not depend on the batch it is
                made in (with eta 0).
            batch: images in one pass. steps: of DDIM; the configuration's by default.

        Returns:
            float32 (N, 1, S, S) in [-1, 1] on the network's device.

        Raises:
            DataError: conditions of another kind or shape. ConfigError: steps that do not divide T.
        """
        given, n = self.check_condition(condition)
        device = next(self.networks["U"].parameters()).device
        first = torch.randn(n, 1, self.config.image_size, self.config.image_size, generator=generator,
                            device=generator.device)
        later = torch.Generator(device).manual_seed(int(torch.randint(2**62, (1,), generator=generator,
                                                                      device=generator.device)))

        def paint(noise: Tensor, *parts: Tensor) -> Tensor:
            *_, (_, image, _) = self.denoise(noise, self.encode(dict(zip(given, parts)), device), later, steps)
            return image

        return torch.cat(batched(paint, self.networks, batch, first, *given.values())).float().clamp(-1, 1)

    @torch.no_grad()
    def denoise(self, image: Tensor, condition: Tensor | None, generator: torch.Generator, steps: int | None = None):
        """The way from noise (N, 1, S, S) to an image: yields (t, x after this step, the x0 expected at t).

        The networks are taken in the mode they are in; ``synthesize`` switches them to eval mode.
        """
        c = self.config
        steps = c.sampling_steps if steps is None else steps
        check_sampling(steps, c.timesteps)
        self.reverse.num_inference_steps = steps  # what its step goes back by is timesteps // steps
        for t in range(c.timesteps - 1, -1, -(c.timesteps // steps)):
            times = torch.full((len(image),), t, device=image.device)
            said = self.predict(image, times, condition).float()
            image, expected = self.reverse.step(said, t, image, eta=c.eta, generator=generator)
            yield t, image, expected

    def check_condition(self, condition) -> tuple[dict[str, Tensor], int]:
        """The condition as a batch without images, and how many images it asks for."""
        c = self.config
        if c.condition == "none":
            if isinstance(condition, bool) or not isinstance(condition, int) or condition < 1:
                raise DataError(f"condition: {condition!r}; a number of images, at least 1, is wanted")
            return {}, condition
        values = torch.as_tensor(condition)
        if c.condition == "map":
            return {"map": label_maps.check_maps(values, c.image_size)}, len(values)
        if values.ndim != 1 or not len(values) or values.is_floating_point():
            raise DataError(f"classes: shape {tuple(values.shape)}, {values.dtype}; (N,) whole numbers are wanted")
        if int(values.min()) < 0 or int(values.max()) >= c.classes:
            raise DataError(f"classes: from {int(values.min())} to {int(values.max())}; 0 to {c.classes - 1} are known")
        return {"label": values.long()}, len(values)
