"""A conditional GAN on 3-D blocks, after Mangalagiri et al. (2020), from CT volume (HU) to CT volume (HU).

A scan is equalised, cut into blocks of 32x32x32, and given to the generator as it is ("autoencode"), with Poisson noise
("denoise") or at half its resolution ("depixelate"); the generator is to give back the original (Section III). The
blocks are then laid together and converted back to HU. ``Config`` has the paper's values as defaults; what the paper
leaves open is marked "ours" there and discussed in chapter 07::

    config = Config.for_profile("cpu", {"task": "denoise"})
    method, result = train(config, training_cases, "runs/07_cgan3d/denoise")
    better = restore(method, noisy_case)          # Case in, Case out: same grid, int16 HU
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from covlib.config import Config as BaseConfig
from covlib.data.blocks import apply_blocks, divide
from covlib.data.case import Case
from covlib.data.equalise import Equaliser, fit_equaliser
from covlib.errors import ConfigError, DataError
from covlib.losses import hinge_discriminator, hinge_generator
from covlib.nets import batched, init_normal
from covlib.papers.cgan3d.conditions import check_case, degrade, pixelate, with_hu
from covlib.papers.cgan3d.losses import discriminator_loss, generator_loss
from covlib.papers.cgan3d.nets import DetailDiscriminator3d, PatchDiscriminator3d, ProjectedDiscriminator3d, UNet3d
from covlib.papers.cgan3d.regions import pulmonary_blocks
from covlib.papers.cgan3d.restoration import NonLocalMeans
from covlib.parallel import spread
from covlib.seeding import rng, torch_generator
from covlib.training.fit import FitResult, fit
from covlib.training.method import Method, OptimizerSpec, Stage, Step, seeded
from covlib.training.trained import fit_or_load

__all__ = ["CGAN3D", "Config", "TASKS", "answer_of", "augment_blocks", "condition_of", "restore", "restore_volume",
           "train", "training_blocks"]

TASKS = ("autoencode", "denoise", "depixelate")
MANY_VOXELS = 10_000_000  # some 20 s of non-local means
BATCH = 16  # blocks at once in synthesis; ours
MIRRORS = ((), (-1,), (-2,), (-2, -1))  # axes turned; a pixelated condition must not be turned, see CGAN3D.augment


@dataclass(frozen=True)
class Config(BaseConfig):
    """Hyper-parameters of chapter 07. Defaults are the paper's (Section III) unless marked "ours"."""

    after_training = ("extractor",)

    task: str = "autoencode"  # one of TASKS; the paper trains one network for each
    block: int = 32
    blocks_per_scan: int = 162  # Section III-C; which ones of a scan is not said: ours, drawn at random
    # Which of them are trained on: "pulmonary", those with most lung, for the paper's second experiment, whose networks
    # were trained and tested on 4 (Section IV-A); ours, "random", for the first
    block_choice: Literal["random", "pulmonary"] = "random"
    augmentations: int = 34  # Section III-C: how many times each block comes in an epoch, moved differently each time
    margin: int = 4  # ours: a block is moved by up to this many voxels along each axis
    floor: float = 0.25  # ours: share of the straight line in the equalisation (covlib.data.equalise); 1 for a line
    # What is equalised by a curve of its own: ours, the whole "scan"; "block", in the order of Section III-C, where
    # scans are divided first
    equalise: Literal["scan", "block"] = "scan"
    region_litres: float = 0.0  # of Table II's region: four cubes of so much together; 0: four blocks as they are
    batch_size: int = 50
    epochs: int = 100
    steps: int = 0  # ours, for short runs: so many in place of the epochs, however many blocks there are
    denoise_times: int = 1  # ours: how many times as many epochs denoising gets, the slowest of the tasks to learn
    widths: tuple[int, ...] = (32, 64, 128, 256)  # ours
    norm: str = "batch"  # ours, as in Cicek et al. and Isola et al.
    # ours: "detail" is shown what matters (nets.DetailDiscriminator3d), but not the autoencoder's; "projected" judges
    # slices of it, by hinge
    discriminator: Literal["paper", "detail", "projected"] = "paper"
    twin: float = 0.0  # ours: a twin with the paper's discriminator trains so many times as many steps; 0: no twin
    d_width: int = 64  # ours
    d_layers: int = 2  # ours: patches of 34 voxels, about a block
    noise: int = 1  # ours: channels of uniform noise in [-1, 1], beside the condition at the generator's input
    # ours: predict a correction to the condition (to its trilinear interpolation, where it is pixelated by nearest
    # neighbour); never for "autoencode", where 0 would do
    residual: bool = False
    means: int = 0  # ours: how many local means a residual denoiser chooses among (nets.UNet3d)
    # ours: such a denoiser starts at non-local means, as what depixelates starts at trilinear interpolation
    classical: bool = False
    # ours: what is residual folds 2x2x2 voxels into channels at its finest size, instead of convolving there (an
    # autoencoder loses 4 dB by it)
    folded: bool = False
    saturating: bool = False  # ours: G maximises ln D, as in the paper's reference 4; True: eq. (2) as printed
    l1: float = 100.0  # ours, as in the paper's reference 4; the paper names the loss, not its weight
    learning_rate: float = 2e-4  # ours: the generator's
    d_learning_rate: float = 2e-4  # ours: the discriminator's; as fast as a hasty generator's, it drowns the L1 loss
    beta1: float = 0.5  # ours
    beta2: float = 0.999  # ours
    decay: bool = False  # ours: the learning rate falls in a straight line in the second half of the steps
    photons: float = 160.0  # ours: the noisy lungs have about the 27.3 dB of Table II then
    path_mm: float = 50.0  # ours
    pixels: str = "nearest"  # Section III-A; "average" is ours
    overlap: int = 0  # voxels shared by neighbouring blocks in synthesis; the paper's blocks do not overlap
    mirrors: bool = False  # ours: denoised volumes are means over blocks mirrored in the axial plane, four in all
    hu_low: int = -1024  # ours: PSNR and SSIM are taken of HU clipped to hu_low .. hu_high
    hu_high: int = 1024  # ours
    train_patients: int = 31
    test_patients: int = 6
    shape: tuple[int, int, int] = (80, 512, 512)  # of virtual patients; the paper's have 70 to 90 slices
    coarse: tuple[int, int, int] = (32, 32, 32)  # ours, as all below: volumes from noise (noise, Section VI)
    coarse_floor: float = 0.25  # as floor, of coarse volumes; on a straight line they vary less
    coarse_latent: int = 128
    coarse_width: int = 64
    coarse_discriminator: Literal["plain", "spectral"] = "plain"  # "spectral": spectral norm in every layer, hinge loss
    coarse_patients: int = 200  # virtual patients; of real data, all for training
    coarse_batch: int = 16
    coarse_epochs: int = 300
    coarse_steps: int = 0  # as steps, of coarse volumes
    volume: tuple[int, int, int] = (80, 512, 512)
    volumes: int = 6
    extractor: str = "lite2"  # of the Frechet distances; this one's block goes by the number of slices

    def __post_init__(self):
        if self.task not in TASKS:
            raise ConfigError(f"task: {self.task!r} is not one of {', '.join(TASKS)}")
        if self.means < 0:
            raise ConfigError(f"means: {self.means}; 0 or more are wanted")
        step = 2 ** (len(self.widths) - 1)
        if self.block % step or self.block < 2 * step:
            raise ConfigError(f"block: {self.block} cannot be halved {len(self.widths) - 1} times; a multiple of "
                              f"{step} from {2 * step} on is wanted")
        if self.overlap % 2 or not 0 <= self.overlap < self.block:
            raise ConfigError(f"overlap: {self.overlap} of {self.block} voxels; an even number below the block's side "
                              "is wanted, so that pixels of two voxels are never cut")
        if self.margin % 2 or self.margin < 0:
            raise ConfigError(f"margin: {self.margin} is not an even number: pixels of two voxels would be cut")
        if self.region_litres < 0:
            raise ConfigError(f"region_litres: {self.region_litres:g}; 0 (four blocks), or litres above it, are wanted")
        if not self.hu_low < self.hu_high:
            raise ConfigError(f"hu_low: {self.hu_low} is not below hu_high, {self.hu_high}")

    @property
    def started(self) -> bool:
        """Whether the network of this task is given a classical method's answer beside its condition."""
        return self.task == "denoise" and self.residual and self.classical and self.means > 0

    @classmethod
    def profiles(cls) -> dict[str, dict]:
        """What each profile changes from the paper's values."""
        small = {"norm": "none", "residual": True, "means": 3, "classical": True, "folded": True, "overlap": 16,
                 "augmentations": 1, "floor": 1.0, "learning_rate": 2e-3, "beta1": 0.9,
                 "decay": True}
        cpu = small | {"widths": (8, 16, 32), "d_width": 8, "batch_size": 2, "epochs": 4, "denoise_times": 2,
                       "blocks_per_scan": 18, "train_patients": 12, "test_patients": 3, "shape": (64, 96, 96),
                       "coarse": (16, 24, 24), "coarse_latent": 64, "coarse_width": 16, "coarse_patients": 160,
                       "coarse_batch": 8, "coarse_epochs": 30, "coarse_steps": 1500, "coarse_discriminator": "spectral",
                       "volume": (64, 96, 96), "mirrors": True, "discriminator": "detail", "twin": 1.0}
        return {
            "smoke": small | {"discriminator": "detail", "twin": 1.0, "widths": (4, 8), "d_width": 4, "d_layers": 1,
                              "batch_size": 2, "epochs": 1,
                              "blocks_per_scan": 4, "train_patients": 2, "test_patients": 2, "shape": (32, 64, 64),
                              "coarse": (8, 16, 16), "coarse_latent": 8, "coarse_width": 4, "coarse_patients": 8,
                              "coarse_batch": 4, "coarse_epochs": 2, "volume": (32, 64, 64), "volumes": 4},
            "cpu": cpu,
            "long": cpu | {"shape": (96, 192, 192), "volume": (96, 192, 192), "widths": (8, 24, 48), "d_width": 16,
                           "batch_size": 4, "steps": 1500, "blocks_per_scan": 60, "coarse": (24, 48, 48),
                           "coarse_width": 24, "coarse_patients": 300, "coarse_steps": 5000},
            "gpu": small | {"widths": (32, 64, 128), "d_width": 32, "epochs": 60, "learning_rate": 5e-4,
                            "blocks_per_scan": 128, "shape": (64, 256, 256), "volume": (64, 256, 256)},
            "paper": {"extractor": "inception-2048"},
        }


