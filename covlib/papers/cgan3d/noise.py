"""Whole CT volumes from noise: what Mangalagiri et al. leave as future work (Section VI), built.

"We propose an iterative upsampling approach of first generating a low resolution (pixelated) image with GAN and
iterative depixelating the image with cGAN until we arrive at a full resolution 3D scan volume." So: a small 3-D GAN
turns noise into a coarse volume over the whole chest, and the network of the task "depixelate" doubles it again and
again, block by block with overlap. Each size lies in a memory map, so memory does not grow with the volume::

    model = NoiseModel.load("runs/07_cgan3d")
    hu = model.grow(model.coarse_volumes(1, seed=3)[0], np.empty((80, 512, 512), np.int16), seed=3)

Everything here is ours; the coarse GAN follows Radford et al. (2016), one axis added.
"""

import json
import math
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from covlib.data.case import Case
from covlib.data.equalise import Equaliser, fit_equaliser
from covlib.errors import ConfigError, DataError
from covlib.losses import hinge_discriminator, hinge_generator
from covlib.nets import batched, init_normal
from covlib.papers.cgan3d.losses import discriminator_loss, generator_loss
from covlib.papers.cgan3d.method import CGAN3D, TASKS, Config, restore_volume
from covlib.papers.cgan3d.nets import fold
from covlib.seeding import derive, torch_generator
from covlib.training.checkpoints import read_weights, save_weights
from covlib.training.fit import FRAMES, FitResult, fit
from covlib.training.method import Method, OptimizerSpec, Stage, Step, seeded
from covlib.training.trained import filled

BUNDLE = "cgan3d.safetensors"
HALVINGS = 3  # between a coarse volume and the root of its generator
LEARNING_RATE = 4e-4
EMA = 0.98
OVERLAP = 8
LIMITS = (3000, -1024)  # HU a coarse volume may hold: metal and padding would spoil the scale


