"""Distances between images: a crop of an image is near it in the space of crops, and far in that of whole images."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from covlib.errors import DataError
from covlib.metrics.neighbours import CROPS, CropSpace, FeatureSpace, PixelSpace


def pictures(n, side=48, seed=0):
    """Smooth random pictures (n, 1, side, side)."""
    coarse = torch.from_numpy(np.random.default_rng(seed).standard_normal((n, 1, 9, 9))).float()
    return F.interpolate(coarse, (side, side), mode="bicubic").numpy()


def crops(images):
    """The crops of ``CROPS``, one place and size after the other: (N, 1, h, w) views of images (N, 1, H, W)."""
    sides = images.shape[-2:]
    for part, places in CROPS:
        height, width = (max(2, round(part * side)) for side in sides)
        tops, lefts = (np.linspace(0, side - size, places).round().astype(int)
                       for side, size in zip(sides, (height, width)))
        yield from (images[:, :, top : top + height, left : left + width] for top in tops for left in lefts)


def between(space, a, b):
    return space.distance(space.prepare(a), space.gallery(b))


def cut(image, top, left, size):
    part = torch.from_numpy(image[None, :, top : top + size, left : left + size].copy())
    return F.interpolate(part, image.shape[-2:], mode="bilinear", antialias=True).numpy()


@pytest.mark.parametrize(("top", "left", "size"), [(0, 0, 24), (11, 5, 29), (3, 14, 34), (20, 24, 24), (0, 0, 48)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_crop_is_nearest_to_the_image_it_is_of(top, left, size, mirrored):
    known = pictures(30)
    made = cut(known[7], top, left, size)
    made = made[..., ::-1].copy() if mirrored else made
    crop, whole = between(CropSpace(), made, known)[0], between(PixelSpace(), made, known)[0]
    assert crop.argmin() == 7 and crop[7] < 0.1 and crop[7] < 0.5 * np.delete(crop, 7).min()
    assert size == 48 or whole[7] > 0.3  # as far off as a stranger


@pytest.mark.parametrize(("n", "height"), [(4, 48), (35, 48), (2, 20)])  # fewer and more than one block; not square
def test_the_distance_to_crops_is_the_smallest_of_plain_correlations(n, height):
    a, b = pictures(3, seed=1)[:, :, :height], pictures(n, seed=2)[:, :, :height]
    by_hand, space = np.full((3, n), np.inf), PixelSpace()
    space.side = CropSpace.side
    for part in crops(b):
        by_hand = np.minimum(by_hand, space.distance(space.prepare(a), space.prepare(part)))
    assert np.allclose(between(CropSpace(), a, b), by_hand, atol=1e-5)
    assert len(list(crops(b))) == sum(places**2 for _, places in CROPS)


def test_brightness_and_contrast_do_not_count():
    images = pictures(5)
    assert np.allclose(between(CropSpace(), 0.5 * images + 0.2, images).diagonal(), 0, atol=1e-5)


def test_features_have_a_gallery_too():
    features = np.random.default_rng(0).standard_normal((6, 4))
    space = FeatureSpace(features)
    assert np.array_equal(space.gallery(features), space.prepare(features))


def test_a_gallery_of_other_shape_is_refused():
    with pytest.raises(DataError, match="is needed"):
        CropSpace().gallery(np.zeros((3, 4)))