def build_discriminator(config: Config) -> nn.Module:
    """D, as ``config`` says. An autoencoder, which has to build its block from nothing, keeps the paper's in place of
    "detail": magnified tenfold, its first blocks are told at a glance, and it diverges."""
    if config.discriminator == "projected":
        return ProjectedDiscriminator3d()
    if config.discriminator == "detail" and config.task != "autoencode":
        return DetailDiscriminator3d(config.d_width, config.d_layers, config.norm)
    return init_normal(PatchDiscriminator3d(config.d_width, config.d_layers, config.norm))


class CGAN3D(Method):
    """One network for one task. Batches are {"target": (N, 1, S, S, S), "condition": the same}, in [-1, 1]; a denoiser
    that starts at a classical method's answer has that as "answer".

    With a margin, blocks of the data are larger by twice ``config.margin``, and ``augment`` cuts them to size.
    """

    name = "cgan3d"
    generators = ("G",)
    repeating = True

    def __init__(self, config: Config, n_blocks: int, seed: int = 0):
        c = self.config = config
        with seeded(seed, "cgan3d", "init"):
            self.networks = {
                "G": UNet3d(c.widths, c.noise, c.norm, c.residual and c.task != "autoencode",
                            pixelated=c.task == "depixelate" and c.pixels == "nearest",
                            means=c.means if c.task == "denoise" else 0,
                            folded=c.folded and c.task != "autoencode", started=c.started),
                "D": build_discriminator(c),
            }
        steps = c.steps_of(c.augmentations * n_blocks, c.epochs * (c.denoise_times if c.task == "denoise" else 1))
        self.stages = [Stage("adversarial", steps=steps, batch_size=c.batch_size, nets=("G", "D"),
                             lr_decay="linear" if c.decay else "constant", constant_steps=steps // 2 if c.decay else 0)]

    def optimizers(self, stage: Stage) -> dict[str, OptimizerSpec]:
        c = self.config
        rates = {"D": c.d_learning_rate, "G": c.learning_rate}
        return {net: OptimizerSpec((net,), lr=lr, betas=(c.beta1, c.beta2)) for net, lr in rates.items()}

    def augment(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Translation, mirroring, rotation (Section III-C); the pixelated condition is made anew of what comes out.

        Mirrored after it was made, its pixels would show the last voxel of each 2x2x2 instead of the first.
        """
        c = self.config
        batch = augment_blocks(batch, generator, c.block)
        if c.task == "depixelate" and c.pixels == "nearest":
            batch["condition"] = pixelate(batch["target"])
        return batch

    def training_step(self, batch: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        G, D, c = self.networks["G"], self.networks["D"], self.config
        real, condition = batch["target"], batch["condition"]
        z = step.rand(len(real), c.noise, *real.shape[2:]) * 2 - 1
        fake = G(condition, z, batch.get("answer"))
        # Real and fake go through D apart: in one batch a BatchNorm would mix their statistics.
        d_real, d_fake = D(real, condition), D(fake.detach(), condition)
        step.judged("D", d_real, d_fake)
        projected = c.discriminator == "projected"
        d_loss = (hinge_discriminator if projected else discriminator_loss)(d_real, d_fake)
        step.minimise("D", d_loss)
        judged, restored = step.apart(fake)
        with step.frozen("D"):
            said = D(judged, condition)
        adversarial = hinge_generator(said) if projected else generator_loss(said, c.saturating)
        voxels = F.l1_loss(restored.float(), real)
        step.minimise("G", adversarial + c.l1 * voxels)
        return {"D": d_loss, "G": adversarial, "L1": voxels}

    def synthesize(self, condition, generator: torch.Generator, batch: int = BATCH) -> Tensor:
        """Blocks (N, 1, S, S, S) in [-1, 1] from conditions of that shape; noise is drawn from ``generator``.

        A network that starts at a classical method's answer takes it from the condition's second channel.
        """
        G = self.networks["G"]

        def work(part: Tensor) -> Tensor:
            shape = (len(part), self.config.noise, *part.shape[2:])
            z = torch.rand(shape, generator=generator, device=generator.device).to(part.device) * 2 - 1
            return G(part[:, :1], z, part[:, 1:] if self.config.started else None).float().clamp(-1, 1)

        return torch.cat(batched(work, {"G": G}, batch, condition))


def augment_blocks(batch: dict[str, Tensor], generator: torch.Generator, block: int) -> dict[str, Tensor]:
    """Random translation, mirroring and rotation of blocks (N, 1, S, S, S), S >= block, the same for all of a sample.

    Translation: cut to ``block`` at a place of its own, in steps of two voxels (a pixel of the pixelated condition).
    Mirroring along each of the three axes. Rotation: by quarter turns in the axial plane, which mirroring and
    exchanging y and x make. Nothing is interpolated, so noise keeps its grain. Works on the device, nothing is read
    back.
    """
    first = next(iter(batch.values()))
    n, side, device = len(first), first.shape[-1], first.device
    room = (side - block) // 2
    if room < 0:
        raise DataError(f"blocks have a side of {side}; at least {block} is wanted")
    draws = torch.rand(n, 7, generator=generator, device=device)
    corner = 2 * (draws[:, :3] * (room + 1)).long().clamp(max=room)
    flip, swap = draws[:, 3:6] < 0.5, draws[:, 6] < 0.5
    line = torch.arange(block, device=device)
    index = torch.where(flip[..., None], block - 1 - line, line) + corner[..., None]  # (n, 3, block)
    z, y, x = index[:, 0, :, None, None], index[:, 1, None, :, None], index[:, 2, None, None, :]
    y, x = (torch.where(swap[:, None, None, None], a.transpose(-1, -2), a) for a in (y, x))
    place = ((z * side + y) * side + x).flatten(1)
    return {name: values.flatten(1).gather(1, place).view(n, 1, block, block, block) for name, values in batch.items()}


# ---- data ------------------------------------------------------------------------------------------------------------


def condition_of(config: Config, case: Case, seed: int = 0) -> Case:
    """What the generator of this task is given of a case, as a case."""
    return degrade(case, config.task, photons=config.photons, path_mm=config.path_mm, how=config.pixels, seed=seed)


def answer_of(config: Config, noisy) -> np.ndarray:
    """Where a denoiser may start: non-local means of a noisy volume (Z, Y, X) in HU; float32 HU."""
    return NonLocalMeans(config.photons, config.path_mm)(np.asarray(noisy))


def _answers(config: Config, noisy: list[np.ndarray]) -> list[np.ndarray]:
    """``answer_of`` each volume, on all cores if that is worth starting processes."""
    return spread(answer_of, [(config, hu) for hu in noisy], None if sum(h.size for h in noisy) > MANY_VOXELS else 1)


def training_blocks(cases: list[Case], config: Config, seed: int = 0) -> dict[str, Tensor]:
    """Blocks of the cases and of their conditions, {"target", "condition"}, each (N, 1, S, S, S) float32 in [-1, 1]; of
    the classical answers too ("answer"), if the network starts there.

    S is ``config.block`` plus a margin on both sides, from the scan (its ends are repeated beyond it). Every scan is
    equalised by its condition's histogram, the only one there is when the network is used; with the config's
    ``equalise`` "block", every block by its own. At most ``blocks_per_scan`` blocks of each scan are taken, drawn at
    random, or those with most lung (``block_choice``).
    """
    if not cases:
        raise DataError("training_blocks: no case; at least one scan is wanted")
    m, found = config.margin, {"target": [], "condition": []} | ({"answer": []} if config.started else {})
    cases = [check_case(case) for case in cases]
    conditions = [condition_of(config, case, seed) for case in cases]
    answers = _answers(config, [given.hu for given in conditions]) if config.started else [None] * len(cases)
    for case, given, answer in zip(cases, conditions, answers):
        curve = fit_equaliser(given.hu, floor=config.floor) if config.equalise == "scan" else None
        volumes: dict[str, Any] = {"target": case.hu, "condition": given.hu}
        volumes |= {"answer": answer} if config.started else {}
        chosen = _chosen(case, config, seed)
        cut = {}
        for name, hu in volumes.items():
            ends = [(m, m + -n % config.block) for n in hu.shape]
            padded = np.pad(hu if curve is None else curve.forward(hu), ends, mode="edge")
            cut[name] = divide(padded, config.block + 2 * m, 2 * m)[0][chosen]
        if curve is None:  # each block by the histogram of its condition
            curves = [fit_equaliser(block, floor=config.floor) for block in cut["condition"]]
            cut = {name: np.stack([c.forward(b) for c, b in zip(curves, blocks)]) for name, blocks in cut.items()}
        for name, blocks in cut.items():
            found[name].append(blocks)
    return {name: torch.from_numpy(np.concatenate(parts))[:, None] for name, parts in found.items()}


def _chosen(case: Case, config: Config, seed: int) -> np.ndarray:
    """Numbers of the blocks of a scan that are trained on, ascending."""
    counts = [-(-n // config.block) for n in case.hu.shape]
    count = min(int(np.prod(counts)), config.blocks_per_scan)
    if config.block_choice == "pulmonary":
        corners = pulmonary_blocks(case, count, config.block) // config.block
        return np.sort(np.ravel_multi_index(tuple(corners.T), counts))
    return np.sort(rng(seed, "blocks", case.name).permutation(int(np.prod(counts)))[:count])


def train(config: Config, cases: list[Case], out, *, seed: int = 0, device="auto", resume: bool = True,
          checkpoint=None, **options) -> tuple[CGAN3D, FitResult | None]:
    """Train the network of ``config.task`` on whole scans; or take its weights from a checkpoint.

    Args:
        checkpoint: file written by an earlier call (``out/checkpoints/cgan3d-<task>.safetensors``); nothing is trained
            then. options: go to ``covlib.training.fit.fit``.

    Returns:
        The method, and what ``fit`` returned (None with a checkpoint).
    """
    data = training_blocks(cases, config, seed) if checkpoint is None else {}
    method = CGAN3D(config, len(data["target"]) if data else 1, seed)

    def fitted() -> FitResult:
        return fit(method, data, Path(out), seed=seed, device=device, resume=resume,
                   **{"channels_last": True, "log_every": max(1, method.stages[0].steps // 100),
                      "identity": {"chapter": "07_cgan3d", **config.as_dict()}, **options})

    notes = {"chapter": "07_cgan3d", "task": config.task, "widths": list(config.widths), "norm": config.norm,
             "residual": config.residual, "means": config.means, "classical": config.classical,
             "folded": config.folded, "seed": seed}
    return method, fit_or_load({"": method}, fitted, Path(out) / "checkpoints" / f"cgan3d-{config.task}.safetensors",
                               notes, checkpoint=checkpoint, device=device)


# ---- whole volumes ---------------------------------------------------------------------------------------------------


def restore_volume(method: CGAN3D, volume, equaliser: Equaliser | None = None, *, overlap: int | None = None,
                   batch: int = BATCH, seed: int = 0, out=None):
    """A condition (Z, Y, X) in HU, array or memory map, through equalisation, blocks, network, stitching and back.

    Memory holds one layer of blocks, so that a volume may be larger than it. The network's device is used.

    Args:
        equaliser: of another scan; by default this volume's own, or, as the config's ``equalise`` says, each block's.
        overlap: voxels shared by neighbouring blocks, even; ``config.overlap`` by default, 0 is the paper's way.
        out: array or memory map to write into; a new int16 array by default.

    Returns:
        ``out``: HU within the equaliser's range.
    """
    overlap = method.config.overlap if overlap is None else overlap
    if overlap % 2:
        raise ConfigError(f"overlap: {overlap} is odd; an even number is wanted, or pixels of two voxels are cut")
    device = next(method.networks["G"].parameters()).device
    whole = equaliser
    if whole is None and method.config.equalise == "scan":
        whole = fit_equaliser(volume, floor=method.config.floor)
    out = np.empty(np.shape(volume), np.int16) if out is None else out
    noise = torch_generator(seed, "restore", device=device)
    mirrored = MIRRORS if method.config.mirrors and method.config.task == "denoise" else MIRRORS[:1]

    def network(blocks: Tensor) -> Tensor:
        return sum(method.synthesize(blocks.flip(m), noise, batch).flip(m) for m in mirrored) / len(mirrored)

    def equalised(blocks: Tensor) -> Tensor:
        curves = [fit_equaliser(block[0].cpu().numpy(), floor=method.config.floor) for block in blocks]
        made = network(torch.stack([curve.forward(block) for curve, block in zip(curves, blocks)]))
        return torch.stack([curve.inverse(block) for curve, block in zip(curves, made)])

    return apply_blocks(volume, network if whole else equalised, block=method.config.block, overlap=overlap,
                        before=whole.forward if whole else None, after=whole.inverse if whole else None, device=device,
                        batch=batch, out=out,
                        beside=(answer_of(method.config, volume),) if method.config.started else ())


def restore(method: CGAN3D, case: Case, *, overlap: int | None = None, seed: int = 0) -> Case:
    """The case that the network makes of a condition (see ``condition_of``): same grid, masks and label, int16 HU.

    ``meta["notes"]`` says what a reader should know: voxels clipped to int16, slices repeated to fill a block.

    Raises:
        DataError: a case that is not a 3-D volume of finite numbers.
    """
    case = check_case(case)
    side = method.config.block
    notes = [f"{n} {what} repeated to fill a block of {side}" for n, what in
             zip([-min(0, s - side) for s in case.hu.shape], ("slices", "rows", "columns")) if n]
    made = restore_volume(method, case.hu, overlap=overlap, seed=seed)
    return with_hu(case, made, notes)
