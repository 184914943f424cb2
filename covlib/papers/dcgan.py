"""DCGAN for COVID-19 chest CT slices, after Mann, Jain, Mittal and Bhat (2020).

The paper gives its layers in words (Section III) and its training in one sentence (Section IV). Both are followed to
the letter here at full size (``Config.for_profile("paper")``); what it leaves open is marked "ours" in ``Config`` and
discussed in chapter 03. The smaller profiles keep the 7x7 root, the 4x4 stride-2 kernels and every hyper-parameter of
the optimiser, cut image size, width and length of training, and leave out one BatchNorm (``Config.first_norm``).
"""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from covlib.checkpoints import load_weights, save_weights
from covlib.config import Config as BaseConfig
from covlib.data import augment
from covlib.data.case import SliceSet
from covlib.data.splits import Split
from covlib.errors import ConfigError
from covlib.judges import classifiers
from covlib.methods import Method, OptimizerSpec, Stage, Step, seeded
from covlib.metrics.neighbours import nearest
from covlib.nets import init_normal, layer_shapes
from covlib.seeding import derive, torch_generator
from covlib.training import FitResult, fit, resolve_device

ROOT = 7  # side of the generator's first feature map (Section III)
KERNEL, STRIDE, PADDING = 4, 2, 1  # "kernel size of (4, 4) and stride of (2, 2)"; padding 1 follows from the sizes

JUDGE_BATCH = 16  # ours


@dataclass(frozen=True)
class Config(BaseConfig):
    """Hyper-parameters of chapter 03. Defaults are the paper's (Sections III and IV) unless marked "ours"."""

    after_training = ("sets", "set_size", "judge", "judge_epochs", "judge_weights", "arms_seeds", "arms_epochs")

    image_size: int = 224
    channels: int = 3
    latent: int = 100
    width: int = 192  # channels of the layer next to the image; doubles at every halving of the side
    batch_size: int = 16
    learning_rate: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.999  # ours: PyTorch's default, the paper names beta1 only
    epochs: int = 3000
    crop_scale: float = 0.5  # ours: smallest area kept by RandomResizedCrop, as in the COVID-CT baseline code
    crop_aspect: float = 4 / 3  # ours: widest aspect of the crop, torchvision's default
    flip: bool = True
    first_norm: bool = True  # BatchNorm after the discriminator's first layer, as the text says
    sets: int = 10
    set_size: int = 100
    judge: str = "densenet169"
    judge_epochs: int = 50  # ours
    judge_weights: str = "imagenet"
    patients: int = 200  # ours: virtual patients, where data="phantom"
    slices_per_patient: int = 3  # ours
    arms_seeds: int = 5  # ours: repeats of the real against real-plus-synthetic comparison
    arms_epochs: int = 50  # ours: their length

    def __post_init__(self):
        ups(self.image_size)  # refuses sizes that are not 7 times a power of two

    @classmethod
    def profiles(cls) -> dict[str, dict]:
        """What each profile changes from the paper's values."""
        small = {"judge": "resnet18", "judge_weights": "none"}
        return {
            "smoke": small | {"image_size": 56, "width": 8, "epochs": 2, "patients": 24, "slices_per_patient": 2,
                              "judge_epochs": 1, "sets": 3, "set_size": 8, "arms_seeds": 2, "arms_epochs": 1},
            "cpu": small | {"image_size": 56, "width": 32, "epochs": 36, "first_norm": False, "crop_scale": 0.8,
                            "crop_aspect": 1.1, "patients": 260, "judge_epochs": 4, "arms_seeds": 2,
                            "arms_epochs": 2},
            "gpu": {"width": 64, "epochs": 300, "first_norm": False, "crop_scale": 0.8, "crop_aspect": 1.1,
                    "patients": 400, "judge_epochs": 20, "arms_epochs": 20},
            "paper": {},
        }


def ups(image_size: int) -> int:
    """Number of doublings from the 7x7 root to ``image_size``; ConfigError where there is no whole number of them."""
    n = int(math.log2(max(image_size, 1) / ROOT)) if image_size >= 2 * ROOT else 0
    if n < 1 or ROOT * 2**n != image_size:
        raise ConfigError(f"image_size: {image_size} is not 7 times a power of two; use 14, 28, 56, 112, 224 or 448")
    return n


