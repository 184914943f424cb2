"""pix2pixHD, after Wang et al. (2018, arXiv 1711.11585): coarse-to-fine generators, discriminators at three scales.

Rival of Jiang et al. in chapter 04, and the nearest relative of their method. Layers are the paper's appendix, losses
its Eqs. 3 to 5, training its sections 3.2 and 4. For Cityscapes (36 maps in, three channels out) the global generator
has 182.5 million weights, 700 MB in single precision, which is the size that users of the authors' program find on disk
(issue 258 of NVIDIA/pix2pixHD).

What the paper leaves open, or what slices have no use for, and what we do:

* Instances. A label map of a CT slice has none, so there is neither a boundary map nor an encoder of instance features.
* Schedule. The paper trains the global generator, then the local enhancer with the global one frozen, then both, and
  gives no lengths for the first two. All rivals see the same number of images here, so one budget is divided into
  stages "global", "local" and "joint" of a quarter, a quarter and a half (``stage_shares``): the learning rate is
  constant in the first two and falls to zero in the third, which is Jiang et al.'s course over the whole.
* In the stage "global" image and map have half the size, so the discriminators of the two coarser scales judge it: they
  go on judging that size afterwards, and the finest learns with the enhancer.
* Halves of images and one-hot maps are averages over 3x3, as the discriminators' inputs are.
* The perceptual loss is in the paper's section 4 and its appendix, not in its Eq. 5; VGG19 falls back aloud
  (``covlib.losses.FeatureLoss``). The smaller profiles on CPU do without it: one VGG19 pass costs more than
  all of their networks.
* Least squares without Mao et al.'s 1/2, except that the two halves of D's loss are averaged, as for pix2pix.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from covlib.baselines import common
from covlib.baselines.common import (
    FeatureMatcher,
    check_patches,
    discriminate,
    feature_matching,
    logits_of,
    multi_scale_patches,
    over_scales,
    shrink,
)
from covlib.data.label_maps import one_hot
from covlib.errors import ConfigError
from covlib.losses import least_squares
from covlib.nets import ResidualBlock, init_normal, resnet_down, resnet_entry, resnet_exit, resnet_up
from covlib.training.method import Stage, Step

STAGES = ("global", "local", "joint")


@dataclass(frozen=True)
class Config(common.Config):
    """Hyper-parameters. Defaults are Wang et al.'s (size, batch and epochs as Jiang et al.) unless marked "ours"."""

    width: int = 64  # of the global generator; the enhancer's first layer has half of it
    halvings: int = 4  # of the global generator
    blocks: int = 9  # residual blocks of the global generator
    local_blocks: int = 3
    width_d: int = 64
    patch_layers: int = 3  # strided layers of each PatchGAN: 3 see 70x70
    scales: int = 3
    lambda_features: float = 10.0
    lambda_perceptual: float = 10.0  # 0 leaves it out
    stage_shares: tuple[float, float, float] = (0.25, 0.25, 0.5)  # ours: of all steps; 0 leaves a stage out

    def __post_init__(self):
        super().__post_init__()
        check_size(self.image_size, self.halvings)
        check_patches(self.image_size, self.patch_layers, self.scales)
        if self.width % 2:
            raise ConfigError(f"width: {self.width} is odd; the local enhancer has half of it, an even one is wanted")
        if min(self.stage_shares) < 0 or self.stage_shares[2] == 0 or abs(sum(self.stage_shares) - 1) > 1e-6:
            raise ConfigError(f"stage_shares: {self.stage_shares} are not the shares of global, local and joint; they "
                              "must add up to 1, the last above 0")
        if self.stage_shares[0] > 0 and self.scales < 2:
            raise ConfigError(f"scales: {self.scales} leaves the stage 'global' without a discriminator; 2 or more are "
                              "wanted, or stage_shares=0,0,1")

    @classmethod
    def profiles(cls) -> dict[str, dict]:
        """What each profile changes from the paper's values."""
        small = {"scales": 2, "patch_layers": 2, "lambda_perceptual": 0.0}
        cpu = small | {"image_size": 64, "width": 16, "halvings": 2, "blocks": 3, "local_blocks": 1, "width_d": 16}
        return {
            "smoke": small | {"image_size": 32, "width": 8, "halvings": 2, "blocks": 1, "local_blocks": 1, "width_d": 4,
                              "batch_size": 8, "epochs": 1},
            "cpu": cpu,
            "long": cpu | {"image_size": 128, "patch_layers": 3},
            "gpu": {"image_size": 256, "width": 32},
            "paper": {},
        }


def check_size(image_size: int, halvings: int) -> None:
    """Refuse images that the enhancer (one halving) and the global generator (``halvings`` more) cannot take.

    Reflection padding and InstanceNorm want at least 2x2 in the middle. ConfigError naming the sizes that fit.
    """
    if halvings < 1:
        raise ConfigError(f"halvings: {halvings} is too few; 1 or more are wanted")
    unit = 2 ** (halvings + 1)
    if image_size < 2 * unit or image_size % unit:
        raise ConfigError(f"image_size: {image_size} cannot be halved {halvings + 1} times down to 2x2 or more; a "
                          f"multiple of {unit} of at least {2 * unit} is wanted")


