"""CoSinGAN's parts that know no method: losses against references, augmentation to the pixel, slices and drawings."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from covbook.chapters.cosingan.drawings import read_condition
from covlib.data.crops import crop_to_lungs
from covlib.data.label_maps import Paired, from_slices
from covlib.errors import ConfigError, DataError
from covlib.files.layouts import load_slices
from covlib.judges import segmenters
from covlib.losses import ms_ssim, ssim_scales
from covlib.metrics import image as image_metrics
from covlib.papers.cosingan.augment import Strength, augment, draw_grid, move_condition, move_image, strength
from covlib.papers.cosingan.losses import MixedLoss, UNetLoss, discriminator_loss, generator_loss, wppl
from covlib.papers.cosingan.method import Config
from covlib.papers.cosingan.slices import OneSlice, check_conditions, choose, ternary
from covlib.seeding import torch_generator


def pictures(n, key, size=32):
    return torch.rand(n, 1, size, size, generator=torch_generator(0, "test", key)) * 2 - 1


def labels(n, key, size=32):
    return torch.randint(0, 3, (n, 1, size, size), generator=torch_generator(0, key), dtype=torch.uint8)


# ---- losses ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-15, 15), min_size=1, max_size=5), st.lists(st.floats(-15, 15), min_size=1, max_size=5))
@settings(max_examples=30)
def test_adversarial_losses_are_pix2pixs(fake, real):
    f, r = (torch.tensor(v, dtype=torch.float32) for v in (fake, real))
    sigmoid = lambda v: 1 / (1 + np.exp(-np.array(v, np.float64)))
    expected = -(np.log(1 - sigmoid(fake) + 1e-300).mean() + np.log(sigmoid(real)).mean()) / 2
    assert discriminator_loss(r, f).item() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert generator_loss(f).item() == pytest.approx(-np.log(sigmoid(fake)).mean(), rel=1e-4, abs=1e-6)


def test_wppl_is_eq_7_in_float64():
    fake, real, condition = pictures(3, "a"), pictures(3, "b"), labels(3, "c")
    weight = np.array([0.1, 0.5, 1.0])[condition.numpy()]
    expected = (weight * np.abs(fake.double().numpy() - real.double().numpy())).mean()
    assert wppl(fake, real, condition).item() == pytest.approx(expected, rel=1e-6)
    only = wppl(fake, real, condition, (0.0, 0.0, 1.0)) * condition.numel() / (condition == 2).sum()
    assert only.item() == pytest.approx((fake - real).abs()[condition == 2].mean().item(), rel=1e-5)


@pytest.mark.parametrize(("size", "scales"), [(32, 2), (48, 3), (64, 3), (96, 4), (128, 4), (176, 5), (512, 5)])
def test_ms_ssim_takes_the_scales_that_fit(size, scales):
    assert ssim_scales(size) == scales


@pytest.mark.parametrize("size", [32, 48, 96, 192])
def test_ms_ssim_is_torchmetrics_in_float64(size):
    real = torch.nn.functional.avg_pool2d(pictures(2, "m", 2 * size), 2)
    fake = (real + 0.3 * pictures(2, "n", size)).clamp(-1, 1)
    expected = image_metrics.ms_ssim(fake, real, 2.0, per_image=True, scales=ssim_scales(size))
    assert ms_ssim(fake, real).tolist() == pytest.approx(expected, rel=2e-4)
    assert ms_ssim(fake.double(), real.double()).tolist() == pytest.approx(expected, rel=2e-4)
    assert ms_ssim(real, real).tolist() == pytest.approx([1, 1], abs=1e-5)


def test_ms_ssim_has_a_finite_slope_even_where_images_are_opposites():
    fake, real = pictures(1, "o").requires_grad_(), -pictures(1, "o")
    (1 - ms_ssim(fake, real).mean()).backward()
    assert fake.grad.isfinite().all()
    with pytest.raises(DataError, match="at least 11"):
        ms_ssim(pictures(1, "o", 8), pictures(1, "p", 8))


def test_unet_features_are_those_of_the_encoder():
    unet = segmenters.build("unet", 3, width=4).eval()
    kept, hooks = [], []
    for block in unet.down:
        hooks.append(block.register_forward_hook(lambda m, i, o: kept.append(o.clone())))
    fake, real = pictures(2, "f"), pictures(2, "g")
    unet(fake), unet(real)
    for hook in hooks:
        hook.remove()
    expected = sum((a.double() - b.double()).abs().mean().item() for a, b in zip(kept[:5], kept[5:])) / 5
    assert UNetLoss(unet)(fake, real).item() == pytest.approx(expected, rel=1e-5)


def test_mixed_loss_sums_its_terms_and_sends_gradients_to_the_fake_alone():
    unet = segmenters.build("unet", 3, width=4).eval()
    rec = MixedLoss(unet, (10.0, 1.0, 10.0, 10.0))
    fake, real, condition = pictures(2, "f").requires_grad_(), pictures(2, "g").requires_grad_(), labels(2, "h")
    total, terms = rec(fake, real, condition)
    expected = 10 * terms["WPPL"] + terms["MS-SSIM"] + 10 * terms["MS-FVL"] + 10 * terms["MS-FUL"]
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    for name in ("MS-FVL", "MS-FUL"):  # targets carry no graph
        (grad,) = torch.autograd.grad(terms[name], real, retain_graph=True, allow_unused=True)
        assert grad is None
        (grad,) = torch.autograd.grad(terms[name], fake, retain_graph=True)
        assert grad.abs().sum() > 0
    same, _ = rec(real.detach(), real.detach(), condition)
    assert same.item() == pytest.approx(0, abs=1e-4)
    assert rec.vgg.pretrained or "EfficientNet-Lite0 (ImageNet) instead of VGG19" in rec.note


def test_a_mixed_loss_without_its_unet_is_refused():
    with pytest.raises(DataError, match="MS-FUL"):
        MixedLoss(None)
    _, terms = MixedLoss(None, (10.0, 0.0, 0.0, 0.0))(pictures(1, "f"), pictures(1, "g"), labels(1, "h"))
    assert list(terms) == ["WPPL"]


# ---- augmentation ----------------------------------------------------------------------------------------------------

STRONG = Strength(crop=0.5, degrees=30, elastic=1.5)


def test_strong_and_weak_are_those_of_section_2_3():
    strong, weak = (strength(Config(), part) for part in ("first", "second"))
    assert (strong.crop, weak.crop) == (0.5, 0.75) and strong.elastic > 0 and weak.elastic == 0
    assert strong.flip and strong.flip_vertical and weak.flip and weak.flip_vertical


@given(st.integers(0, 10_000), st.sampled_from([16, 33, 64]))
@settings(max_examples=25)
def test_image_and_condition_stay_aligned_to_the_pixel(seed, size):
    """Images that hold each pixel's own number, row and column: the condition is what lies at the nearest of them."""
    line = (torch.arange(size) + 0.5) / size
    rows, columns = line[:, None].expand(size, size), line[None, :].expand(size, size)
    condition = labels(1, seed, size)
    grid = draw_grid(4, size, STRONG, torch_generator(seed, "grid"))
    moved = move_condition(condition, grid)
    places = move_image(torch.stack([rows, columns])[None], grid).double() * size - 0.5  # in pixels, bilinear
    nearest = places.round().long().clamp(0, size - 1)
    told = condition[0, 0][nearest[:, 0], nearest[:, 1]][:, None]
    sure = ((places - places.floor() - 0.5).abs() > 1e-3).all(1, keepdim=True)  # no tie between two pixels
    inner = ((places > 0.01) & (places < size - 1.01)).all(1, keepdim=True)  # mirrored in between at the very edge
    assert torch.equal(moved[sure & inner], told[sure & inner])
    assert (sure & inner).float().mean() > 0.8


