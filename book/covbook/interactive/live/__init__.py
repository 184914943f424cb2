"""Trained networks that run in the reader's page: no kernel, no server, nothing fetched from outside.

A cell of a chapter describes what a network is given and shows a still picture::

    live.painter(run, method, test.subset(some), question="Does the rest of the lung move?")

The notebook's output holds the picture, and, in a part of its own (``MIME``), the network's graph as ONNX without its
weights (see ``graphs``) and what the page shows. While the book is built, ``covbook.sphinx.live`` puts the weights back
from the run's checkpoints and writes graph and weights beside the page, as scripts, so that a page opened as a file
finds them too. They are loaded when the reader asks. In JupyterLab the same tool is a widget over the network that the
kernel holds (``desk``); in print and without JavaScript the picture stays.
"""

import base64
import gzip
import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from covbook.interactive.live import desk, graphs, networks, volumes
from covbook.interactive.viewers import Viewer, data_url, eight_bits
from covbook.plots.style import as_array
from covlib.data.hu import window
from covlib.data.label_maps import BACKGROUND, CONSOLIDATION, GGO, LUNG
from covlib.errors import ConfigError, DataError
from covlib.papers.cgan3d.conditions import pixelate, poisson_noise
from covlib.papers.cgan3d.restoration import NonLocalMeans
from covlib.seeding import rng

MIME = "application/vnd.covlib.live+json"
LIMIT = 5_000_000  # bytes of a network in a page
PATIENTS = 4  # whom a reader can choose from
STILL = 224  # pixels of a still picture's panel, about
LOW, STEP = -1024, 8  # HU of a volume's darkest voxel in a page, and of a step of its 8 bits
COLOURS = {BACKGROUND: "#000000", LUNG: "#0b4a6f", GGO: "#e69f00", CONSOLIDATION: "#d55e00"}  # after Okabe and Ito


@dataclass(frozen=True, repr=False)
class Live(Viewer):
    """A place in a page for a network. ``payload``: what the page's build makes the network's script of. ``tool``:
    makes the widget that is shown in JupyterLab."""

    payload: dict[str, Any] = field(default_factory=dict)
    tool: desk.Tool | None = None

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        if self.tool is not None and desk.there():
            return self.tool()._repr_mimebundle_()
        found = {"text/html": self.page, "text/plain": repr(self)}
        return found | ({MIME: self.payload} if self.payload else {})


def painter(run, method, slices, *, name: str, question: str, labels: Sequence[tuple[int, str]] = (),
            beside: tuple[str, str] | None = None) -> Live:
    """A patient's map to paint lesions on; the network draws the lung, and what changed against the unpainted map.

    Args:
        run: the chapter's run, which names the network. method: trained; one of ``networks.METHODS`` that reads maps.
        slices: ``Paired``: images (N, 1, S, S) in [-1, 1] that surround the lungs, and maps (N, S, S). Of the first
            ``PATIENTS`` patients the slice with most lung is taken.
        name: of this network among the chapter's. question: what the reader can find out, above the picture.
        labels: (label, its name) that can be painted; by default chapter 04's.
        beside: another page's network to draw the same map, and its name for the reader.

    Raises:
        DataError: images and maps that do not fit together.
    """
    maps, images = as_array(slices.maps, name).astype(np.uint8), as_array(slices.images, name)[:, 0]
    if maps.shape != images.shape or not len(maps):
        raise DataError(f"live: {name} has maps of shape {maps.shape} and images of {images.shape}; one image for each "
                        "map, of equal size, is wanted")
    chosen = _one_each(slices.patients, maps)
    maps, images = maps[chosen], images[chosen]
    labels = labels or ((GGO, "ground-glass opacity"), (CONSOLIDATION, "consolidation"))
    brushes = [{"value": k, "name": text, "colour": COLOURS[k]} for k, text in ((LUNG, "healthy lung"), *labels)]
    data = {"size": maps.shape[-1], "title": _title(method), "beside": beside, "labels": brushes,
            "patients": [{"map": _bytes(m), "around": _bytes(eight_bits(x))} for m, x in zip(maps, images)],
            "hu_per_grey": slices.hu_window[1] / 2 if slices.hu_window else None}
    exported = networks.exportable(method)
    draw = lambda one: _answer(exported, one[None].astype(np.float32))[0, 0]
    drawn = draw(maps[0])
    tool = partial(desk.paint, question, draw, maps, images, brushes, _coloured)
    lung = maps[0] > BACKGROUND
    still = [_coloured(maps[0]), _grey(np.where(lung, drawn, images[0]))]
    words = f"A map of a held-out patient's lung and lesions, and the slice with the lung that {_title(method)} draws"
    return _live(run, "paint", name, exported, data, still, words, question,
                 "In the book's page the map can be painted on, and the network draws the lung as you paint", tool)


