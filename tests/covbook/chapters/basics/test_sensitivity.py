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
    real = sensitivity.every_extractor(slices.images)
    found = sensitivity.measure(slices, real, "noise", (0.0, 0.6), repeats=3, seed=0)
    assert found["n"] == 24 and len(found) == 1 + 4 * len(names)
    for name in names:
        assert found[f"{name}_0_noticed"] == 0 and found[f"{name}_0_ratio"] == 1
        assert found[f"{name}_1_noticed"] == 1 and found[f"{name}_1_ratio"] > 2


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


def test_what_is_recorded_becomes_a_figure_and_a_table(monkeypatch):
    """Two of three seeds are not all; what is noticed once and then no more is not noticed."""
    noticed = {"a": ([0, 1, 1], [0, 1, 1], [1, 1, 1]), "b": ([1, 0, 0], [1, 0, 0], [1, 0, 0])}
    runs = [{"metrics": {"n": 48.0} | {f"{name}_{k}_noticed": float(seeds[seed][k])
                                       for name, seeds in noticed.items() for k in range(3)}} for seed in range(3)]
    arm = {"name": "wrong-anatomy", "settings": {"strength": "pixels", "strengths": [0.5, 1.0, 2.0]}, "runs": runs}
    monkeypatch.setattr("covbook.studies.load", lambda name: [{"arms": [arm]}])
    panels, seeds, n = sensitivity.noticed()
    assert panels == {"wrong anatomy: pixels": ([0.5, 1.0, 2.0], {"a": [1, 3, 3], "b": [3, 0, 0]})}
    assert (seeds, n) == (3, 48)
    assert sensitivity.table().rows == [["`a`", "1"], ["`b`", "–"]]
    texts = [t.get_text() for t in sensitivity.figure().axes[0].texts]
    assert texts == ["1", "3", "3", "3", "0", "0"]


def test_without_a_recording_it_is_said_how_to_make_one(monkeypatch):
    monkeypatch.setattr("covbook.studies.load", lambda name: [])
    assert not sensitivity.recorded() and "covlib sweep" in sensitivity.table().note
    with pytest.raises(DataError, match="nothing recorded yet; covlib sweep judging-sensitivity"):
        sensitivity.figure()