class Generator(nn.Module):
    """Noise (N, latent) to images (N, channels, S, S) in [-1, 1] (Section III, Figs. 1 and 3).

    Fully connected to 150528 = 3072 x 7 x 7 features, then transposed 4x4 stride-2 convolutions that halve the channels
    and double the side, each but the last followed by BatchNorm and ReLU; tanh at the end. Ours, after Radford et al.
    (2015): BatchNorm and ReLU on the 7x7 root too, no bias before a BatchNorm.
    """

    def __init__(self, image_size: int = 224, width: int = 192, latent: int = 100, channels: int = 3):
        super().__init__()
        n = ups(image_size)
        widths = [width * 2**k for k in range(n - 1, -1, -1)]  # 3072, 1536, 768, 384, 192 at full size
        self.latent = latent
        self.project = nn.Linear(latent, widths[0] * ROOT * ROOT)
        self.root = nn.Sequential(nn.Unflatten(1, (widths[0], ROOT, ROOT)), nn.BatchNorm2d(widths[0]), nn.ReLU())
        layers = []
        for a, b in zip(widths, widths[1:]):
            layers += [nn.ConvTranspose2d(a, b, KERNEL, STRIDE, PADDING, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
        layers += [nn.ConvTranspose2d(widths[-1], channels, KERNEL, STRIDE, PADDING), nn.Tanh()]
        self.up = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        return self.up(self.root(self.project(z)))


class Discriminator(nn.Module):
    """Images (N, channels, S, S) in [-1, 1] to logits (N,); their sigmoid is the paper's "realness" (Figs. 2 and 4).

    Strided 4x4 convolutions that double the channels and halve the side down to 7x7, each followed by BatchNorm and
    LeakyReLU(0.2) (also the first, as the text says), then a dense layer. The sigmoid lives in the loss, where its
    logarithm is computed without overflow; the mathematics is the paper's.

    ``first_norm=False`` leaves out the first BatchNorm, after Radford et al. (2015), and gives that layer a bias. Real
    and generated images pass in batches of their own, so a BatchNorm right behind the image takes away brightness and
    contrast before anything can compare them: see chapter 03.
    """

    def __init__(self, image_size: int = 224, width: int = 192, channels: int = 3, first_norm: bool = True):
        super().__init__()
        widths = [channels] + [width * 2**k for k in range(ups(image_size))]
        layers = []
        for k, (a, b) in enumerate(zip(widths, widths[1:])):
            norm = first_norm or k > 0
            layers += [nn.Conv2d(a, b, KERNEL, STRIDE, PADDING, bias=not norm),
                       nn.BatchNorm2d(b) if norm else nn.Identity(), nn.LeakyReLU(0.2)]
        self.down = nn.Sequential(*layers)
        self.dense = nn.Linear(widths[-1] * ROOT * ROOT, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.down(x).flatten(1)).squeeze(1)


def adversarial_loss(logits: Tensor, real: bool) -> Tensor:
    """Binary cross-entropy of ``sigmoid(logits)`` against all-real or all-fake labels (Section III)."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def normalise_brightness(images: Tensor, low: float = 0.01, high: float = 0.99) -> Tensor:
    """Stretch each image (N, C, H, W) so that its 1st and 99th percentiles become -1 and 1.

    The paper says that brightness was normalised (Section III) but not how; percentiles are ours, since they do not
    follow single burnt-in white letters. A constant image becomes 0.
    """
    flat = images.flatten(1)
    cuts = torch.quantile(flat, torch.tensor([low, high], dtype=flat.dtype, device=flat.device), dim=1)
    lo, hi = (c.view(-1, 1, 1, 1) for c in cuts)
    spread = hi - lo
    scaled = 2 * (images - lo) / spread.clamp_min(1e-6) - 1
    return torch.where(spread > 1e-6, scaled, torch.zeros_like(scaled)).clamp(-1, 1)


def crop_and_flip(config: Config, images: Tensor, generator: torch.Generator) -> Tensor:
    """RandomResizedCrop and random horizontal flip (Section III) of images (N, C, S, S), on their device."""
    images = augment.random_resized_crop(images, generator, scale=(config.crop_scale, 1.0),
                                         ratio=(1 / config.crop_aspect, config.crop_aspect))
    return augment.horizontal_flip(images, generator) if config.flip else images


class DCGAN(Method):
    """One DCGAN for the images of one class; the paper trains one for positive and one for negative patients.

    ``synthesize(n, generator)`` gives n grey images (n, 1, S, S) in [-1, 1]: the mean of the three channels that the
    paper's networks work on.
    """

    name = "dcgan"
    generators = ("G",)

    def __init__(self, config: Config, n_images: int, seed: int = 0):
        c = self.config = config
        with seeded(seed, "dcgan", "init"):
            self.networks = {
                "G": init_normal(Generator(c.image_size, c.width, c.latent, c.channels)),
                "D": init_normal(Discriminator(c.image_size, c.width, c.channels, c.first_norm)),
            }
        steps = max(1, math.ceil(c.epochs * n_images / c.batch_size))
        self.stages = [Stage("adversarial", steps=steps, batch_size=c.batch_size, nets=("G", "D"))]

    def optimizers(self, stage: Stage) -> dict[str, OptimizerSpec]:
        c = self.config
        return {net: OptimizerSpec((net,), lr=c.learning_rate, betas=(c.beta1, c.beta2)) for net in ("D", "G")}

    def augment(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """RandomResizedCrop and horizontal flip (Section III), on the device."""
        return {**batch, "image": crop_and_flip(self.config, batch["image"], generator)}

    def repeats(self, step: Step) -> bool:
        return True

    def training_step(self, batch: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        G, D = self.networks["G"], self.networks["D"]
        real = batch["image"].expand(-1, self.config.channels, -1, -1)
        fake = G(step.randn(len(real), self.config.latent))
        # Real and fake go through D apart: in one batch its BatchNorm would mix their statistics.
        d_real, d_fake = D(real), D(fake.detach())
        d_loss = adversarial_loss(d_real, True) + adversarial_loss(d_fake, False)
        step.minimise("D", d_loss)
        with step.frozen("D"):
            g_loss = adversarial_loss(D(fake), True)  # "maximizes the probability of the discriminator mistaking"
        step.minimise("G", g_loss)
        return {"D": d_loss, "G": g_loss, "D(real)": d_real.sigmoid().mean(), "D(fake)": d_fake.sigmoid().mean()}

    def synthesize(self, condition: int, generator: torch.Generator, batch: int = 100) -> Tensor:
        z = torch.randn(condition, self.config.latent, generator=generator, device=generator.device)
        return self.from_noise(z, batch)

    @torch.no_grad()
    def from_noise(self, z: Tensor, batch: int = 100) -> Tensor:
        """Grey images (N, 1, S, S) from noise z (N, latent), with BatchNorm's running statistics."""
        G = self.networks["G"]
        device, training = next(G.parameters()).device, G.training
        G.eval()
        images = torch.cat([G(part.to(device)).mean(1, keepdim=True) for part in z.split(batch)])
        G.train(training)
        return images

    def sample_grid(self, generator: torch.Generator) -> Tensor:
        return self.synthesize(16, generator)


def parameter_table(image_size: int = 224, width: int = 192) -> list[dict]:
    """What the paper's own layers add up to: one row per layer that has parameters, nothing is allocated.

    Returns:
        Rows {"network", "layer", "kind", "output" (C, H, W), "parameters"}; the sums are 115.5 and 100.4 million at the
        paper's size, where the paper writes "~30 million" and "approximately 5 million".
    """
    with torch.device("meta"):
        networks = {"generator": (Generator(image_size, width), (1, 100)),
                    "discriminator": (Discriminator(image_size, width), (1, 3, image_size, image_size))}
    rows = [(network, row) for network, (module, shape) in networks.items() for row in layer_shapes(module, shape)]
    return [{"network": network, "layer": row["name"], "kind": row["kind"], "output": tuple(row["shape"][1:]),
             "parameters": row["parameters"]} for network, row in rows if row["parameters"]]


def prepare(slices: SliceSet) -> Tensor:
    """Images (N, 1, S, S) in [-1, 1] with normalised brightness, from a set of slices."""
    return normalise_brightness(torch.from_numpy(slices.images))


def train_all(config: Config, images: dict[str, Tensor], out, *, seed: int = 0, device="auto", resume: bool = True,
              checkpoint=None) -> tuple[dict[str, DCGAN], dict[str, FitResult]]:
    """One DCGAN per class, as the paper's abstract has it, in folders of ``out``; or all of them from a checkpoint.

    Args:
        images: class name -> training images (N, 1, S, S).
        checkpoint: file written by an earlier call (``out/checkpoints/dcgan.safetensors``), or a folder with one file a
            generator; nothing is trained then, and the discriminators, which only training needs, stay as they begin.

    Returns:
        class name -> method with trained networks; class name -> what ``fit`` returned (empty with a checkpoint).
    """
    methods = {name: DCGAN(config, len(x), derive(seed, name)) for name, x in images.items()}
    nets = {f"{name}.{net}": module for name, m in methods.items() for net, module in m.networks.items()}
    expect = {"chapter": "03_dcgan", "image_size": config.image_size, "width": config.width}
    results = {}
    if checkpoint is not None:
        trained = {name: net for name, net in nets.items() if name.rpartition(".")[2] in DCGAN.generators}
        load_weights(checkpoint, trained, expect={k: str(v) for k, v in expect.items()})
        place = resolve_device(device)
        for module in nets.values():
            module.to(place)
        return methods, results
    for name, method in methods.items():
        steps = method.stages[0].steps
        results[name] = fit(
            method, {"image": images[name]}, Path(out) / "training" / name, seed=derive(seed, name), device=device,
            resume=resume, log_every=max(1, steps // 100), sample_every=max(1, steps // 4),
            identity={"chapter": "03_dcgan", "class": name, **config.as_dict()})
    save_weights(Path(out) / "checkpoints" / "dcgan.safetensors", nets, {**expect, "seed": seed})
    return methods, results


def judged_sets(method: DCGAN, judge: classifiers.Classifier, config: Config, *, seed: int = 0,
                key: str = "sets") -> tuple[np.ndarray, np.ndarray]:
    """The paper's test (Section IV, Fig. 7): ``sets`` sets of ``set_size`` images, each judged.

    Returns:
        images float32 (sets, set_size, 1, S, S) and the judge's probabilities (sets, set_size) of the last class.
    """
    images, probabilities = [], []
    for k in range(config.sets):
        made = method.synthesize(config.set_size, torch_generator(seed, key, k)).cpu()
        images.append(made.numpy())
        probabilities.append(classifiers.predict(judge, made)[:, -1])
    return np.stack(images), np.stack(probabilities)


def train_judge(config: Config, images: Tensor, labels: np.ndarray, *, seed: int = 0, device="auto",
                steps: int | None = None) -> tuple[classifiers.Classifier, dict]:
    """The judge of ``config``, trained on ``images`` with the augmentation that the generators' images saw.

    ``steps`` replaces the ``judge_epochs`` of the config.
    """
    judge = classifiers.build(config.judge, weights=None if config.judge_weights == "none" else config.judge_weights,
                              seed=seed)
    history = classifiers.train_classifier(
        judge, images, labels, epochs=None if steps else config.judge_epochs, steps=steps, batch_size=JUDGE_BATCH,
        seed=seed, augment=partial(crop_and_flip, config), device=resolve_device(device))
    return judge, history


def compare_arms(config: Config, images: Tensor, labels: np.ndarray, split: Split, synthetic: dict[str, Tensor], *,
                 seed: int = 0, device="auto") -> dict[str, np.ndarray]:
    """The judge's network on held-out patients, trained on real slices and on real plus synthetic ones.

    Both arms take the same number of steps, from the same initial weights, once for each of ``arms_seeds`` seeds.

    Args:
        synthetic: class name -> images, in the order of the labels.

    Returns:
        {"real": ..., "real_plus_synthetic": ...}, each float64 (arms_seeds, test slices), 1 where the class was right.
    """
    real, truth = images[split.train], labels[split.train]
    added = torch.cat(list(synthetic.values()))
    added_labels = np.repeat(np.arange(len(synthetic)), [len(x) for x in synthetic.values()])
    arms = {"real": (real, truth),
            "real_plus_synthetic": (torch.cat([real, added]), np.concatenate([truth, added_labels]))}
    steps = max(1, config.arms_epochs * len(real) // JUDGE_BATCH)
    correct = {}
    for arm, (x, y) in arms.items():
        answers = []
        for k in range(config.arms_seeds):
            judge, _ = train_judge(config, x, y, seed=derive(seed, "arm", k), device=device, steps=steps)
            answers.append(classifiers.predict(judge, images[split.test]).argmax(1) == labels[split.test])
        correct[arm] = np.array(answers, dtype=float)
    return correct


def nearest_training(images: Tensor, train: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The most similar training image of each image, mirrored or not, and its Pearson correlation over pixels.

    Args:
        images: (N, 1, S, S). train: (M, 1, S, S).

    Returns:
        index int64 (N,) into ``train``, and correlation float32 (N,) in [-1, 1].
    """
    return nearest(images, train, mirrored=True)