def translator(run, method, images, *, name: str, question: str, source: str) -> Live:
    """An X-ray that the network turns into one with COVID-19, what changed, and the reader's own picture.

    Args:
        run, name, question: as ``painter``. method: a ``CycleGAN``. source: what its source class is called.
        images: held-out ones of that class, (N, 1, S, S) in [-1, 1]; the first ``PATIENTS`` are shown.
    """
    given = np.clip(as_array(images, name)[:PATIENTS, 0].astype(np.float32), -1, 1)
    who = "virtual patients" if run.data_kind == "phantom" else "the patients of this chapter"
    data = {"size": given.shape[-1], "title": _title(method), "what": f"{source} to COVID-19", "who": who,
            "images": [_bytes(eight_bits(x)) for x in given]}
    exported = networks.exportable(method)
    draw = lambda one: _answer(exported, one[None, None].astype(np.float32))[0, 0]
    made = draw(given[0])
    words = f"A held-out X-ray, {source}, and what {_title(method)} makes of it: one with COVID-19"
    return _live(run, "translate", name, exported, data, [_grey(given[0]), _grey(made)], words, question,
                 "In the book's page the network translates other patients, and pictures that you drop on it",
                 partial(desk.translate, question, draw, given))


def walk(run, method, *, name: str, question: str, what: str, seed: int = 0, real=None) -> Live:
    """Four samples of a generator from noise, two sliders between them, how much each step of a walk changes, and what
    the discriminator believes of each picture; the page does without where it was not trained in this run, or stands
    on a pretrained network.

    Args:
        run, name, question: as ``painter``. method: a ``DCGAN``. what: of which class it makes images. seed: of the two
            samples of the still picture. real: held-out images (N, 1, S, S) of that class in [-1, 1], for the belief
            that they meet with.
    """
    exported = networks.exportable(method)
    noise = rng(seed, "walk").standard_normal((2, 1, method.config.latent)).astype(np.float32)
    draw = lambda z: _answer(exported, z)[0, 0]
    made = [draw(z) for z in noise]
    data = {"size": made[0].shape[-1], "latent": noise.shape[-1], "title": _title(method), "what": what}
    trained = run.checkpoint is None and method.config.discriminator != "projected"
    judge = networks.dcgan_judge(method) if trained else None
    if judge is not None and real is not None:
        data["real"] = float(np.median(_answer(judge, as_array(real, name).astype(np.float32))))
    believe = None if judge is None else lambda one: float(_answer(judge, one[None, None].astype(np.float32)).mean())
    words = f"Two samples of {_title(method)}, {what}"
    return _live(run, "walk", name, exported, data, [_grey(x) for x in made], words, question,
                 "In the book's page two sliders lead from one sample to the next",
                 partial(desk.walk, question, draw, believe, noise.shape[-1], seed),
                 more={} if judge is None else {"judge": judge})


