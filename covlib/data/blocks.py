"""Volumes cut into blocks (32x32x32 in Mangalagiri et al., Section III-A) and put together again; how seams show::

    blocks, grid = divide(volume)                     # (N, 32, 32, 32), any size of volume, the ends padded
    volume = stitch(blocks, grid)                     # exactly what it was
    out = apply_blocks(volume, network_fn, overlap=16, out=memmap)         # one slab of blocks in memory at a time

Blocks start at multiples of the stride from voxel 0, so all padding lies at the far ends and a block's first voxel has
an even number whenever the stride is even, as a network needs that undoes a pixelation by two.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from covlib.errors import ConfigError, DataError

BLOCK = 32


@dataclass(frozen=True)
class BlockGrid:
    """Where the blocks of a volume lie.

    Attributes:
        shape: of the volume, (Z, Y, X). block: their side. overlap: voxels that neighbours share along each axis.
    """

    shape: tuple[int, int, int]
    block: int = BLOCK
    overlap: int = 0

    def __post_init__(self):
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise DataError(f"blocks: volume has shape {tuple(self.shape)}; three axes are wanted, none empty")
        if not 1 <= self.block:
            raise ConfigError(f"block: {self.block} is not a side; a whole number of at least 1 is wanted")
        if not 0 <= self.overlap < self.block:
            raise ConfigError(f"overlap: {self.overlap} voxels of {self.block}; 0 to {self.block - 1} are possible")

    @property
    def stride(self) -> int:
        return self.block - self.overlap

    @property
    def counts(self) -> tuple[int, int, int]:
        """Blocks along each axis."""
        z, y, x = (1 + max(0, -(-(n - self.block) // self.stride)) for n in self.shape)
        return z, y, x

    @property
    def padding(self) -> tuple[int, int, int]:
        """Voxels added at the far end of each axis; the last plane is repeated there."""
        z, y, x = (self.block + (c - 1) * self.stride - n for c, n in zip(self.counts, self.shape))
        return z, y, x

    def __len__(self) -> int:
        return int(np.prod(self.counts))

    def starts(self, axis: int) -> list[int]:
        return [k * self.stride for k in range(self.counts[axis])]

    def window(self, axis: int) -> np.ndarray:
        """Weights of the blocks along one axis, float64 (blocks, side): a raised cosine; those of each voxel sum to 1.

        The weight of a voxel in a block is the product over the axes, so these rows are all that is ever stored.
        Divided by their sum, they leave constant and linear volumes as they are.
        """
        one = np.sin(np.pi * ((np.arange(self.block) + 0.5) / self.block)) ** 2
        starts, n = self.starts(axis), self.shape[axis] + self.padding[axis]
        total = np.zeros(n)
        for s in starts:
            total[s : s + self.block] += one
        return np.stack([one / total[s : s + self.block] for s in starts])


def divide(volume: np.ndarray, block: int = BLOCK, overlap: int = 0) -> tuple[np.ndarray, BlockGrid]:
    """All blocks of a volume (Z, Y, X) as (N, block, block, block) of its type, and where they belong.

    Any size will do: the last plane along an axis is repeated until whole blocks are full, so that 20 slices become one
    layer of blocks of 32 (``grid.padding`` tells).

    Raises:
        DataError: not three axes, or an empty one. ConfigError: a block or overlap that makes no sense.
    """
    grid = BlockGrid(np.shape(volume), block, overlap)
    padded = np.pad(volume, [(0, p) for p in grid.padding], mode="edge")
    every = (slice(None, None, grid.stride),) * 3
    views = np.lib.stride_tricks.sliding_window_view(padded, (block,) * 3)[every]
    return np.ascontiguousarray(views.reshape(-1, block, block, block)), grid


def stitch(blocks: np.ndarray, grid: BlockGrid) -> np.ndarray:
    """The volume (Z, Y, X) from its blocks (N, side, side, side) of a grid without overlap, laid side by side as they
    are (the paper's way). ``apply_blocks`` averages blocks that overlap.
    """
    b = grid.block
    if grid.overlap or blocks.shape != (len(grid), b, b, b):
        raise DataError(f"stitch: blocks have shape {blocks.shape}; {(len(grid), b, b, b)} is wanted for {grid}")
    size = [n + p for n, p in zip(grid.shape, grid.padding)]
    out = blocks.reshape(*grid.counts, b, b, b).transpose(0, 3, 1, 4, 2, 5).reshape(size)
    return np.ascontiguousarray(out[tuple(slice(n) for n in grid.shape)])


@torch.no_grad()
def apply_blocks(volume, network_fn: Callable[[Tensor], Tensor], *, block: int = BLOCK, overlap: int = 0,
                 batch: int = 8, out=None, before: Callable[[Tensor], Tensor] | None = None,
                 after: Callable[[Tensor], Tensor] | None = None, device="cpu", beside: tuple = ()):
    """A network, block by block, over a volume of any size; memory holds one slab of blocks, whatever the depth.

    Args:
        volume: array or memory map (Z, Y, X), read ``block`` planes at a time.
        network_fn: blocks float32 (n, 1 + beside, block, block, block), n at most ``batch``, to blocks (n, 1, ...).
        overlap: voxels that neighbouring blocks share; 0 lays them side by side, else see BlockGrid.window.
        out: array or memory map of the volume's shape to write into (rounded if it holds whole numbers, which must
            fit); a new float32 array by default.
        before, after: what is done to planes (k, Y, X) on their way in (whatever is read, as float32) and out.
        device: where blocks are cut, run and added up.
        beside: further volumes of the same shape; their blocks are channels 1, 2, ... of what the network is given.

    Returns:
        ``out``.

    Raises:
        DataError: not three axes, NaN or infinite voxels, an ``out`` of another shape, values beyond its type.
    """
    grid = BlockGrid(np.shape(volume), block, overlap)
    if batch < 1:
        raise ConfigError(f"batch: {batch} blocks at once; at least 1 is wanted")
    for other in beside:
        if np.shape(other) != grid.shape:
            raise DataError(f"apply_blocks: a volume beside has shape {np.shape(other)}; {grid.shape} is wanted")
    out = np.empty(grid.shape, np.float32) if out is None else out
    if np.shape(out) != grid.shape:
        raise DataError(f"apply_blocks: out has shape {np.shape(out)}; {grid.shape} is wanted, as the volume's")
    windows = [torch.from_numpy(grid.window(a)).float().to(device) for a in range(3)]
    depth, stride = grid.shape[0], grid.stride
    sums = None
    layers = zip(*(_slabs(v, grid, before, device) for v in (volume, *beside)), strict=True)
    for k, slabs in enumerate(layers):
        first, slab = slabs[0][0], torch.stack([planes for _, planes in slabs])
        made = torch.zeros_like(slab[0])
        _run_slab(slab, made, grid, network_fn, batch, windows)
        if overlap:
            made.mul_(windows[0][k][:, None, None])
            if sums is not None:
                made[:overlap] += sums
            sums = made[stride:].clone()
        last = k == grid.counts[0] - 1
        ready = made[: depth - first] if last else made[:stride]
        ready = ready[:, : grid.shape[1], : grid.shape[2]]
        _write(out, first, ready if after is None else after(ready))
    return out


def _slabs(volume, grid: BlockGrid, before, device) -> Iterator[tuple[int, Tensor]]:
    """Number of the first plane, and planes float32 (block, Y, X) with the padding, layer of blocks by layer."""
    for first in grid.starts(0):
        planes = torch.from_numpy(np.asarray(volume[first : first + grid.block], dtype=np.float32)).to(device)
        if not bool(torch.isfinite(planes).all()):
            raise DataError(f"apply_blocks: planes {first} to {first + len(planes) - 1} hold NaN or infinite voxels; "
                            "every voxel must be a finite number")
        planes = planes if before is None else before(planes)
        short = (grid.block - len(planes), *grid.padding[1:])
        for axis, n in enumerate(short):
            if n:
                planes = torch.cat([planes, planes.narrow(axis, -1, 1).repeat_interleave(n, axis)], axis)
        yield first, planes


def _run_slab(slab: Tensor, made: Tensor, grid: BlockGrid, network_fn, batch: int, windows) -> None:
    """Run all blocks of one layer (C, block, Y, X) and add them, weighted in the plane, to ``made``."""
    b = grid.block
    corners = [(y, x) for y in grid.starts(1) for x in grid.starts(2)]
    for i in range(0, len(corners), batch):
        part = corners[i : i + batch]
        result = network_fn(torch.stack([slab[:, :, y : y + b, x : x + b] for y, x in part]))
        if result.shape != (len(part), 1, b, b, b):
            raise DataError(f"apply_blocks: the network gave {tuple(result.shape)} for {(len(part), 1, b, b, b)}; it "
                            "must keep the shape of its blocks")
        for (y, x), values in zip(part, result[:, 0].float()):
            if grid.overlap:
                plane = windows[1][y // grid.stride][:, None] * windows[2][x // grid.stride]
                made[:, y : y + b, x : x + b].addcmul_(values, plane)
            else:
                made[:, y : y + b, x : x + b] = values


def _write(out, first: int, planes: Tensor) -> None:
    values = planes.cpu().numpy()
    kind = np.dtype(out.dtype)
    if kind.kind in "iu":
        values = np.rint(values)
        if values.min() < np.iinfo(kind).min or values.max() > np.iinfo(kind).max:
            raise DataError(f"apply_blocks: values from {values.min():g} to {values.max():g} do not fit into {kind}; "
                            "clip them in after=, or write to a wider type")
    out[first : first + len(values)] = values.astype(kind)


def seam_ratio(volume, block: int = BLOCK) -> float:
    """How much rougher a volume (Z, Y, X) is at the faces of its blocks than elsewhere: 1 means no seams.

    At every step between neighbours, along each axis, the jump of the gradient is ``|d[i] - (d[i-1] + d[i+1]) / 2|``
    with ``d[i] = v[i+1] - v[i]``; the ratio is its mean over steps that cross a block's face, over its mean over those
    at least two steps away from any face (next to a face the jump is felt too). 1 where both are 0, inf where only the
    latter is. Anatomy may make it differ from 1: compare with the original's, or measure the difference of the two.

    Raises:
        DataError: not three axes, or no face with two steps on either side.
    """
    v = np.asarray(volume)
    if v.ndim != 3:
        raise DataError(f"seam_ratio: volume has shape {v.shape}; three axes are wanted")
    faces, others = [0.0, 0], [0.0, 0]
    for axis in range(3):
        n = v.shape[axis]
        if n < 4:
            continue
        # float32 holds HU steps exactly; planes are summed one by one, so that memory stays small
        place = np.arange(1, n - 2)
        distance = np.abs((place + 1 + block // 2) % block - block // 2)
        for i, away in zip(place, distance):
            if away == 0 or away >= 2:
                a, b, c, d = (np.take(v, i + k, axis).astype(np.float32) for k in (-1, 0, 1, 2))
                jump = np.abs((c - b) - ((b - a) + (d - c)) / 2)
                total = faces if away == 0 else others
                total[0] += float(jump.sum(dtype=np.float64))
                total[1] += jump.size
    if not faces[1] or not others[1]:
        raise DataError(f"seam_ratio: a volume of {v.shape} has no face of blocks of {block} within it")
    at, elsewhere = faces[0] / faces[1], others[0] / others[1]
    return at / elsewhere if elsewhere else (1.0 if at == 0 else float("inf"))
