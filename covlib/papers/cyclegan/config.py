"""Settings of chapter 06, apart from the networks so that listing its studies needs no PyTorch."""

from dataclasses import dataclass
from typing import Literal

from covlib.config import Config as BaseConfig
from covlib.errors import ConfigError

CHAPTER = "06_cyclegan"
TARGET = "covid"
GENERATORS = ("resnet", "unet")
LOSSES = ("least_squares", "log", "log_saturating", "hinge")
SHAPE_FIELDS = ("image_size", "channels", "generator", "residual", "width", "blocks", "d_width",
                "d_layers")  # of the weights, and what they do
ARMS = ("real", "real+own", "real+both", "synthetic")  # columns of Tables 1 and 2, in order
REPEATED = "repeated"  # ours, a control: real images alone, those of COVID-19 repeated until the classes are as many
STOPPING = ("test", "validation")  # early stopping: theirs, and ours


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of chapter 06. Defaults are the paper's where it gives a value, otherwise "ours".

    "Notebook" means the authors' public one; "CycleGAN" the method they cite as [16]. Fields that begin with
    ``detect_`` belong to the detection study (covbook.chapters.cyclegan.detect).
    """

    after_training = ("twin",)

    image_size: int = 256
    channels: int = 1  # ours: an X-ray has one; 3 to start from colour files
    per_domain: int = 180  # Section 4.10: 180 samples for each domain
    sources: tuple[str, ...] = ("normal", "pneumonia")  # classes that are translated to COVID-19, one model each
    generator: str = "resnet"  # ours: CycleGAN; "unet" with width 32 is the notebook's
    residual: bool = False  # ours, for short trainings: generators give the change of the image, not the image
    width: int = 64  # ours: CycleGAN
    blocks: int = 9  # ours: CycleGAN for 256 x 256
    discriminator: Literal["paper", "projected"] = "paper"  # ours: covlib.projected, with gan_loss "hinge"
    twin: float = 0.0  # ours: a twin with the paper's discriminator trains so many times as many steps; 0: no twin
    d_width: int = 64  # ours: CycleGAN and notebook
    d_layers: int = 3  # ours: CycleGAN, patches of 70 x 70; 2 sees 34 x 34, for small images
    gan_loss: str = "least_squares"  # ours: notebook and CycleGAN; "log_saturating" is Eqs. 2 and 3 to the letter
    cycle: float = 10.0  # lambda of Eq. 1; ours: notebook and CycleGAN
    identity: float = 1.0  # ours: notebook; the paper's Eq. 1 has no such term (0 leaves it out)
    pool_size: int = 50  # ours: CycleGAN; the notebook has none (0)
    batch_size: int = 16  # ours: notebook
    epochs: int = 100  # ours: notebook
    steps: int = 0  # ours, for short runs: so many in place of the epochs, however many images there are
    decay_from: float = 1.0  # ours: from this share of the training on the learning rate falls to 0; 1: never
    learning_rate: float = 2e-4  # ours: notebook
    beta1: float = 0.5  # ours: notebook
    flip: bool = True  # ours: notebook
    fractions: tuple[float, float] = (0.8, 0.2)  # Section 4.2: train and test, by patient
    detect_models: tuple[str, ...] = ("vgg16", "resnet50", "densenet121", "densenet121+trees")  # "small", "lite2": ours
    detect_weights: str = "imagenet"
    detect_lr: float = 0.001  # Section 4.5, Adadelta
    detect_batch: int = 16
    detect_epochs: int = 50  # ours: at most so many
    detect_patience: int = 5  # ours: epochs without a lower loss before early stopping
    detect_val: float = 0.2  # ours: share of training patients for the proper validation split
    detect_augment: bool = False  # ours: flips, shifts, brightness; the paper names none, small training sets need it
    detect_trees: int = 100  # ours
    # ours: thin out COVID-19 in training until each source class has so many times as many images; 0: as drawn
    train_skew: float = 0.0
    patients: int = 6000  # ours: virtual patients, where data="phantom"
    covid_patients: int = 226  # Section 4.1: so many of them have COVID-19
    cap_real: bool = False  # ours, for short runs: take no more real images than there are virtual patients

    def __post_init__(self):
        multiple = 4 if self.generator == "resnet" else 16
        if self.generator not in GENERATORS:
            raise ConfigError(f"generator: {self.generator!r} is not one of {', '.join(GENERATORS)}")
        if self.image_size < 32 or self.image_size % multiple:
            raise ConfigError(f"image_size: {self.image_size} must be a multiple of {multiple}, from 32")
        if self.channels not in (1, 3):
            raise ConfigError(f"channels: {self.channels} must be 1 or 3")
        if self.gan_loss not in LOSSES:
            raise ConfigError(f"gan_loss: {self.gan_loss!r} is not one of {', '.join(LOSSES)}")
        if self.discriminator == "projected" and self.gan_loss != "hinge":
            raise ConfigError(f"gan_loss: {self.gan_loss!r} beside discriminator 'projected', whose scores have no "
                              "bounds; 'hinge' is wanted, or discriminator 'paper'")
        if not 1 <= self.d_layers <= 4:
            raise ConfigError(f"d_layers: {self.d_layers} must lie between 1 and 4")
        if not 0 <= self.decay_from <= 1:
            raise ConfigError(f"decay_from: {self.decay_from} must lie between 0 and 1")
        if self.pool_size and self.pool_size < self.batch_size:
            raise ConfigError(f"pool_size: {self.pool_size} must be 0 (no pool) or at least batch_size, "
                              f"{self.batch_size}")
        if self.train_skew and self.train_skew < 1:
            raise ConfigError(f"train_skew: {self.train_skew:g} must be 0 (as drawn) or at least 1")
        if not self.sources or TARGET in self.sources:
            raise ConfigError(f"sources: {list(self.sources)} must name classes other than {TARGET}")

    @classmethod
    def profiles(cls) -> dict[str, dict]:
        """What each profile changes from the defaults."""
        small = {"detect_weights": "none", "detect_models": ("small",), "detect_lr": 1.0, "detect_augment": True,
                 "decay_from": 0.5, "generator": "unet", "residual": True, "d_layers": 2, "identity": 0.0,
                 "discriminator": "projected", "gan_loss": "hinge", "twin": 1.0}
        # A change is learnt in few steps, the whole image is not: hence "residual". Identity would hold it back. Rate
        # and beta1: the best of a tuning on other virtual patients.
        cpu = small | {"image_size": 64, "width": 16, "d_width": 32, "per_domain": 48, "batch_size": 2, "epochs": 16,
                       "steps": 384, "learning_rate": 5e-4, "beta1": 0.0, "twin": 2.0, "patients": 260,
                       "covid_patients": 60, "cap_real": True, "fractions": (0.7, 0.3), "detect_epochs": 30,
                       "detect_patience": 15}
        return {
            "smoke": small | {"image_size": 32, "width": 4, "d_width": 8, "per_domain": 8, "batch_size": 4, "epochs": 2,
                              "pool_size": 8, "patients": 60, "covid_patients": 16, "detect_epochs": 2,
                              "cap_real": True},
            "cpu": cpu,
            "long": cpu | {"image_size": 128, "per_domain": 140, "batch_size": 4, "steps": 1200, "twin": 1.1,
                           "d_layers": 3, "patients": 600, "covid_patients": 200},
            "gpu": {"batch_size": 8, "epochs": 60, "decay_from": 0.5, "patients": 1200, "cap_real": True},
            "paper": {},
        }


def training_fields(config: Config) -> dict:
    """The settings that training rests on: all but those of the detection study and of the data's making."""
    others = ("detect_", "patients", "covid_patients", "cap_real", "fractions", "sources", "train_skew")
    return {k: v for k, v in config.as_dict().items() if not k.startswith(others)}