def restorer(run, methods, case, *, name: str, question: str) -> Live:
    """A piece of a held-out scan, made noisy or coarse by a slider; the networks restore it, with errors and PSNR.

    Args:
        run, name, question: as ``painter``. methods: "denoise" and "depixelate" (or one of them) -> a ``CGAN3D``.
        case: a ``Case`` with a lung mask; the piece with most lung in it is shown, of ``volumes.shape_for`` the config.
    """
    first, *others = methods
    config = methods[first].config
    hu, lung = _piece(np.asarray(case.hu), np.asarray(case.lung) > 0, volumes.shape_for(config))
    packed = np.clip(np.rint((hu - LOW) / STEP), 0, 255).astype(np.uint8)
    level = int(lung.sum((1, 2)).argmax())
    still = [_grey(window(packed[level].astype(np.float32) * STEP + LOW))]
    words = f"A slice through a piece of a held-out scan, {' x '.join(map(str, hu.shape))} voxels"
    told = "In the book's page sliders add noise or make pixels coarse, and the networks restore the scan"
    try:
        made = {task: volumes.restorer(method) for task, method in methods.items()}
    except ConfigError as error:
        return _still(run, name, still, words, question, f"These networks do not run in a page: {error}")
    virtual = run.data_kind == "phantom"
    means = {"photons": config.photons, "path": config.path_mm, "strength": NonLocalMeans.strength,
             "patch": NonLocalMeans.patch, "reach": NonLocalMeans.distance}
    data = {"volume": _bytes(packed), "shape": hu.shape, "low": LOW, "step": STEP, "title": _title(methods[first]),
            "window": [-600, 1500], "scale": [config.hu_low, config.hu_high], "means": means, "task": first,
            "slice": level, "virtual": virtual, "who": "virtual patient" if virtual else "held-out scan"}
    tool = partial(_desk_of, question, methods, made, hu, level)
    return _live(run, "restore", name, made[first], data, still, words, question, told, tool,
                 more={task: made[task] for task in others})


def _desk_of(question: str, methods, made: dict[str, graphs.Exportable], hu: np.ndarray, level: int):
    """``desk.restore`` with the library's own noise and pixels."""
    config = next(iter(methods.values())).config

    def spoil(task: str, volume: np.ndarray, strength: float) -> np.ndarray:
        if task == "depixelate":
            return pixelate(volume, config.pixels)
        return poisson_noise(volume, rng(0, "desk"), photons=photons(strength), path_mm=config.path_mm)

    def photons(strength: float) -> float:
        return config.photons * 10 ** (1 - 2 * strength)  # from a tenth of the noise's power to ten times

    def restored(task: str, given: np.ndarray, strength: float) -> np.ndarray:
        shape = made[task].inputs["noise"].shape
        inputs = [given.astype(np.float32), rng(0, "desk noise").random(shape).astype(np.float32)]
        if "answer" in made[task].inputs:
            inputs.append(NonLocalMeans(photons(strength), config.path_mm)(given).astype(np.float32))
        return _answer(made[task], *inputs)

    return desk.restore(question, {task: partial(restored, task) for task in made}, spoil, hu, level,
                        (config.hu_low, config.hu_high))


