"""Augmentation on batches: against torchvision where it has the same, identity where nothing should happen."""

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tvf

from covlib.data import augment

ALL = (augment.random_resized_crop, augment.horizontal_flip, augment.brightness, augment.rotation, augment.elastic)


def batch(n=4, channels=1, height=24, width=20, seed=0):
    """Smooth images in [-1, 1] and label masks (N, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, channels, 6, 5, generator=generator) * 2 - 1
    images = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear").clamp(-1, 1)
    masks = torch.randint(0, 3, (n, 6, 5), generator=generator, dtype=torch.uint8)
    return images, masks.repeat_interleave(height // 6, 1).repeat_interleave(width // 5, 2)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("change", ALL)
def test_shapes_ranges_and_repeatability(change):
    images, masks = batch(channels=2)
    alone = change(images, seeded())
    moved, labels = change(images, seeded(), masks=masks)
    assert torch.equal(alone, moved) and moved.shape == images.shape and moved.dtype == images.dtype
    assert labels.shape == masks.shape and labels.dtype == masks.dtype and set(labels.unique().tolist()) <= {0, 1, 2}
    assert moved.min() >= -1 - 1e-6 and moved.max() <= 1 + 1e-6
    assert not torch.equal(moved, change(images, seeded(1)))
    same = images[:1].expand(16, -1, -1, -1)
    different = change(same, seeded(3))
    assert not all(torch.equal(different[0], d) for d in different[1:])  # each image draws its own


@pytest.mark.parametrize(("change", "settings"), [
    (augment.random_resized_crop, {"scale": (1, 1), "ratio": (20 / 24, 20 / 24)}),
    (augment.horizontal_flip, {"p": 0}),
    (augment.brightness, {"strength": 0}),
    (augment.rotation, {"degrees": 0}),
    (augment.elastic, {"strength": 0})])
def test_nothing_asked_for_is_nothing_done(change, settings):
    images, masks = batch()
    moved, labels = change(images, seeded(), masks=masks, **settings)
    assert torch.allclose(moved, images, atol=1e-5) and torch.equal(labels, masks)


def test_flip_is_torch_s_flip():
    images, masks = batch()
    moved, labels = augment.horizontal_flip(images, seeded(), p=1, masks=masks)
    assert torch.equal(moved, images.flip(-1)) and torch.equal(labels, masks.flip(-1))
    half = augment.horizontal_flip(images.repeat(50, 1, 1, 1), seeded(), p=0.5)
    flipped = (half == images.flip(-1).repeat(50, 1, 1, 1)).flatten(1).all(1).float().mean()
    assert 0.35 < flipped < 0.65


@pytest.mark.parametrize("box", [(0, 0, 24, 20), (3, 4, 10, 11), (23, 19, 1, 1), (0, 12, 24, 8), (5, 0, 7, 20)])
def test_resized_crop_is_torchvision_s(box):
    images, masks = batch()
    top, left, height, width = (torch.full((4,), v) for v in box)
    moved, labels = augment.resized_crop(images, top, left, height, width, masks=masks)
    wanted = tvf.resized_crop(images, *box, size=[24, 20], antialias=False)
    assert torch.allclose(moved, wanted, atol=1e-5)
    nearest = tvf.resized_crop(masks, *box, size=[24, 20], interpolation=InterpolationMode.NEAREST_EXACT)
    assert (labels == nearest).float().mean() > 0.97  # centres that fall on a pixel's edge may go either way


def test_each_image_has_its_own_box():
    images, _ = batch(n=2)
    box = [torch.tensor(v) for v in ([0, 3], [1, 4], [12, 10], [8, 11])]
    moved = augment.resized_crop(images, *box)
    for k in range(2):
        wanted = tvf.resized_crop(images[k : k + 1], *(int(v[k]) for v in box), size=[24, 20], antialias=False)
        assert torch.allclose(moved[k : k + 1], wanted, atol=1e-5)


def test_large_images_cropped_one_by_one_are_the_same():
    images, masks = batch(n=3)
    images = torch.nn.functional.interpolate(images, size=(160, 170), mode="bilinear")
    masks = torch.nn.functional.interpolate(masks[:, None].float(), size=(160, 170))[:, 0].long()
    assert images[0, 0].numel() >= augment.ONE_BY_ONE
    box = [torch.tensor(v) for v in ([0, 30, 159], [10, 0, 169], [160, 77, 1], [99, 170, 1])]
    together, _ = augment.resized_crop(images, *box, masks=masks)  # with masks all are looked up in one grid
    assert torch.allclose(augment.resized_crop(images, *box), together, atol=2e-4)
    first = tvf.resized_crop(images[1:2], *(int(v[1]) for v in box), size=[160, 170], antialias=False)
    assert torch.equal(augment.resized_crop(images, *box)[1:2], first)


def test_large_images_mirrored_one_by_one_are_the_same(monkeypatch):
    images = torch.rand(16, 1, 160, 160)
    ours = augment.horizontal_flip(images, seeded())
    monkeypatch.setattr(augment, "ONE_BY_ONE", images.numel())
    together = augment.horizontal_flip(images, seeded())
    assert torch.equal(ours, together) and not torch.equal(ours, images)


def test_random_boxes_are_in_the_image_and_of_the_right_size():
    rows = torch.arange(64.0)[:, None].expand(64, 64)
    picture = torch.stack([rows, rows.T]).expand(300, 2, 64, 64) / 32 - 1
    moved = (augment.random_resized_crop(picture, seeded(), scale=(0.25, 0.5)) + 1) * 32
    height = (moved[:, 0].amax((1, 2)) - moved[:, 0].amin((1, 2))) + 1
    width = (moved[:, 1].amax((1, 2)) - moved[:, 1].amin((1, 2))) + 1
    area = height * width / 64**2
    assert moved.min() >= 0 and moved.max() <= 63
    assert 0.23 < area.min() and area.max() < 0.52 and (width / height).min() > 0.7 and (width / height).max() < 1.4


@pytest.mark.parametrize("degrees", [-30.0, 15.0, 90.0])
def test_rotation_is_torchvision_s(degrees):
    images, masks = batch(height=24, width=20)
    moved, labels = augment.rotate(images, torch.full((4,), degrees), masks=masks)
    wanted = tvf.rotate(images, degrees, InterpolationMode.BILINEAR, fill=[-1.0])
    y, x = torch.meshgrid(torch.arange(24) - 11.5, torch.arange(20) - 9.5, indexing="ij")
    inside = y**2 + x**2 < 9**2  # farther out the two mix the black corners in differently
    assert (moved - wanted)[..., inside].abs().max() < 1e-4
    kept = tvf.rotate(masks, degrees, InterpolationMode.NEAREST)
    assert (labels == kept).float().mean() > 0.95


def test_brightness_is_torchvision_s():
    images, _ = batch(n=1)
    moved = augment.brightness(images, seeded(5), strength=0.5)
    factor = torch.rand(1, generator=seeded(5)).item() + 0.5
    assert torch.allclose((moved + 1) / 2, tvf.adjust_brightness((images + 1) / 2, factor), atol=1e-6)


def test_elastic_moves_by_about_its_strength():
    rows = (torch.arange(64.0) / 32 - 1)[:, None].expand(64, 64)
    moved = augment.elastic(rows.expand(64, 1, 64, 64), seeded(), strength=3.0)
    shift = ((moved - rows) * 32)[:, 0, 16:48, 16:48]
    assert 1.5 < shift.std() < 4.5 and shift.abs().max() < 20


def test_masks_with_planes_and_whole_numbers():
    images, masks = batch()
    planes = torch.stack([masks, masks.flip(1)], 1).long()
    _, moved = augment.rotation(images, seeded(), masks=planes)
    _, first = augment.rotation(images, seeded(), masks=masks)
    assert moved.dtype == torch.int64 and torch.equal(moved[:, 0], first.long())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("change", ALL)
def test_a_gpu_is_never_waited_for(change):
    images, masks = (t.cuda() for t in batch())
    generator = torch.Generator("cuda").manual_seed(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        moved, labels = change(images, generator, masks=masks)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert moved.device == images.device and labels.device == masks.device


def draws(seed=0):
    generator = seeded(seed)
    return lambda n: torch.rand(n, generator=generator)


def test_differentiable_augmentation_moves_and_relights_and_lets_gradients_through():
    images, _ = batch(n=6, channels=2)
    assert torch.equal(augment.differentiable(images, draws(3)), augment.differentiable(images, draws(3)))
    still = augment.differentiable(images, draws(), shift=0.0, light=0.0, contrast=0.0)
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1), value=augment.BLACK)
    places = [padded[:, :, y : y + 24, x : x + 20] for y in range(3) for x in range(3)]  # shift: at least one pixel
    for k, image in enumerate(still):
        assert any(torch.allclose(image, place[k], atol=1e-6) for place in places)
    relit = augment.differentiable(images, draws(), shift=0.0, light=0.3, contrast=0.0)
    assert len({round(float(d), 4) for d in (relit - still).mean((1, 2, 3))}) == 6
    x = images.clone().requires_grad_()
    augment.differentiable(x, draws()).sum().backward()
    assert (x.grad != 0).any((1, 2, 3)).all()