def test_an_image_that_is_a_function_of_its_condition_stays_one():
    condition = torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    condition[..., 10:50, 20:60] = 1
    condition[..., 20:34, 30:44] = 2
    image = condition.float() - 1
    moved, along = augment(image, condition, STRONG, torch_generator(0, "f"), 16)
    assert moved.shape == along.shape == (16, 1, 64, 64) and along.dtype == torch.uint8
    pure = (moved - moved.round()).abs() < 1e-6  # not interpolated between two labels
    assert pure.float().mean() > 0.8 and torch.equal(moved[pure].round() + 1, along[pure].float())
    assert (moved + 1 - along).abs().max() <= 0.5 + 1e-5 or ((moved + 1 - along).abs() > 0.5).float().mean() < 0.02


def test_nothing_drawn_nothing_moved():
    still = Strength(1.0, 0.0, 0.0, flip=False, flip_vertical=False)
    image, condition = pictures(3, "s"), labels(3, "t")
    moved, along = augment(image, condition, still, torch_generator(0))
    assert torch.allclose(moved, image, atol=1e-5) and torch.equal(along, condition)
    mirrored = Strength(1.0, 0.0, 0.0, flip=True, flip_vertical=True)
    moved, along = augment(image[:1], condition[:1], mirrored, torch_generator(0), 32)
    seen = set()
    for x, c in zip(moved, along):
        (dims,) = [d for d in ((), (2,), (1,), (1, 2)) if torch.allclose(x, image[0].flip(d), atol=1e-5)]
        assert torch.equal(c, condition[0].flip(dims))
        seen.add(dims)
    assert len(seen) == 4