def _piece(hu: np.ndarray, lung: np.ndarray, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The piece of a scan with most lung, and its lung; a scan that is too small repeats its last planes."""
    ends = [(0, max(0, n - have)) for n, have in zip(shape, hu.shape)]
    hu, lung = np.pad(hu, ends, mode="edge"), np.pad(lung, ends, mode="edge")
    sums = np.pad(lung, [(1, 0)] * 3).astype(np.int64).cumsum(0).cumsum(1).cumsum(2)
    for axis, n in enumerate(shape):
        lines = np.moveaxis(sums, axis, 0)
        sums = np.moveaxis(lines[n:] - lines[:-n], 0, axis)
    corner = np.unravel_index(sums.argmax(), sums.shape)
    place = tuple(slice(start, start + n) for start, n in zip(corner, shape))
    return hu[place], lung[place]


def _one_each(patients: Sequence[str], maps: np.ndarray) -> list[int]:
    """For each of the first patients, the number of the slice with most lung."""
    lung = (maps > BACKGROUND).sum((1, 2))
    of = {patient: [k for k, other in enumerate(patients) if other == patient] for patient in dict.fromkeys(patients)}
    return [max(slices, key=lambda k: lung[k]) for slices in list(of.values())[:PATIENTS]]


# ---- what all have in common -----------------------------------------------------------------------------------------


def _title(method) -> str:
    return {"global_local": "the global-local network", "cosingan": "CoSinGAN", "cyclegan": "CycleGAN",
            "dcgan": "DCGAN", "cgan3d": "the 3-D conditional GAN"}[method.name]


def _answer(exported: graphs.Exportable, *given: np.ndarray) -> np.ndarray:
    """The network's first output, float32."""
    import torch

    weight = next(exported.network.parameters())
    modes = [(module, module.training) for module in exported.network.modules()]
    exported.network.eval()
    try:
        with torch.no_grad():
            made = exported.network(*(torch.from_numpy(x).to(weight.device) for x in given))
    finally:
        for module, mode in modes:
            module.training = mode
    return (made[0] if isinstance(made, tuple) else made).float().cpu().numpy()


def _live(run, kind: str, name: str, exported: graphs.Exportable, data: dict, still: list[np.ndarray], words: str,
          question: str, without: str, tool: desk.Tool, more: dict[str, graphs.Exportable] | None = None) -> Live:
    """Section and payload; without a payload where the network is too large for a page.

    ``more``: further networks that the page does without where they are too large, or their weights are not there.
    """
    if _numbers(exported) > LIMIT:  # of 8 bits each
        without = f"This network of {_numbers(exported) / 1e6:.0f} million numbers is too large for a page"
        return _still(run, name, still, words, question, without, None, tool)
    payload = {"name": f"{run.chapter}-{name}", "kind": kind, **_packed(exported), "data": data,
               "more": {key: _packed(one) for key, one in (more or {}).items() if _numbers(one) <= LIMIT}}
    return _still(run, name, still, words, question, without, payload, tool)


def _still(run, name: str, still: list[np.ndarray], words: str, question: str, without: str,
           payload: dict[str, Any] | None = None, tool: desk.Tool | None = None) -> Live:
    """A section's still picture, and the line that stands for what a page without the network lacks."""
    page = _SECTION.format(name=f"{run.chapter}-{name}", question=html.escape(question), without=html.escape(without),
                           words=html.escape(words, quote=True), picture=data_url(_row(still), "png"))
    return Live(page, words, payload or {}, tool)


def _numbers(exported: graphs.Exportable) -> int:
    """How many numbers a network has; a page ships them in 32, 16 or 8 bits each, as its size allows."""
    return sum(tensor.numel() for tensor in exported.network.state_dict().values())


def _packed(exported: graphs.Exportable) -> dict[str, Any]:
    graph, weights = graphs.pack(graphs.to_onnx(exported), exported.network.state_dict().values(),
                                 eight=2 * _numbers(exported) > LIMIT)
    return {"inputs": {k: list(v.shape) for k, v in exported.inputs.items()}, "outputs": list(exported.outputs),
            "graph": _bytes(graph), "weights": weights}


_SECTION = """<section class="covlib-live" data-live="{name}" aria-label="{question}">
<p class="covlib-live-question"><strong>{question}</strong></p>
<img class="covlib-live-still" alt="{words}; synthetic." src="{picture}">
<p class="covlib-live-without">{without}.</p>
</section>
"""


def _bytes(data) -> str:
    """Bytes or an array of 8 bits, gzipped, in base64."""
    raw = data if isinstance(data, bytes) else np.ascontiguousarray(data, np.uint8).tobytes()
    return base64.b64encode(gzip.compress(raw, 9, mtime=0)).decode()


def _grey(picture: np.ndarray) -> np.ndarray:
    """(H, W) in [-1, 1] as 8-bit colour."""
    return np.repeat(eight_bits(np.clip(picture, -1, 1))[..., None], 3, -1)


def _coloured(labels: np.ndarray) -> np.ndarray:
    """A map (H, W) as 8-bit colour."""
    colours = np.array([[int(c[k : k + 2], 16) for k in (1, 3, 5)] for c in COLOURS.values()], np.uint8)
    return colours[labels]


def _row(panels: list[np.ndarray]) -> np.ndarray:
    """Panels (H, W, 3) side by side, enlarged by a whole number, with white between them."""
    times = max(1, round(STILL / panels[0].shape[0]))
    large = [np.repeat(np.repeat(panel, times, 0), times, 1) for panel in panels]
    gap = np.full((large[0].shape[0], 8, 3), 255, np.uint8)
    return np.concatenate([part for panel in large for part in (panel, gap)][:-1], 1)