class GlobalGenerator(nn.Module):
    """G1: one-hot maps (N, labels, H, W) to images (N, channels, H, W) in [-1, 1], H and W multiples of 2 ** halvings.

    c7s1-64, d128, d256, d512, d1024, R1024 x 9, u512, u256, u128, u64, c7s1-out (appendix).
    ``features_only`` gives what lies before the last layer, (N, width, H, W), which the local enhancer takes.
    """

    def __init__(self, labels: int = 4, channels: int = 1, width: int = 64, halvings: int = 4, blocks: int = 9):
        super().__init__()
        widths = [width * 2**k for k in range(halvings + 1)]
        layers = resnet_entry(labels, width)
        for a, b in zip(widths, widths[1:]):
            layers += resnet_down(a, b)
        layers += [ResidualBlock(widths[-1]) for _ in range(blocks)]
        for a, b in zip(widths[::-1], widths[-2::-1]):
            layers += resnet_up(a, b)
        self.body, self.image = nn.Sequential(*layers), nn.Sequential(*resnet_exit(width, channels))

    def forward(self, condition: Tensor, features_only: bool = False) -> Tensor:
        features = self.body(condition)
        return features if features_only else self.image(features)


class LocalEnhancer(nn.Module):
    """G2: one-hot maps (N, labels, S, S) and G1's features (N, 2 width, S/2, S/2) to images (N, channels, S, S).

    c7s1-32, d64, then the sum with G1's features (section 3.2, Fig. 3), R64 x 3, u32, c7s1-out (appendix).
    ``width`` is the first layer's, half of G1's.
    """

    def __init__(self, labels: int = 4, channels: int = 1, width: int = 32, blocks: int = 3):
        super().__init__()
        self.front = nn.Sequential(*resnet_entry(labels, width), *resnet_down(width, 2 * width))
        self.back = nn.Sequential(*[ResidualBlock(2 * width) for _ in range(blocks)], *resnet_up(2 * width, width),
                                  *resnet_exit(width, channels))

    def forward(self, condition: Tensor, global_features: Tensor) -> Tensor:
        return self.back(self.front(condition) + global_features)


class Pix2PixHD(FeatureMatcher):
    """pix2pixHD on label maps; see ``covlib.baselines.common.MaskToSlice`` for data, steps and synthesis.

    One map gives one image: the method has no noise once the instance features are left out.
    """

    config: Config
    name = "pix2pixhd"
    generators = ("G1", "G2")
    repeating = True

    def build(self, c: Config) -> dict[str, nn.Module]:
        return {"G1": init_normal(GlobalGenerator(c.labels, 1, c.width, c.halvings, c.blocks)),
                "G2": init_normal(LocalEnhancer(c.labels, 1, c.width // 2, c.local_blocks)),
                "D": init_normal(multi_scale_patches(c.labels + 1, c.width_d, c.patch_layers, c.scales))}

    def schedule(self) -> list[Stage]:
        """Global, local, joint; together as many steps as a rival of one stage has."""
        c, nets = self.config, {"global": ("G1", "D"), "local": ("G2", "D"), "joint": ("G1", "G2", "D")}
        early = [int(share * self.steps) for share in c.stage_shares[:2]]
        lengths = [*early, self.steps - sum(early)]
        made = [Stage(name, n, c.batch_size, nets[name]) for name, n in zip(STAGES, lengths) if n]
        # The whole is constant for half of its steps: the joint stage makes up what the others leave of that half.
        constant = max(0, self.steps // 2 - sum(early))
        return [*made[:-1], replace(made[-1], lr_decay="linear", constant_steps=constant)]

    def training_step(self, batch: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        """One step of the generators of this stage, one of the discriminators, both from the weights at its start."""
        real, condition = batch["image"], one_hot(batch["map"])
        coarse = step.stage.name == "global"
        if coarse:
            real, condition = shrink(real), shrink(condition)
            fake = self.networks["G1"](condition)
        else:
            fake = self.paint(condition)
        seen, fakes, reals = discriminate(self.networks["D"], step, condition, fake, real, first=int(coarse))
        losses = {"D": (over_scales(least_squares, reals, True) + over_scales(least_squares, fakes, False)) / 2,
                  "G": over_scales(least_squares, seen, True), "features": feature_matching(seen, reals)}
        step.judged("D", logits_of(reals), logits_of(fakes), 0.5)
        step.minimise("G", self.generators_loss(losses, fake, real))
        step.minimise("D", losses["D"])
        return losses

    def paint(self, condition: Tensor) -> Tensor:
        """Images of full size by G2 from its own view and G1's features."""
        return self.networks["G2"](condition, self.networks["G1"](shrink(condition), features_only=True))

    def generate(self, condition: Tensor, generator: torch.Generator) -> Tensor:
        return self.paint(condition)