def test_crops_lie_inside_and_are_as_large_as_said():
    grid = draw_grid(500, 16, Strength(0.75, 0.0), torch_generator(0, "c"))
    assert grid.abs().max() <= 1
    side = (grid[:, 0, -1, 0] - grid[:, 0, 0, 0]).abs() / (2 * 15 / 16)
    assert 0.75 <= side.min() < 0.76 and 0.99 < side.max() <= 1 + 1e-6


def test_the_elastic_bend_is_a_smaller_share_of_larger_images():
    how = Strength(1.0, 0.0, 2.0, False, False)
    shares = []
    for size in (32, 128, 512):
        still = draw_grid(20, size, Strength(1.0, 0.0, 0.0, False, False), torch_generator(0, "e"))
        shares.append((draw_grid(20, size, how, torch_generator(0, "e")) - still).abs().mean().item())
    assert shares[0] / shares[1] == pytest.approx(4, rel=0.3) and shares[1] / shares[2] == pytest.approx(4, rel=0.3)


def test_rotation_turns_by_at_most_what_is_said():
    grid = draw_grid(400, 16, Strength(1.0, 20.0, 0.0, False, False), torch_generator(0, "r"))
    along = grid[:, 0, -1] - grid[:, 0, 0]
    angle = torch.atan2(along[:, 1], along[:, 0]) * 180 / math.pi
    assert 19 < angle.abs().max() <= 20.001 and angle.min() < -15 and angle.max() > 15


# ---- one slice, conditions, drawings ---------------------------------------------------------------------------------


def paired(n=4, size=32):
    maps = torch.zeros(n, size, size, dtype=torch.uint8)
    for k in range(n):
        maps[k, 4:28, 4 : 20 + k] = 1
        maps[k, 10:16, 6 : 8 + 2 * k] = 2 + k % 2
    return Paired(pictures(n, "paired", size), maps, [f"p{k // 2}" for k in range(n)], [f"s{k}" for k in range(n)])


def test_ground_glass_and_consolidation_are_infection():
    made = ternary(torch.tensor([[[0, 1], [2, 3]]]))
    assert made.shape == (1, 1, 2, 2) and made.flatten().tolist() == [0, 1, 2, 2] and made.dtype == torch.uint8


def test_one_slice_a_patient_the_one_with_most_lung_first():
    p = paired()
    assert choose(p).name == "s3" and choose(p, 1).name == "s1"
    with pytest.raises(ConfigError, match="index: 2"):
        choose(p, 2)
    with pytest.raises(DataError, match="no infected slice to learn from"):
        choose(replace(p, maps=torch.zeros_like(p.maps)))
    one = choose(p)
    assert one.size == 32 and one.patient == "p1" and len(one.fingerprint) == 64
    assert set(one.training_data()) == {"image", "condition"}
    assert choose(p).fingerprint == one.fingerprint != choose(p, 1).fingerprint


