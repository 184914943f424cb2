"""What minutes buy, and what an evening buys: pictures by a chapter's recorded networks beside those of a run.

The recorded networks (``covbook.weights``) draw virtual patients whom neither they nor the run have met. Runs of
profiles "long" and "smoke" stand beside the recorded run of profile "cpu", all others beside that of "long".
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from covbook import weights
from covbook.text import duration
from covlib.data.hu import window
from covlib.errors import ConfigError
from covlib.seeding import derive, torch_generator

STRANGERS = 8  # virtual patients made for the comparison, of each class
SHOWN = 6  # pictures of a row
TRAININGS = ("training", "twin", "single scales")  # stages that trained networks


@dataclass(frozen=True)
class Beside:
    """Pictures of a recorded run: ``entry`` tells which, ``rows`` label -> images (N, 1, S, S) in [-1, 1], each row's
    n-th picture of the same virtual patient where there is one."""

    entry: weights.Recorded
    rows: dict[str, Tensor]

    @property
    def words(self) -> str:
        """What it cost, in words: "64 px, 900 steps, all trainings 3 min"."""
        of = self.entry.result
        return cost(of["chapter"], self.rows, of["weights"], of["times"]["stage_seconds"])


def cost(chapter: str, rows: dict[str, Tensor], said: dict[str, str], stages: dict[str, float], result=None) -> str:
    """Size of the pictures, steps of the network that drew them (from what a run says of its weights: as a number a
    result file has them nowhere, and settings that count epochs need the data to tell), minutes that all trainings of
    the run took; where they were taken up from an earlier run, whose minutes no stage has counted, those of this
    network's training: ``result``, of ``fit``."""
    text = next((text for name, text in said.items() if name.startswith(DRAWERS[chapter][1])), "")
    found = re.match(r"trained here, ([0-9,]+) steps", text)
    minutes = f"all trainings together {duration(sum(stages.get(stage, 0.0) for stage in TRAININGS) / 60)}"
    if result is not None and result.resumed_from is not None:
        minutes = f"in {duration(result.seconds / 60)}, in several sittings"
    steps = int(found[1].replace(",", "")) if found else 0
    trained = f"{steps:,} steps, {minutes}" if found else "weights from a checkpoint"
    return f"{next(iter(rows.values())).shape[-1]} px, {trained}"


def recorded(run, chapter: str | None = None, profile: str | None = None) -> Beside | None:
    """Pictures by the recorded networks of the run's chapter (or of ``chapter``), of the other length (or of
    ``profile``); None where there are none, or they are damaged or of another build, which the run notes."""
    chapter, wanted = chapter or run.chapter, profile or ("cpu" if run.profile in ("smoke", "long") else "long")
    entry = next((e for e in weights.entries(chapter) if e.result["profile"] == wanted and not e.overrides), None)
    if entry is None:
        return None
    try:
        weights.check(entry)
        return Beside(entry, DRAWERS[chapter][0](entry, run))
    except ConfigError as error:
        run.note(f"The recorded networks of {chapter}, profile {wanted}, are not shown: {error}")
        return None


def figure(run, own: dict[str, Tensor], result=None):
    """The run's own pictures above the recorded ones, each block under what it cost; its own alone where no recorded
    networks can be had.

    Args:
        own: label -> images (N, 1, S, S) in [-1, 1], as ``Beside.rows``. result: what ``fit`` returned of the network
            that drew them; None where a checkpoint was given.
    """
    from covbook import plots

    blocks = [(f"This run ({run.profile}): {cost(run.chapter, own, run.weights, run.stage_seconds, result)}", own)]
    if (other := recorded(run)) is not None:
        order = own if set(own) == set(other.rows) else other.rows  # of classes, as the run has them
        rows = {name: other.rows[name] for name in order}
        blocks.append((f"Recorded (profile {other.entry.result['profile']}): {other.words}", rows))
    return plots.picture_blocks([(title, {name: x[:SHOWN] for name, x in rows.items()}) for title, rows in blocks])


def evenings(run):
    """What the recorded networks of each paper's chapter draw, a row a chapter under what it cost; None where none can
    be had. Of each chapter's rows one is shown: what its networks made, of patients with COVID-19 where there are two
    classes. Those of profile "long"; of "cpu" in a run at "smoke", which is to be quick."""
    from covbook import plots

    profile = "cpu" if run.profile == "smoke" else "long"
    blocks = []
    for chapter in DRAWERS:
        if (one := recorded(run, chapter, profile)) is not None:
            label = next((name for name in one.rows if "covid" in name), list(one.rows)[-1])
            blocks.append((f"Chapter {chapter[:2]}: {one.words}", {label: one.rows[label][:SHOWN]}))
    return plots.picture_blocks(blocks, note="Virtual patients whom the networks have not met; none picked.") \
        if blocks else None