class CoarseGenerator(nn.Module):
    """Noise (N, latent) to volumes ``(N, 1, *coarse)`` in [-1, 1]: a dense layer to the root, an eighth of each side,
    then three transposed 4x4x4 convolutions of stride 2, BatchNorm and ReLU before each, tanh at the end."""

    def __init__(self, coarse=(32, 32, 32), latent: int = 128, width: int = 64):
        super().__init__()
        self.latent, root = latent, _root(coarse)
        widths = [width * 2**k for k in range(HALVINGS - 1, -1, -1)]
        first = (widths[0], *root)
        self.project = nn.Sequential(nn.Linear(latent, math.prod(first)), nn.Unflatten(1, first))
        layers = []
        for a, b in zip(widths, [*widths[1:], 1]):
            layers += [nn.BatchNorm3d(a), nn.ReLU(True), nn.ConvTranspose3d(a, b, 4, 2, 1)]
        self.up = nn.Sequential(*layers, nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return self.up(self.project(z))


class CoarseDiscriminator(nn.Module):
    """Volumes ``(N, 1, *coarse)`` to logits (N,): 2x2x2 voxels folded into channels, two 4x4x4 convolutions of stride 2
    with LeakyReLU(0.2), a dense layer.

    No BatchNorm: behind the volume it would hide contrast (chapter 03), and in a small batch it is noisy. ``spectral``:
    spectral norm in every layer (Miyato et al. 2018), for the hinge loss.
    """

    def __init__(self, coarse=(32, 32, 32), width: int = 64, spectral: bool = False):
        super().__init__()
        layers, a = [], 8
        for k in range(1, HALVINGS):
            layers += [nn.Conv3d(a, width * 2**k, 4, 2, 1), nn.LeakyReLU(0.2, True)]
            a = width * 2**k
        self.down = nn.Sequential(*layers)
        self.dense = nn.Linear(a * math.prod(_root(coarse)), 1)
        init_normal(self)
        for layer in [*self.down, self.dense] if spectral else ():
            if isinstance(layer, nn.Conv3d | nn.Linear):
                spectral_norm(layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.down(fold(x)).flatten(1)).squeeze(1)


def _root(coarse) -> tuple[int, ...]:
    step = 2**HALVINGS
    if len(coarse) != 3 or any(n < step or n % step for n in coarse):
        raise ConfigError(f"coarse: {tuple(coarse)} voxels; three multiples of {step} are wanted, (16, 24, 24) say")
    return tuple(n // step for n in coarse)


class CoarseGAN(Method):
    """Noise to coarse volumes of the chest; ``fit`` trains it on ``{"volume": (N, 1, *coarse)}`` in [-1, 1]."""

    name = "cgan3d_coarse"
    generators = ("G",)
    ema = EMA
    repeating = True

    def __init__(self, config: Config, n_volumes: int, seed: int = 0):
        c = self.config = config
        self.spectral = c.coarse_discriminator == "spectral"
        with seeded(seed, "cgan3d coarse", "init"):
            self.networks = {"G": init_normal(CoarseGenerator(c.coarse, c.coarse_latent, c.coarse_width)),
                             "D": CoarseDiscriminator(c.coarse, c.coarse_width, self.spectral)}
        steps = c.coarse_steps or max(1, math.ceil(c.coarse_epochs * n_volumes / c.coarse_batch))
        self.stages = [Stage("coarse", steps=steps, batch_size=min(c.coarse_batch, n_volumes), nets=("G", "D"))]

    def optimizers(self, stage: Stage) -> dict[str, OptimizerSpec]:
        return {net: OptimizerSpec((net,), lr=LEARNING_RATE, betas=(0.5, 0.999)) for net in ("D", "G")}

    def training_step(self, batch: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        G, D, real = self.networks["G"], self.networks["D"], batch["volume"]
        fake = G(step.randn(len(real), self.config.coarse_latent))
        d_real, d_fake = D(torch.cat([real, fake.detach()])).chunk(2)  # one pass: D has no norm that would mix them
        d_loss = (hinge_discriminator if self.spectral else discriminator_loss)(d_real, d_fake)
        step.judged("D", d_real, d_fake)
        step.minimise("D", d_loss)
        with step.frozen("D"):
            g_loss = (hinge_generator if self.spectral else generator_loss)(D(fake))
        step.minimise("G", g_loss)
        return {"D": d_loss, "G": g_loss}

    def synthesize(self, condition: int, generator: torch.Generator, batch: int = 32) -> Tensor:
        """``condition`` volumes ``(N, 1, *coarse)`` in [-1, 1], with BatchNorm's running statistics."""
        z = torch.randn(condition, self.config.coarse_latent, generator=generator, device=generator.device)
        return torch.cat(batched(self.networks["G"], {"G": self.networks["G"]}, batch, z))

    def sample_grid(self, generator: torch.Generator) -> Tensor:
        """The middle axial slices of eight volumes."""
        return self.synthesize(8, generator)[:, :, self.config.coarse[0] // 2]


# ---- training --------------------------------------------------------------------------------------------------------


@dataclass
class CoarseSet:
    """Coarse volumes to learn from: int16 HU (N, Z, Y, X), their names, mean extent of the scans in mm (z, y, x)."""

    hu: np.ndarray
    names: list[str]
    extent_mm: tuple[float, float, float]


def coarse_set(cases: Iterable[Case], coarse) -> CoarseSet:
    """Each case at ``coarse`` (Z, Y, X) voxels over its own field of view, HU clipped to -1024 ... 3000."""
    from covlib.data.volumes import resample

    _root(coarse)
    hu, names, extents = [], [], []
    for case in cases:
        extents.append([n * s for n, s in zip(case.hu.shape, case.spacing)])
        hu.append(np.clip(resample(case, coarse).hu, LIMITS[1], LIMITS[0]))
        names.append(case.name)
    if not hu:
        raise DataError("coarse_set: no case; at least one scan is wanted")
    z, y, x = np.mean(extents, 0).tolist()
    return CoarseSet(np.stack(hu), names, (z, y, x))


def train_coarse(config: Config, volumes: CoarseSet, out, *, seed: int = 0, device="auto",
                 resume: bool = True, **options) -> tuple[CoarseGAN, Equaliser, FitResult]:
    """Train the coarse GAN on volumes equalised together; ``options`` go to ``covlib.training.fit.fit``."""
    equaliser = fit_equaliser(volumes.hu, floor=config.coarse_floor)
    method = CoarseGAN(config, len(volumes.hu), seed)
    steps = method.stages[0].steps
    kept = ("coarse", "coarse_latent", "coarse_width", "coarse_batch", "coarse_epochs", "coarse_steps", "coarse_floor",
            "coarse_discriminator")
    who = {"chapter": "07_cgan3d", **{k: v for k, v in config.as_dict().items() if k in kept}}
    result = fit(method, {"volume": torch.from_numpy(equaliser.forward(volumes.hu))[:, None]}, Path(out), seed=seed,
                 device=device, resume=resume,
                 **{"log_every": max(1, steps // 100), "sample_every": max(1, steps // FRAMES), "ema": method.ema,
                    "identity": who, **options})
    return method, equaliser, result


# ---- from noise to a volume ------------------------------------------------------------------------------------------


def plan(coarse, size) -> tuple[tuple[int, ...], list[tuple[bool, ...]]]:
    """How a coarse volume becomes one of ``size`` (both (Z, Y, X)): the shape to start from, and which axes each step
    doubles.

    An axis is doubled round(log2(size / coarse)) times, in the first steps; the start is ``size`` halved as often,
    rounded up, so that the coarse volume is stretched or shrunk by less than a factor of 1.5 before the first step.
    """
    if len(size) != 3 or min(size) < 1:
        raise ConfigError(f"size: {tuple(size)}; three whole numbers of voxels are wanted")
    times = [max(0, round(math.log2(n / c))) for n, c in zip(size, coarse)]
    start = tuple(math.ceil(n / 2**k) for n, k in zip(size, times))
    return start, [tuple(i < k for k in times) for i in range(max(times))]


class Doubled:
    """A volume (Z, Y, X), array or memory map, seen at twice its size by nearest neighbour; nothing is stored."""

    def __init__(self, volume):
        self.volume, self.shape = volume, tuple(2 * n for n in volume.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, planes: slice) -> np.ndarray:
        first, stop, _ = planes.indices(len(self))
        low = np.asarray(self.volume[first // 2 : (stop + 1) // 2]).repeat(2, 0)
        return low[first % 2 : first % 2 + stop - first].repeat(2, 1).repeat(2, 2)


class Kept:
    """What is written to a doubled volume, thinned again along the axes that were not to grow, and cut to size."""

    def __init__(self, out, shape, grow):
        self.out, self.shape, self.dtype = out, tuple(shape), out.dtype
        self.steps = [1 if g else 2 for g in grow]

    def __setitem__(self, planes: slice, values: np.ndarray) -> None:
        step_z, step_y, step_x = self.steps
        depth, height, width = self.out.shape
        first = planes.start
        chosen = np.arange(first, first + len(values))
        chosen = chosen[(chosen % step_z == 0) & (chosen // step_z < depth)]
        if len(chosen):
            target = slice(chosen[0] // step_z, chosen[-1] // step_z + 1)
            self.out[target] = values[chosen - first, ::step_y, ::step_x][:, :height, :width]


@dataclass
class NoiseModel:
    """Noise to CT volumes.

    Attributes:
        coarse: the trained coarse GAN. depixelate: the trained network of that task.
        equaliser: of the coarse training volumes, takes the coarse GAN's output to HU.
        extent_mm: size of a volume along (z, y, x), the mean of the training scans.
    """

    coarse: CoarseGAN
    depixelate: CGAN3D
    equaliser: Equaliser
    extent_mm: tuple[float, float, float]

    def spacing(self, size) -> tuple[float, float, float]:
        """mm between voxels of a volume of ``size`` (Z, Y, X)."""
        z, y, x = (e / n for e, n in zip(self.extent_mm, size))
        return z, y, x

    def coarse_volumes(self, n: int, seed: int = 0) -> np.ndarray:
        """``n`` coarse volumes in HU, int16 ``(n, *coarse)``."""
        device = next(self.coarse.networks["G"].parameters()).device
        made = self.coarse.synthesize(n, torch_generator(seed, "coarse", device=device))[:, 0]
        return np.rint(self.equaliser.inverse(made.cpu()).numpy()).astype(np.int16)

    def grow(self, coarse: np.ndarray, out, *, seed: int = 0, overlap: int | None = None, report=None):
        """Double a coarse volume (Z, Y, X) in HU until it fills ``out`` (array or memory map, int16), and return that.

        Args:
            overlap: voxels shared by neighbouring blocks; the configuration's, or 8 where that is 0.
            report: called with one line of text before each step.
        """
        overlap = (self.depixelate.config.overlap or OVERLAP) if overlap is None else overlap
        start, steps = plan(coarse.shape, out.shape)
        low = torch.from_numpy(np.ascontiguousarray(coarse, np.float32))[None, None]
        volume = F.interpolate(low, start, mode="trilinear", align_corners=False)[0, 0].round().to(torch.int16).numpy()
        if not steps:
            out[:] = volume
        with tempfile.TemporaryDirectory(prefix="covlib-volume-") as folder:
            for k, axes in enumerate(steps):
                doubled = Doubled(volume)
                shape = tuple(m if g else n for n, m, g in zip(volume.shape, doubled.shape, axes))
                last = k == len(steps) - 1
                target = out if last else np.memmap(Path(folder) / f"{k}.hu", np.int16, "w+", shape=shape)
                if report:
                    report(f"step {k + 1} of {len(steps)}: {'x'.join(map(str, volume.shape))} to "
                           f"{'x'.join(map(str, target.shape))} voxels (z, y, x)")
                restore_volume(self.depixelate, doubled, fit_equaliser(volume, floor=self.depixelate.config.floor),
                               overlap=overlap, seed=derive(seed, "grow", k), out=Kept(target, doubled.shape, axes))
                volume = target
        return out

    def volumes(self, n: int, size, *, seed: int = 0, overlap: int | None = None) -> list[Case]:
        """``n`` volumes of ``size`` (Z, Y, X) as cases, in memory."""
        return list(self.stream(n, size, seed=seed, overlap=overlap))

    def stream(self, n: int, size, *, seed: int = 0, overlap: int | None = None) -> Iterator[Case]:
        """As ``volumes``, one after another."""
        spacing = self.spacing(size)
        z, y, x = (s * (m - 1) / 2 for s, m in zip(spacing, size))
        for k, low in enumerate(self.coarse_volumes(n, seed)):
            hu = self.grow(low, np.empty(size, np.int16), seed=derive(seed, "volume", k), overlap=overlap)
            yield Case(f"noise_{seed}_{k:03d}", hu, spacing, origin=(-z, y, x))

    @classmethod
    def load(cls, path, device="auto") -> "NoiseModel":
        """The model of a finished run of chapter 07: its folder, or its ``checkpoints/cgan3d.safetensors``."""
        tensors, header, config = read_bundle(path)
        if "equaliser" not in header:
            raise ConfigError(f"checkpoint {path}: holds no coarse GAN; run chapter 07 with data to learn one from")
        coarse, depixelate = CoarseGAN(config, 1), CGAN3D(replace(config, task="depixelate"), 1)
        for name, method in (("coarse", coarse), ("depixelate", depixelate)):
            filled(method, tensors, name, f"checkpoint {path}", device)
        return cls(coarse, depixelate, Equaliser.from_dict(json.loads(header["equaliser"])),
                   tuple(json.loads(header["extent_mm"])))


# ---- one file for all networks of the chapter ------------------------------------------------------------------------


def save_bundle(path, config: Config, methods: dict[str, Method], noise: NoiseModel | None = None,
                seed: int = 0) -> Path:
    """All trained networks of the chapter in one safetensors file, with the configuration in its header."""
    parts = dict(methods) | ({"coarse": noise.coarse} if noise else {})
    nets = {f"{name}.{net}": module for name, method in parts.items() for net, module in method.networks.items()}
    header = {"chapter": "07_cgan3d", "seed": seed, "config": json.dumps(config.as_dict())}
    if noise:
        header |= {"equaliser": json.dumps(noise.equaliser.as_dict()), "extent_mm": json.dumps(noise.extent_mm)}
    return save_weights(path, nets, header)


def bundled(path, device="auto") -> dict[str, Method]:
    """All trained methods of a bundle, by task, and "coarse" where it holds one; in eval mode.

    Raises:
        ConfigError: as ``read_bundle``; weights that do not fit.
    """
    tensors, header, config = read_bundle(path)
    methods: dict[str, Method] = {task: CGAN3D(replace(config, task=task), 1) for task in TASKS}
    methods |= {"coarse": CoarseGAN(config, 1)} if "equaliser" in header else {}
    return {name: filled(method, tensors, name, f"checkpoint {path}", device) for name, method in methods.items()}


def read_bundle(path) -> tuple[dict[str, Tensor], dict[str, str], Config]:
    """Tensors, header and configuration of what ``save_bundle`` wrote; ``path`` may be the run's folder.

    Raises:
        ConfigError: no such file, another chapter's, or a damaged one.
    """
    path = Path(path)
    if path.is_dir():
        found = [p for p in (path / "checkpoints" / BUNDLE, path / BUNDLE) if p.is_file()]
        if not found:
            raise ConfigError(f"checkpoint {path}: the folder holds no checkpoints/{BUNDLE}; give the folder of a "
                              "finished run of chapter 07")
        path = found[0]
    tensors, header = read_weights(path)
    if header.get("chapter") != "07_cgan3d" or "config" not in header:
        raise ConfigError(f"checkpoint {path}: its chapter is {header.get('chapter', 'not stated')!r}, but "
                          "'07_cgan3d' is needed")
    return tensors, header, Config.for_profile("paper", json.loads(header["config"]))