def test_a_slice_of_virtual_patients():
    def drawn(**window):
        slices = load_slices("phantom", size=96, n_patients=4, per_patient=2, labels=("covid",), seed=100,
                             need=("lung", "infection"), **window)
        return from_slices(crop_to_lungs(slices, 48)).infected()

    found = [drawn() for _ in range(2)]
    one, again, other = choose(found[0]), choose(found[1]), choose(found[0], 1)
    assert one.image.shape == one.condition.shape == (1, 1, 48, 48) and one.fingerprint == again.fingerprint
    assert one.patient != other.patient and one.hu_window == (-600, 1500)
    darker = choose(drawn(window=(-600, 2400)))
    assert darker.name == one.name and darker.fingerprint != one.fingerprint


@pytest.mark.parametrize(("change", "words"), [
    (lambda i, c: (i.repeat(2, 1, 1, 1), c.repeat(2, 1, 1, 1)), "2 image.s. and 2 condition.s. given"),
    (lambda i, c: (i[..., :16], c), "is wanted"), (lambda i, c: (i * 3, c), "-1 to 1"),
    (lambda i, c: (i, c.clamp(max=1)), "no infection"), (lambda i, c: (i, c * 0), "no lung"),
    (lambda i, c: (i, c[..., :16, :16]), "16x16 pixels; this model paints 32x32")])
def test_a_slice_that_cannot_be_learnt_from_is_refused(change, words):
    image, condition = change(pictures(1, "i"), ternary(paired().maps[:1]))
    with pytest.raises(DataError, match=words) as error:
        OneSlice(image, condition, "p", "s")
    assert "\n" not in str(error.value)


def drawing(path, greys=(0, 128, 255), size=32, mode="L"):
    array = np.full((size, size), greys[0], np.uint8)
    array[4:28, 4:28] = greys[1]
    array[10:16, 10:16] = greys[2]
    Image.fromarray(array).convert(mode).save(path)
    return path


@pytest.mark.parametrize(("greys", "mode"), [((0, 128, 255), "L"), ((0, 127, 255), "L"), ((0, 1, 2), "L"),
                                             ((0, 128, 255), "RGB"), ((0, 128, 255), "RGBA")])
def test_a_drawn_condition_is_read(tmp_path, greys, mode):
    condition = read_condition(drawing(tmp_path / "mask.png", greys, mode=mode))
    assert condition.shape == (1, 1, 32, 32)
    assert [int((condition == k).sum()) for k in range(3)] == [1024 - 576, 576 - 36, 36]
    assert [int((read_condition(tmp_path / "mask.png", 16) == k).sum()) for k in range(3)] == [256 - 144, 144 - 9, 9]


def test_drawings_that_are_no_conditions_are_refused(tmp_path):
    soft = drawing(tmp_path / "soft.png", (0, 100, 255))
    with pytest.raises(DataError, match="grey value.s. 100; 0 background"):
        read_condition(soft)
    with pytest.raises(DataError, match="no lung"):
        read_condition(drawing(tmp_path / "empty.png", (0, 0, 0)))
    Image.fromarray(np.full((8, 16), 128, np.uint8)).save(tmp_path / "wide.png")
    with pytest.raises(DataError, match="a square is wanted"):
        read_condition(tmp_path / "wide.png")
    assert read_condition(tmp_path / "wide.png", 16).shape == (1, 1, 16, 16)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DataError, match=r"text\.png"):
        read_condition(tmp_path / "text.png")
    with pytest.raises(DataError, match=r"gone\.png"):
        read_condition(tmp_path / "gone.png")


def test_conditions_may_be_given_without_channels():
    c = ternary(paired().maps)
    assert torch.equal(check_conditions(c[:, 0].numpy(), 32), c)
    assert check_conditions(c[0, 0], 32).shape == (1, 1, 32, 32)
    with pytest.raises(DataError, match="condition 1 of 4: has no lung"):
        check_conditions(c * torch.tensor([1, 0, 1, 1], dtype=torch.uint8).view(4, 1, 1, 1), 32)
