"""What chapter 08 compares, and its settings; needs no PyTorch, so that arms can be listed at once."""

from dataclasses import dataclass

from covlib.config import Config as BaseConfig
from covlib.errors import ConfigError

CHAPTER = "08_side_by_side"
TASKS = {"mask": "a slice from a mask", "noise": "a slice from noise and a class",
         "translate": "an X-ray of one class from one of another"}
TARGET = "covid"


@dataclass(frozen=True)
class Entry:
    """One method in one task.

    Attributes:
        arm: "<task>-<name>". title: as the table has it. module: where the method is; "" for a control, which is not
            trained. about: what a control does. volumes: whether it learns from whole scans.
    """

    arm: str
    title: str
    module: str = ""
    about: str = ""
    volumes: bool = False

    @property
    def task(self) -> str:
        return self.arm.split("-", 1)[0]

    @property
    def name(self) -> str:
        return self.arm.split("-", 1)[1]


_ALL = (
    Entry("mask-real", "real slices", about="real slices of held-out patients stand in for synthetic ones"),
    Entry("mask-painted", "painted", about="every label filled with its mean grey"),
    Entry("mask-global_local", "global-local", "covlib.papers.global_local.method"),
    Entry("mask-cosingan", "CoSinGAN", "covlib.papers.cosingan.method"),
    Entry("mask-pix2pix", "pix2pix", "covlib.baselines.pix2pix"),
    Entry("mask-pix2pixhd", "pix2pixHD", "covlib.baselines.pix2pixhd"),
    Entry("mask-spade", "SPADE", "covlib.baselines.spade"),
    Entry("mask-sean", "SEAN", "covlib.baselines.sean"),
    Entry("mask-diffusion", "diffusion", "covlib.baselines.diffusion"),
    Entry("noise-real", "real slices", about="real slices of held-out patients stand in for synthetic ones"),
    Entry("noise-memoriser", "memoriser", about="training images with a little noise: planted, to be caught"),
    Entry("noise-dcgan", "DCGAN", "covlib.papers.dcgan.method"),
    Entry("noise-cgan3d", "3-D GAN", "covlib.papers.cgan3d.noise", volumes=True),
    Entry("noise-diffusion", "diffusion", "covlib.baselines.diffusion"),
    Entry("translate-real", "real X-rays", about="real X-rays of held-out patients stand in for translations"),
    Entry("translate-source", "source, untouched", about="the image to be translated, as it is"),
    Entry("translate-cyclegan", "CycleGAN", "covlib.papers.cyclegan.method"),
)
# A method joins by its line above, and its branch in ``arms.parts`` where it is not built like the others.
ENTRIES = {entry.arm: entry for entry in _ALL}
# Profile "long": the five papers' methods, the diffusion model and all controls; the rivals of the papers stay out.
EVENING = tuple(arm for arm, entry in ENTRIES.items() if not entry.module.startswith("covlib.baselines")
                or entry.name == "diffusion")


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of chapter 08, all ours. A method keeps its own (``Config.for_profile`` of its module) but for image
    size and number of steps."""

    arms: tuple[str, ...] = tuple(ENTRIES)
    seconds: float = 3600.0  # of training for each arm, on the machine of the recorded costs
    steps: int = 0  # the same number of steps for every arm instead; 0: what the seconds buy
    patients: int = 400  # virtual patients, half of them with COVID-19
    slices_per_patient: int = 4
    xray_patients: int = 600
    cap_real: bool = False  # for short runs: take no more real patients than there are virtual ones
    lesion_contrast: float = 0.3  # of the virtual patients whom the judge of "noise" is asked about; 1: as they are
    fractions: tuple[float, float, float] = (0.5, 0.25, 0.25)  # of patients: training, conditions, test
    mask_size: int = 256
    noise_size: int = 224
    xray_size: int = 256
    extractor: str = "lite2-48"  # of FID and KID; a block of few features, since test sets are small
    folds: int = 10  # of the jackknife intervals
    audits: int = 20  # of each share of copies, in the power of the privacy audit
    pairs: int = 200  # of images whose MS-SSIM is averaged
    judge: str = "resnet18"  # classifier of the use in noise and translate; "small" for short trainings
    judge_steps: int = 600
    unet_width: int = 32
    unet_steps: int = 1500
    unet_batch: int = 16
    unet_rate: float = 1e-3
    unet_weights: tuple[float, ...] = (1.0, 1.0, 2.0, 4.0)  # of background, lung, GGO, consolidation in the loss
    unet_dice: float = 0.0  # weight of a soft Dice loss beside the cross-entropy
    sampling: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100)  # sampling steps of the diffusion model that are compared

    def __post_init__(self):
        if not self.arms:
            raise ConfigError(f"arms: none given; any of {', '.join(ENTRIES)}")
        if unknown := [arm for arm in self.arms if arm not in ENTRIES]:
            raise ConfigError(f"arms: {unknown[0]!r} is not known; valid are {', '.join(ENTRIES)}")
        if not self.seconds > 0 or self.steps < 0:
            raise ConfigError(f"seconds {self.seconds:g}, steps {self.steps}: seconds above 0 and steps of at least 0 "
                              "are wanted")
        if min(self.fractions) <= 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise ConfigError(f"fractions: {list(self.fractions)}; three shares above 0 that sum to 1 are wanted")
        if not 0 < self.lesion_contrast <= 1:
            raise ConfigError(f"lesion_contrast: {self.lesion_contrast}; above 0 and at most 1 is wanted")
        if self.folds < 3:
            raise ConfigError(f"folds: {self.folds}; at least 3 are wanted for an interval")

    @classmethod
    def profiles(cls) -> dict[str, dict]:
        """What each profile changes from the defaults."""
        arms = ("mask-real", "mask-painted", "mask-global_local", "mask-diffusion", "noise-real", "noise-memoriser",
                "noise-dcgan", "noise-diffusion")
        small = {"arms": arms, "judge": "small", "xray_size": 64, "noise_size": 56,
                 "mask_size": 64}
        cpu = small | {"seconds": 12.0, "patients": 80, "xray_patients": 120, "pairs": 200, "judge_steps": 60,
                       "unet_width": 8, "unet_steps": 80, "unet_batch": 8, "unet_rate": 3e-3,
                       "sampling": (1, 2, 4, 10, 20), "cap_real": True}
        return {
            "smoke": small | {"steps": 3, "patients": 24, "slices_per_patient": 2, "xray_patients": 60, "mask_size": 32,
                              "xray_size": 32, "pairs": 10, "judge_steps": 4, "unet_width": 4, "unet_steps": 4,
                              "unet_batch": 4, "sampling": (1, 2), "folds": 3, "cap_real": True, "audits": 2},
            "cpu": cpu,
            "long": cpu | {"arms": EVENING, "seconds": 600.0, "patients": 160, "xray_patients": 240, "mask_size": 128,
                           "noise_size": 112, "xray_size": 128, "pairs": 100, "judge_steps": 150, "unet_steps": 150},
            "gpu": {"seconds": 30.0, "cap_real": True},
            "paper": {"extractor": "inception-64"},
        }


def tasks_of(arms) -> list[str]:
    """The tasks that arms belong to, in order."""
    return [task for task in TASKS if any(ENTRIES[arm].task == task for arm in arms)]


def title(arm: str) -> str:
    """How the reader knows an arm."""
    return ENTRIES[arm].title
