"""Was the game played? What ``covlib.training.health`` reads from the logs, kept and shown alike in every chapter."""

from dataclasses import fields, replace
from typing import Any

from covbook.plots import style
from covbook.tables import Table
from covlib.errors import DataError
from covlib.judges.features import get_extractor
from covlib.metrics.generative import fid
from covlib.metrics.spectrum import detail_ratio, grid_peak
from covlib.training.health import CHANCE, PERFECT, Health, health

LENGTHS = ("steps", "epochs", "epochs_global", "epochs_local", "epochs_joint", "epochs_constant", "epochs_first",
           "epochs_second")
# What goes with a paper's own discriminator, where a Config has it.
PAPERS = {"gan_loss": "least_squares", "lambda_fm": 10.0, "lambda_l1": 0.0, "diff_augment": False}
OURS, THEIRS = "projected (ours)", "the paper's discriminator"
NAMES = {"projected": OURS, "paper": THEIRS, "detail": "shown detail (ours)",
         "spectral": "spectral norm (ours)"}  # by a Config's ``discriminator``
KEYS = {name: key for key, name in NAMES.items()}
HEAD = ["network", "discriminator", "right about real", "right about synthetic", "AUC", "through D / reconstruction",
        ""]
WORDS = {"at chance": "at chance: nobody played", "perfect": "all but perfect", "plays": "it played"}


def twin(config):
    """The settings of a twin with the paper's discriminator, or with ``config.twin_discriminator`` where a Config
    has one: the same generator and data, ``config.twin`` times as many steps, chosen to take about the same minutes.
    None where there is none: the config's own is the twin's, say."""
    other = getattr(config, "twin_discriminator", "paper")
    if config.discriminator == other or not config.twin:
        return None
    known = {field.name for field in fields(config)}
    counted = ("steps",) if "steps" in known and config.steps else LENGTHS
    longer = {name: round(config.twin * getattr(config, name)) for name in counted if name in known}
    papers = {name: value for name, value in PAPERS.items() if name in known} if other == "paper" else {}
    return replace(config, discriminator=other, twin=0.0, **longer, **papers)


def named(config, result, other, twin_result) -> dict:
    """Name of each discriminator -> what ``fit`` returned of its training, as ``interactive.film`` takes them.

    Args:
        result, twin_result: of ``fit``; None where nothing was trained. other: the twin's settings.
    """
    pairs = ((config, result), (other, twin_result))
    return {name_of(c): r for c, r in pairs if c is not None and r is not None}


def logs(config, result, other, twin_result) -> dict[str, dict]:
    """As ``named``, of the logs alone: what ``keep`` and ``plots.right_curves`` take."""
    return {name: r.log for name, r in named(config, result, other, twin_result).items()}


def keep(run, logs: dict[str, dict]) -> Table:
    """Metrics and warnings of each network's last adversarial stage, and a table of them.

    Args:
        logs: name of a network -> ``FitResult.log``; "projected (ours), from pneumonia" is a network of another class,
            whose metrics are called by that. Empty where a checkpoint was given: nothing was trained.
    """
    rows = []
    for name, log in logs.items():
        for one in health(log):
            called = KEYS.get(name, name.rpartition(", from ")[2])
            key = f"{called}_{one.discriminator}".lower().replace(" ", "_").replace("-", "_")
            how = f"mean over the last third of stage {one.stage}, of batches as they were trained on"
            run.metric(f"d_right_real_{key}", one.real, how=how)
            run.metric(f"d_right_synthetic_{key}", one.synthetic, how=how)
            run.metric(f"d_auc_{key}", one.auc, how=f"pairs within a batch, {how}")
            if one.ratio == one.ratio:
                run.metric(f"d_gradient_ratio_{key}", one.ratio, how="lengths of gradients at the generator's output: "
                           f"what passes through D, feature matching too, over the reconstruction; {how}")
            if one.warning:
                run.note(f"{name}: {one.warning}")
            rows.append(_row(name, one))
    note = (f"Last third of the training; it played if it was right about {100 * CHANCE:.0f} to {100 * PERFECT:.0f} % "
            "of images." if rows else "A checkpoint was given: nothing was trained.")
    return Table(HEAD, rows, note=note, right=tuple(HEAD[2:6])).of_this_run()


def name_of(config) -> str:
    """What the network trained with these settings is called beside its twin."""
    return NAMES[config.discriminator]


def compare(run, real, made: dict[str, Any], *, masks=None, how: str = "") -> Table:
    """Sets of synthetic images beside as many real ones: Fréchet distance by ImageNet's Lite2 (never the network of the
    projected discriminator), detail and grid inside the masks; each kept as a metric.

    Args:
        real: (N, 1, H, W) in [-1, 1], of held-out patients. made: name -> as many images; what is named after no
            discriminator ("painted") is a network's rival. masks: (N, H, W), above 0
            where texture is looked at, the same for real and synthetic; None: everywhere. how: of which images.
    """
    real = style.as_array(real)
    if len(real) < 2:
        raise DataError(f"{len(real)} held-out image; at least 2 are needed for a Fréchet distance")
    extractor = get_extractor("lite2", n=len(real))
    words = f"{extractor.words}{f'; {how}' if how else ''}"
    features, rows = extractor(real), []
    for name, images in made.items():
        images, key = style.as_array(images), f"{KEYS[name]}_discriminator" if name in KEYS else name
        if images.shape != real.shape:
            raise DataError(f"{name}: images {images.shape} beside real ones {real.shape}; as many are wanted, of the "
                            "same size")
        distance = run.metric(f"fid_{key}", fid(features, extractor(images)), n=len(real), how=words)
        try:
            detail = detail_ratio(real, images, masks, masks)
            grid = max(grid_peak(images, masks).values())
            run.metric(f"detail_{key}", detail, n=len(real),
                       how="power inside the lungs, upper half of the frequencies, synthetic over real")
            texture = [f"{detail:.2f}", f"{grid:.1f}"]
        except DataError as error:  # lungs smaller than a patch
            run.note(f"{name}: {error}")
            texture = ["too small to say"] * 2
        rows.append([name, f"{distance:.3g}", *texture])
    return Table(["discriminator", "Fréchet distance", "detail (1: as real)", "grid (1: none)"], rows,
                 note=f"{words}; n = {len(real)} each.", right=("Fréchet distance",)).of_this_run()


def _row(name: str, one: Health) -> list[str]:
    share = lambda value: f"{100 * value:.0f} %"
    ratio = "not told apart" if one.ratio != one.ratio else f"{one.ratio:.2g}"
    return [name, one.discriminator, share(one.real), share(one.synthetic), f"{one.auc:.2f}", ratio, WORDS[one.verdict]]
