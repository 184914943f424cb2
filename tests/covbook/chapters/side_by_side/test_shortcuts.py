"""Shortcut audit: planted shortcuts are told, clean images' borders are not; Grad-CAM mass against known maps."""

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation
from sklearn.metrics import roc_auc_score
from torch import nn

from covbook.chapters.side_by_side import shortcuts, tables
from covbook.chapters.side_by_side.shortcuts import (
    FEW,
    NOT_TOLD,
    TOLD,
    cam_mass,
    hide_lungs,
    plant,
    probe,
    source_audit,
    unplant,
)
from covlib.data.case import SliceSet
from covlib.errors import ConfigError, DataError
from covlib.judges import classifiers
from covlib.phantom import phantom_slices
from covlib.seeding import rng


@pytest.fixture(scope="module")
def slices():
    """48 virtual patients, a slice each, half of them ill."""
    return phantom_slices(48, size=48, per_patient=1, seed=100)


def noise(n, seed, size=32, per_patient=1):
    r = rng(seed, "noise")
    return r.uniform(-1, 1, (n, 1, size, size)).astype(np.float32), np.arange(n) // per_patient


@pytest.mark.parametrize("kind", shortcuts.PLANTS)
def test_a_planted_shortcut_is_told_without_the_lungs(slices, kind):
    marked = plant(slices.images, slices.labels == 1, kind)
    found = probe(hide_lungs(marked), slices.labels, slices.patients)
    assert found.verdict == TOLD and found.auc.value > 0.95 and found.auc.low > 0.8 and found.p <= 0.002
    sources = np.where(slices.labels == 1, "journal", "archive")
    assert probe(marked, np.unique(sources, return_inverse=True)[1], slices.patients).verdict == TOLD


def test_nothing_is_told_where_nothing_is(slices):
    told = [probe(images, rng(k, "labels").permutation(24 * [0, 1]), who, seed=k).verdict
            for k in range(20) for images, who in [noise(48, k)]]
    assert told.count(TOLD) <= 4  # 1 expected
    frame = probe(hide_lungs(slices.images), slices.labels, slices.patients)
    assert frame.verdict == NOT_TOLD or frame.auc.value < 0.8


