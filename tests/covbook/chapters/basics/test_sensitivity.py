"""What extractors notice: distortions that do what they are called, and a measure that reports them."""

import numpy as np
import pytest

from covbook.chapters.basics import sensitivity
from covlib.errors import DataError
from covlib.files.layouts import load_slices
from covlib.judges.features import LITE_LAYERS


@pytest.fixture(scope="module")
def slices():
    return load_slices("phantom", size=32, n_patients=16, per_patient=3, seed=100, need=("labels", "lung", "infection"))


def changed(slices, kind, strength):
    return np.abs(sensitivity.distorted(slices, kind, strength, seed=1) - slices.images)[:, 0]


@pytest.mark.parametrize("kind", sensitivity.DISTORTIONS)
def test_a_distortion_grows_with_its_strength_and_keeps_the_range(slices, kind):
    _, strengths = sensitivity.DISTORTIONS[kind]
    change = [changed(slices, kind, s).mean() for s in strengths]
    assert change == sorted(change) and change[0] > 0
    made = sensitivity.distorted(slices, kind, strengths[-1], seed=1)
    assert made.shape == slices.images.shape and made.dtype == np.float32 and np.abs(made).max() <= 1


def test_lesions_are_taken_from_lesions_and_marks_put_on_positives_alone(slices):
    without = changed(slices, "missing-lesions", 1.0)
    assert without[slices.infection > 0].mean() > 0.1 and not without[slices.infection == 0].any()
    marked, positive = changed(slices, "planted-mark", 1.0), np.asarray(slices.labels) == len(slices.classes) - 1
    assert (marked[positive].max((1, 2)) > 0).all() and not marked[~positive].any()
    assert (marked[positive] > 0).sum((1, 2)).max() <= 16


def test_bending_moves_anatomy_and_hardly_blurs(slices):
    """Half a pixel of bending takes less of the fine detail than a blur that changes as much."""
    detail = lambda x: np.square(np.diff(x[:, 0], axis=-1)).mean()
    bent = sensitivity.distorted(slices, "wrong-anatomy", 0.5, seed=1)
    straight = sensitivity.distorted(slices, "blur", 0.7, seed=1)
    assert 0.85 < detail(bent) / detail(slices.images) < 1.15
    assert detail(straight) < 0.8 * detail(slices.images)


def test_what_is_strong_is_noticed_and_nothing_is_not(slices):
    names = [f"lite2-{layer}" for layer in LITE_LAYERS] + [sensitivity.RANDOM]
    found = sensitivity.measure(slices, "noise", (0.0, 0.6), repeats=3, seed=0)
    assert found["n_all"] == 24 and found["n_few"] == 12
    for name in names:
        for which in ("few", "all"):
            assert found[f"{name}_{which}_0_noticed"] == 0 and found[f"{name}_{which}_0_ratio"] == 1
            assert found[f"{name}_{which}_1_noticed"] == 1 and found[f"{name}_{which}_1_ratio"] > 2


def test_data_without_lesion_masks_are_refused(tmp_path, slices):
    from PIL import Image

    for name in ("covid", "normal"):
        (tmp_path / name).mkdir()
        for k in range(4):
            Image.fromarray(np.uint8(np.random.default_rng(k).integers(0, 255, (64, 64)))).save(
                tmp_path / name / f"{name}{k}.png")
    arm = sensitivity.studies()[0].arms("smoke")[0]
    with pytest.raises(DataError, match="lesion masks are needed"):
        sensitivity.run_arm(arm, profile="smoke", data=str(tmp_path), seed=0, device="cpu", out=tmp_path)
