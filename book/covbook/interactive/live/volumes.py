"""Chapter 07's networks as functions of a small volume in HU: what ``covlib.papers.cgan3d.restore_volume`` does, as one
graph of tensors: equalisation along a straight line, overlapping blocks, mirrors. A denoiser's classical start is an
input; the page computes it (``nonLocalMeans`` in ``page/restore.js``).
"""

import math
from functools import reduce
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from covbook.interactive.live.graphs import Exportable
from covbook.interactive.live.parts import SYNTHETIC, Called
from covlib.data.blocks import BlockGrid
from covlib.errors import ConfigError
from covlib.papers.cgan3d.method import MIRRORS

PAPER = "3-D conditional GAN (Mangalagiri et al. 2021)"


def shape_for(config) -> tuple[int, int, int]:
    """A volume (Z, Y, X) of four blocks, two by two, that share what the config's blocks share."""
    side = 2 * config.block - config.overlap
    return config.block, side, side


def restorer(method) -> Exportable:
    """A trained ``CGAN3D`` that denoises or depixelates, as a function of a volume of ``shape_for`` its config.

    The network's noise is an input: (mirrors, blocks, 1, S, S, S), in the order in which ``restore_volume`` draws it.
    A denoiser that starts at a classical method's answer is given that as "answer", in HU.

    Raises:
        ConfigError: a network whose equalisation is not a straight line.
    """
    c, net, shape = method.config, method.networks["G"], shape_for(method.config)
    if c.floor != 1 or c.equalise != "scan":
        raise ConfigError(f"onnx: floor {c.floor:g} and equalise {c.equalise!r}; a network in a page is given one "
                          "straight line a scan (floor 1, equalise 'scan')")
    grid = BlockGrid(shape, c.block, c.overlap)
    mirrors = MIRRORS if c.mirrors and c.task == "denoise" else MIRRORS[:1]

    def work(given: Tensor, noise: Tensor, answer: Tensor | None = None) -> Tensor:
        low, high = given.min(), given.max()
        forward = lambda hu: 2 * (hu.maximum(low).minimum(high) - low) / (high - low) - 1
        turns = lambda blocks: torch.cat([blocks.flip(axes) if axes else blocks for axes in mirrors])
        every = lambda hu: turns(cut(forward(hu), grid))
        made = net(every(given), noise.flatten(0, 1) * 2 - 1, None if answer is None else every(answer)).clamp(-1, 1)
        turned = [part.flip(axes) if axes else part for part, axes in zip(made.split(len(grid)), mirrors)]
        values = blended(reduce(torch.add, turned) / len(mirrors), grid).clamp(-1, 1)
        return torch.round((values + 1) / 2 * (high - low) + low)

    told = {"": f"{PAPER}, {c.task}. {SYNTHETIC}", "given": "(Z, Y, X) in HU",
            "noise": "(mirrors, blocks, 1, S, S, S), uniform from 0 to 1", "answer": "non-local means of it, in HU",
            "restored": "(Z, Y, X) in HU, whole numbers"}
    ramp = torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape) % 1000 - 900
    inputs = {"given": ramp, "noise": torch.zeros(len(mirrors), len(grid), c.noise, *[c.block] * 3)}
    inputs |= {"answer": ramp.flip(0)} if c.started else {}
    return Exportable(Called({"G": net}, work), inputs, ("restored",), told)


def blockwise(method) -> Exportable:
    """Any task's network, block by block, as ``CGAN3D.synthesize`` calls it; its noise is an input."""
    c, net = method.config, method.networks["G"]
    names = ("condition", "noise", *(("answer",) if c.started else ()))

    def work(*inputs: Tensor) -> Tensor:
        given = dict(zip(names, inputs))
        return net(given["condition"], given["noise"], given.get("answer")).clamp(-1, 1)

    grey = "(1, 1, S, S, S), equalised HU from -1 to 1"
    told = {"": f"{PAPER}, {c.task}, one block. {SYNTHETIC}", "condition": grey, "answer": f"{grey}: non-local means",
            "noise": "(1, channels, S, S, S), uniform from -1 to 1", "block": grey}
    # One tensor each: what is one tensor when the graph is traced is one input to it.
    examples = {name: torch.zeros(1, c.noise if name == "noise" else 1, *[c.block] * 3) for name in names}
    return Exportable(Called({"G": net}, work), examples, ("block",), told)


def coarse(method) -> Exportable:
    """The coarse GAN: noise to a small volume of the chest, which ``covlib.papers.cgan3d.noise`` grows."""
    c, net = method.config, method.networks["G"]
    told = {"": f"Coarse GAN beside the {PAPER}. {SYNTHETIC}", "noise": "(1, latent), standard normal",
            "volume": "(1, 1, Z, Y, X), equalised HU from -1 to 1"}
    return Exportable(Called({"G": net}, net), {"noise": torch.zeros(1, c.coarse_latent)}, ("volume",), told)


def cut(volume: Tensor, grid: BlockGrid) -> Tensor:
    """Blocks (N, 1, S, S, S) of a volume (Z, Y, X) without padding, in the order of ``covlib.data.blocks``."""
    b = grid.block
    return torch.stack([volume[z : z + b, y : y + b, x : x + b] for z in grid.starts(0) for y in grid.starts(1)
                        for x in grid.starts(2)])[:, None]


def blended(blocks: Tensor, grid: BlockGrid) -> Tensor:
    """The volume (Z, Y, X) of overlapping blocks, each weighted by its window; of a grid without padding."""
    windows = [torch.from_numpy(grid.window(axis)).float() for axis in range(3)]
    if not grid.overlap:
        windows = [torch.ones_like(window) for window in windows]
    starts = [grid.starts(axis) for axis in range(3)]
    padded = []
    for block, place in zip(blocks[:, 0], product(*(range(len(line)) for line in starts)), strict=True):
        z, y, x = (windows[axis][k] for axis, k in enumerate(place))
        before = [starts[axis][k] for axis, k in enumerate(place)]
        after = [n - s - grid.block for n, s in zip(grid.shape, before)]
        ends = [end for pair in zip(before[::-1], after[::-1]) for end in pair]
        padded.append(F.pad(block * z[:, None, None] * y[:, None] * x, ends))  # no product of windows lies in the graph
    return reduce(torch.add, padded)