def test_auc_is_scikit_learns_and_patients_are_held_out():
    images, who = noise(60, 1, per_patient=3)
    labels = (np.arange(60) // 3) % 3
    images += 0.3 * labels[:, None, None, None]
    found = probe(np.clip(images, -1, 1), labels, who, classes=("a", "b", "c"))
    by_hand = np.mean([roc_auc_score(labels == k, found.scores[:, k]) for k in range(3)])
    assert found.auc.value == pytest.approx(by_hand) and found.auc.n == 20 and "groups" in found.auc.method
    assert found.classes == ("a", "b", "c")
    leaks = []
    for seed in range(5):  # patients that can be recognised, with labels at random: only a leak could tell them
        r = rng(seed, "patients")
        face = np.repeat(r.uniform(-1, 1, (30, 1, 16, 16)), 6, 0)
        seen = np.clip(face.repeat(2, 2).repeat(2, 3) + 0.05 * r.normal(size=(180, 1, 32, 32)), -1, 1)
        leaks.append(probe(seen, np.repeat(r.permutation(15 * [0, 1]), 6), np.repeat(np.arange(30), 6)).auc.value)
    assert np.mean(leaks) < 0.65  # 0.95 and more if slices of a patient were on both sides


def test_few_patients_and_wrong_input():
    images, who = noise(12, 2)
    assert probe(images, np.arange(12) % 4, who).verdict == FEW
    for labels, patients, words in ((np.zeros(12), who, "two classes"), (np.arange(12) % 2, who % 2, "two patients"),
                                    (np.zeros(11), who, "one label")):
        with pytest.raises(DataError, match=words):
            probe(images, labels, patients)


def test_hiding(slices):
    frame = hide_lungs(slices.images)
    assert (frame[:, :, 6:42, 6:42] == 0).all() and np.array_equal(frame[:, :, :6], slices.images[:, :, :6])
    box, mask = (hide_lungs(slices.images, slices.lung, how=how) for how in ("box", "mask"))
    for k in range(4):
        y, x = np.nonzero(slices.lung[k])
        inside = np.zeros((48, 48), bool)
        inside[y.min() : y.max() + 1, x.min() : x.max() + 1] = True
        assert (box[k, 0][inside] == 0).all() and np.array_equal(box[k, 0][~inside], slices.images[k, 0][~inside])
        wider = binary_dilation(slices.lung[k] > 0, iterations=6)
        assert (mask[k, 0][wider] == 0).all() and np.array_equal(mask[k, 0][~wider], slices.images[k, 0][~wider])
    with pytest.raises(DataError, match="needs lung masks"):
        hide_lungs(slices.images, how="box")
    with pytest.raises(ConfigError, match="frame, box, mask"):
        hide_lungs(slices.images, how="blur")


def test_planting_and_taking_back(slices):
    where = slices.labels == 1
    for kind in shortcuts.PLANTS:
        marked = plant(slices.images, where, kind)
        assert np.array_equal(marked[~where], slices.images[~where]) and np.abs(marked).max() <= 1
        assert (np.abs(marked - slices.images)[where].max((1, 2, 3)) > 0.05).all()
    corner = plant(slices.images, True)
    changed = np.argwhere((corner != slices.images).any((0, 1)))
    assert changed.min() >= 2 and changed.max() < 6 and (corner[:, 0, 2:6, 2:6] == 1).all()
    back = unplant(corner)
    assert np.array_equal(back[:, :, 6:], slices.images[:, :, 6:]) and (back[:, 0, 2:6, 2:6] == -1).all()
    faint = np.clip(slices.images, -1, 0.7)
    assert np.allclose(unplant(plant(faint, True, "brightness"), "brightness"), faint, atol=1e-6)
    with pytest.raises(ConfigError, match="corner, brightness"):
        plant(slices.images, True, "watermark")


def test_the_audit_of_a_stitched_set(slices):
    sources = np.where(slices.labels == 1, "journal", np.where(np.arange(48) % 4 < 2, "archive", "clinic"))
    stitched = SliceSet(plant(slices.images, sources == "journal"), slices.patients, slices.names, slices.labels,
                        slices.classes)
    found = source_audit(stitched, sources)
    assert list(found) == ["class", "class, lungs hidden", "source", "source, among normal"]
    assert found["class, lungs hidden"].verdict == TOLD and found["source"].verdict == TOLD
    assert found["source, among normal"].verdict == NOT_TOLD
    text = str(tables.probe_table(found))
    assert "| class, lungs hidden |" in text and f"**{TOLD}**" in text and "48" in text
    with pytest.raises(DataError, match="no classes"):
        source_audit(SliceSet(slices.images, slices.patients, slices.names))


class Looker(nn.Module):
    """Sees the brightness of the upper left quarter and nothing else."""

    n_classes = 2

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, bias=False)
        self.conv.weight.data.fill_(1.0)
        self.register_buffer("window", torch.zeros(1, 1, 16, 16))
        self.window[..., :8, :8] = 1

    def forward(self, x):
        seen = self.conv(x) * self.window
        return torch.stack([-seen.mean((1, 2, 3)), seen.mean((1, 2, 3))], 1)


def test_cam_mass_of_a_known_map():
    images = torch.zeros(6, 1, 16, 16) + 0.5
    images[:3, :, 8:] = 0
    lung = np.zeros((6, 16, 16))
    lung[:, :4] = 2
    found = cam_mass(Looker(), images, lung, patients=[0, 0, 1, 1, 2, 2])
    # Three maps are even over the image, three over its upper half: the lungs, its upper quarter, hold 1/4 and 1/2.
    assert found.inside.value == pytest.approx(3 / 8) and found.area.value == 0.25
    assert found.gain.value == pytest.approx(1 / 8) and found.gain.n == 3
    assert found.maps.max() == 1 and (found.maps[:3, 8:] == 0).all() and found.layer == "conv, 16 x 16"
    with pytest.raises(DataError, match="no positive evidence"):
        cam_mass(Looker(), -images, lung)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "vgg16"])
def test_cam_of_torchvision_networks(name, slices):
    model = classifiers.build(name, small_stem=name != "vgg16")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    found = cam_mass(model, slices.images[:4, :, :, :], slices.lung[:4])
    assert found.maps.shape == (4, 48, 48) and 0 <= found.inside.value <= 1 and int(found.layer.split()[-1]) >= 3
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
