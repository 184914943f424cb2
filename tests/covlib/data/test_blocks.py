"""Blocks and back for volumes of any size, stitching against a plain loop, memory maps, and the measure of seams."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covlib.data.blocks import BlockGrid, apply_blocks, divide, seam_ratio, stitch
from covlib.errors import ConfigError, DataError
from covlib.seeding import rng

sizes = st.tuples(*[st.integers(1, 41)] * 3)


def volume(shape, seed=0, dtype=np.int16):
    return rng(seed, "volume").integers(-1024, 3071, shape).astype(dtype)


def corners(grid):
    """First voxel of every block, x fastest."""
    return itertools.product(*(grid.starts(axis) for axis in range(3)))


def averaged(blocks, grid):
    """The volume from blocks that overlap: each weighted, in float64."""
    b, windows = grid.block, [grid.window(axis) for axis in range(3)]
    out = np.zeros([n + p for n, p in zip(grid.shape, grid.padding)])
    for block, corner in zip(blocks, corners(grid), strict=True):
        rows = [w[c // grid.stride] for w, c in zip(windows, corner)]
        out[tuple(slice(c, c + b) for c in corner)] += np.einsum("zyx,z,y,x->zyx", block, *rows)
    return out[tuple(slice(n) for n in grid.shape)]


@given(sizes, st.integers(1, 16), st.data())
@settings(max_examples=60)
def test_blocks_and_back_is_exact_for_any_size(shape, block, data):
    overlap = data.draw(st.integers(0, block - 1))
    v = volume(shape)
    blocks, grid = divide(v, block, overlap)
    assert blocks.shape == (len(grid), block, block, block) and blocks.dtype == v.dtype
    assert np.array_equal(np.rint(averaged(blocks, grid)), v)
    assert overlap or np.array_equal(stitch(blocks, grid), v)
    for (z, y, x), b in zip(corners(grid), blocks):  # each block is where the grid says
        part = v[z : z + block, y : y + block, x : x + block]
        assert np.array_equal(b[tuple(slice(n) for n in part.shape)], part)


@pytest.mark.parametrize("shape", [(1, 512, 512), (20, 45, 70), (33, 31, 32), (80, 64, 64)])
def test_fewer_slices_than_a_block_are_padded_and_recorded(shape):
    v = volume(shape)
    blocks, grid = divide(v)
    assert all(0 <= p < 32 for p in grid.padding) and grid.counts == tuple(-(-n // 32) for n in shape)
    assert np.array_equal(stitch(blocks, grid), v)
    if shape[0] < 32:
        assert np.array_equal(blocks[0, shape[0] :], np.broadcast_to(blocks[0, shape[0] - 1], (32 - shape[0], 32, 32)))


@pytest.mark.parametrize("overlap", [0, 4, 5, 8, 13])
def test_constant_and_linear_volumes_are_stitched_exactly(overlap):
    z, y, x = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in (21, 37, 16)), indexing="ij")
    for v in (np.full((21, 37, 16), -873.0), 7 * z - 3 * y + 0.5 * x - 400):
        out = averaged(*divide(v, 16, overlap))
        np.testing.assert_allclose(out, v, rtol=1e-12, atol=1e-9)
        streamed = apply_blocks(v, lambda b: b, block=16, overlap=overlap)
        np.testing.assert_allclose(streamed, v, atol=2e-4)


def test_weights_of_every_voxel_sum_to_one_and_fall_towards_the_faces():
    grid = BlockGrid((70, 70, 70), 32, 16)
    rows, total = grid.window(0), np.zeros(80)
    for start, row in zip(grid.starts(0), rows):
        total[start : start + 32] += row
    np.testing.assert_allclose(total, 1, rtol=1e-12)
    assert rows.shape == (4, 32)
    inner = rows[1]
    assert inner[0] < 0.01 < 0.9 < inner[16]


def shade(blocks):
    """A stand-in for a network: each block is darkened by its own mean, so that neighbours differ at their faces."""
    return blocks * 0.5 - blocks.mean(dim=(1, 2, 3, 4), keepdim=True) / 3


@pytest.mark.parametrize("overlap", [0, 4, 8, 11])
@pytest.mark.parametrize("batch", [1, 3, 100])
def test_streaming_gives_what_divide_and_average_give(overlap, batch):
    v = volume((37, 21, 40)).astype(np.float32)
    blocks, grid = divide(v, 16, overlap)
    expected = averaged(shade(torch.from_numpy(blocks)[:, None])[:, 0].numpy(), grid)
    out = apply_blocks(v, shade, block=16, overlap=overlap, batch=batch)
    np.testing.assert_allclose(out, expected, atol=2e-3)
    assert out.dtype == np.float32


def test_streaming_matches_monais_sliding_window():
    from monai.inferers import sliding_window_inference

    v = volume((48, 32, 64)).astype(np.float32)
    line = torch.sin(np.pi * (torch.arange(32) + 0.5) / 32) ** 2
    theirs = sliding_window_inference(torch.from_numpy(v)[None, None], 32, 4, shade, overlap=0.5,
                                      roi_weight_map=line[:, None, None] * line[:, None] * line)
    ours = apply_blocks(v, shade, overlap=16)
    np.testing.assert_allclose(ours, theirs[0, 0].numpy(), atol=2e-2)


def test_volumes_beside_are_cut_alike_and_become_channels():
    v, other = volume((37, 21, 40)).astype(np.float32), volume((37, 21, 40), seed=1).astype(np.float32)
    seen = lambda blocks: blocks[:, :1] + 2 * blocks[:, 1:]
    for overlap in (0, 8):
        out = apply_blocks(v, seen, block=16, overlap=overlap, before=lambda p: p + 1, beside=(other,))
        np.testing.assert_allclose(out, v + 2 * other + 3, atol=1e-2)
    with pytest.raises(DataError, match=r"beside has shape \(37, 21, 39\)"):
        apply_blocks(v, seen, block=16, beside=(other[..., 1:],))


def test_memory_maps_go_in_and_out_layer_by_layer(tmp_path):
    source = np.memmap(tmp_path / "in.dat", np.int16, "w+", shape=(70, 40, 33))
    source[:] = volume(source.shape)
    read = []

    class Watched:  # an array that tells how much of it was asked for at once
        shape = source.shape

        def __getitem__(self, index):
            read.append(index)
            return source[index]

    out = np.memmap(tmp_path / "out.dat", np.int16, "w+", shape=source.shape)
    made = apply_blocks(Watched(), lambda b: b + 1, block=16, overlap=8, out=out, before=lambda p: p - 1,
                        after=lambda p: p + 3)
    assert made is out and np.array_equal(out, source + 3)
    assert max(i.stop - i.start for i in read) == 16 and len(read) == len(range(0, 70 - 8, 8))


def test_what_does_not_fit_is_refused_in_one_line():
    v = np.zeros((20, 20, 20), np.float32)
    bad = v.copy()
    bad[17, 3, 4] = np.nan
    for match, kind, call in [
        ("three axes", DataError, lambda: divide(np.zeros((2, 20, 20, 20)))),
        ("three axes", DataError, lambda: apply_blocks(np.zeros((20, 20)), shade)),
        ("NaN", DataError, lambda: apply_blocks(bad, shade, block=16)),
        ("out has shape", DataError, lambda: apply_blocks(v, shade, out=np.zeros((20, 20, 21)))),
        ("do not fit into int16", DataError, lambda: apply_blocks(v, lambda b: b + 40000, out=v.astype(np.int16))),
        ("keep the shape", DataError, lambda: apply_blocks(v, lambda b: b[:, :, 1:])),
        ("overlap", ConfigError, lambda: divide(v, 16, 16)),
        ("batch", ConfigError, lambda: apply_blocks(v, shade, batch=0)),
        ("blocks have shape", DataError, lambda: stitch(np.zeros((2, 16, 16, 16)), BlockGrid((20, 20, 20), 16))),
        ("no face", DataError, lambda: seam_ratio(np.zeros((20, 20, 20)))),
    ]:
        with pytest.raises(kind, match=match) as caught:
            call()
        assert "\n" not in str(caught.value)


def plain_seam_ratio(v, block):
    faces, others = [], []
    for axis in range(3):
        lines = np.moveaxis(v.astype(np.float64), axis, 0)
        for i in range(1, len(lines) - 2):
            d = [lines[k + 1] - lines[k] for k in (i - 1, i, i + 1)]
            jump = abs(d[1] - (d[0] + d[2]) / 2)
            nearest = min(abs(i + 1 - f) for f in range(0, len(lines) + block, block))
            if nearest == 0:
                faces.append(jump.ravel())
            elif nearest >= 2:
                others.append(jump.ravel())
    return np.concatenate(faces).mean() / np.concatenate(others).mean()


@pytest.mark.parametrize("block", [7, 8])
def test_seam_ratio_is_that_of_a_plain_loop(block):
    v = volume((17, 20, 25))
    assert seam_ratio(v, block) == pytest.approx(plain_seam_ratio(v, block), rel=1e-6)


def test_seam_ratio_sees_seams_and_nothing_else():
    z, y, x = np.meshgrid(*[np.arange(32.0)] * 3, indexing="ij")
    assert seam_ratio(3 * z - y + x, 8) == 1.0
    assert seam_ratio((z // 8) * 10, 8) == np.inf
    noise = rng(0, "noise").normal(size=(32, 32, 32))
    assert seam_ratio(noise, 8) == pytest.approx(1, abs=0.05)
    assert seam_ratio(noise + 3 * ((z // 8) % 2), 8) > 1.2