# ---- what each chapter's networks draw -------------------------------------------------------------------------------


def _config(entry: weights.Recorded, cls, **changed):
    known = set(cls.__dataclass_fields__)
    settings = {name: value for name, value in (entry.result["config"] or {}).items() if name in known}
    return cls.for_profile(entry.result["profile"], settings | changed)


def _seed(entry: weights.Recorded) -> int:
    """A seed of virtual patients whom the recorded run has not met."""
    return derive(entry.result["seed"], "strangers")


def _dcgan(entry, run) -> dict[str, Tensor]:
    from covlib.papers import dcgan

    config = _config(entry, dcgan.Config)
    methods, _ = dcgan.train_all(config, None, run.out, device=run.device, checkpoint=entry.checkpoint)
    chance = torch_generator(_seed(entry), device=run.device)
    return {f"synthetic, {name}": method.synthesize(SHOWN, chance).cpu() for name, method in methods.items()}


def _global_local(entry, run) -> dict[str, Tensor]:
    from covbook.chapters.global_local import experiment
    from covlib.data import label_maps
    from covlib.papers.global_local.method import Config

    config = _config(entry, Config, patients=STRANGERS, slices_per_patient=1)
    roles = experiment.prepare(config, "phantom", _seed(entry))
    methods, _ = experiment.train(config, roles, run.out, names=("global_local",), device=run.device,
                                  checkpoint=entry.checkpoint)
    drawn = experiment.synthesize(methods["global_local"], roles.slices.maps[:SHOWN], _seed(entry))
    real, maps = roles.slices.images[:SHOWN], roles.slices.maps[:SHOWN]
    return {"virtual slice": real, "lungs drawn from its map": label_maps.complete(drawn, real, maps)}


def _cosingan(entry, run) -> dict[str, Tensor]:
    from covbook.chapters.cosingan import experiment, roles
    from covlib.papers import cosingan
    from covlib.papers.cosingan.slices import ternary

    config = _config(entry, roles.Config, patients=2 * STRANGERS, slices_per_patient=1)
    dealt = roles.prepare(config, "phantom", _seed(entry))
    method, _ = cosingan.train(config, dealt.singles[1], run.out, device=run.device, checkpoint=entry.checkpoint)
    ill = dealt.slices.infected()
    images, conditions = ill.images[:SHOWN], ternary(ill.maps[:SHOWN])
    return {"virtual slice": images, "drawn from its mask": experiment.synthesize(method, conditions, _seed(entry))}


def _cyclegan(entry, run) -> dict[str, Tensor]:
    from covlib.papers.cyclegan.config import Config
    from covlib.papers.cyclegan.method import train_all
    from covlib.phantom import phantom_xrays

    config = _config(entry, Config)
    methods, _ = train_all(config, None, run.out, device=run.device, checkpoint=entry.checkpoint)
    source = config.sources[0]
    xrays = phantom_xrays(SHOWN, size=config.image_size, seed=_seed(entry), labels=(source,))
    images = torch.from_numpy(xrays.images)
    return {source: images, "translated": methods[source].synthesize(images).clamp(-1, 1).cpu()}


def _cgan3d(entry, run) -> dict[str, Tensor]:
    from covlib.data.equalise import fit_equaliser
    from covlib.papers.cgan3d.conditions import pixelate
    from covlib.papers.cgan3d.method import restore_volume
    from covlib.papers.cgan3d.noise import NoiseModel
    from covlib.phantom import generate

    model = NoiseModel.load(entry.checkpoint, run.device)
    config = model.depixelate.config
    thick, rows = config.block, {"original": [], "pixelated": [], "restored": []}
    for k, label in enumerate(("normal", "covid")):
        whole = generate(k, seed=_seed(entry), label=label, shape=config.shape)
        start = (len(whole.hu) - thick) // 2 // 2 * 2
        slab = whole.hu[start : start + thick]
        low = pixelate(slab, config.pixels)
        curve = fit_equaliser(low, floor=config.floor)
        made = restore_volume(model.depixelate, low, curve, seed=_seed(entry))
        for row, volume in zip(rows.values(), (slab, low, made)):
            row += [window(volume[z]) for z in (thick // 4, thick // 2, 3 * thick // 4)]
    return {name: torch.from_numpy(np.stack(row))[:, None] for name, row in rows.items()}


# Chapter -> what draws, and how the name of its weights begins.
DRAWERS: dict[str, tuple[Callable, str]] = {
    "03_dcgan": (_dcgan, "DCGAN"), "04_global_local": (_global_local, "global_local"),
    "05_cosingan": (_cosingan, "cosingan"), "06_cyclegan": (_cyclegan, "CycleGAN"),
    "07_cgan3d": (_cgan3d, "depixelate")}
