"""Privacy audit: memorisers are caught, honest generators pass, whatever the distance; numbers against plain loops."""

from math import comb

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from covbook.chapters.privacy import CLEAN, COPIES, FEW, TRACE, audit, power
from covbook.chapters.side_by_side.tables import audit_table
from covlib.errors import DataError
from covlib.metrics.classification import auc
from covlib.metrics.intervals import wilson
from covlib.metrics.neighbours import SIDE, FeatureSpace, PixelSpace, nearest
from covlib.phantom import phantom_slices
from covlib.seeding import rng


def people(n, per_patient=1, seed=0, size=16):
    """Smooth random pictures, (n * per_patient, 1, size, size), those of one patient alike; and whose they are."""
    r = rng(seed, "people")
    coarse = np.repeat(r.normal(size=(n, 6, 6)), per_patient, 0) + 0.3 * r.normal(size=(n * per_patient, 6, 6))
    images = np.kron(coarse, np.ones((size // 6 + 1,) * 2))[:, None, :size, :size]
    return np.clip(images / 4, -1, 1).astype(np.float32), [f"{seed}-{k // per_patient}" for k in range(len(images))]


def memoriser(train, n=None, noise=0.05, seed=0, share=1.0):
    """Training images with noise, half of them mirrored; ``share`` of them, the rest new people's."""
    r, n = rng(seed, "memoriser"), n or 3 * len(train)
    made = train[r.integers(0, len(train), n)]
    made = np.where(r.random(n)[:, None, None, None] < 0.5, made, made[..., ::-1])
    fresh = people(n, seed=seed + 777)[0]
    made = np.where(r.random(n)[:, None, None, None] < share, made, fresh)
    return np.clip(made + noise * r.normal(size=made.shape), -1, 1).astype(np.float32)


def between(space, a, b):
    """Table of distances of unprepared images or features."""
    return space.distance(space.prepare(a), space.prepare(b))


def texture(images):
    """Features: means of 4 x 4 tiles, and of the mirrored picture's."""
    tiles = images[:, 0, :16, :16].reshape(len(images), 4, 4, 4, 4).mean((2, 4))
    parts = tiles + tiles[..., ::-1], np.abs(tiles)
    return np.concatenate([part.reshape(len(images), -1) for part in parts], 1)


@pytest.mark.parametrize("space", ["pixels", "features"])
@pytest.mark.parametrize(("n_train", "n_held", "per_patient"), [(60, 30, 1), (8, 8, 1), (12, 6, 3)])
def test_a_memoriser_is_caught_and_an_honest_generator_passes(space, n_train, n_held, per_patient):
    train, who = people(n_train, per_patient, seed=1)
    held, others = people(n_held, per_patient, seed=2)
    see = texture if space == "features" else lambda x: x
    told = {"patients": who, "held_out_patients": others, "space": space}
    caught = audit(see(memoriser(train)), see(train), see(held), **told)
    assert caught.verdict in (COPIES, TRACE) and caught.membership_auc.value > 0.8
    assert caught.closer_to_train.low > caught.closer_chance and caught.p["membership_auc"] <= 0.05 / 3
    if space == "pixels":
        assert caught.verdict == COPIES and caught.near_copies.low > 0.8 and caught.near_copies_held_out.value < 0.1
    honest = audit(see(people(40, seed=3)[0]), see(train), see(held), **told)
    assert honest.verdict == CLEAN and honest.membership_auc.low < caught.membership_auc.low
    assert honest.near_copies.value < 0.2


def test_honest_generators_are_suspected_once_in_twenty_at_most():
    verdicts = []
    for seed in range(60):
        made, train, held = (people(n, seed=1000 + 3 * seed + k)[0] for k, n in enumerate((20, 12, 8)))
        verdicts.append(audit(made, train, held, permutations=200, seed=seed, crops=False).verdict)
    assert verdicts.count(CLEAN) >= 54  # 57 expected at least; 54 or fewer of 60 at a rate of 1 in 20: p = 0.08


def test_some_copies_among_new_people_are_caught():
    train, held = people(40, seed=1)[0], people(40, seed=2)[0]
    found = audit(memoriser(train, n=100, share=0.25), train, held)
    assert found.verdict == COPIES and 0.1 < found.near_copies.value < 0.45


def test_virtual_patients():
    slices = phantom_slices(36, size=32, per_patient=2, labels=("covid",), seed=100)
    parts = [slices.images[np.array([int(k // 2) in rows for k in range(72)])] for rows in
             (range(14), range(14, 24), range(24, 36))]
    who = [np.repeat(np.arange(n), 2) for n in (14, 24)]
    told = {"patients": who[0], "held_out_patients": 100 + who[1][:20]}
    assert audit(parts[2], parts[0], parts[1], **told).verdict == CLEAN
    noise = 0.05 * rng(0, "copies").normal(size=parts[0].shape)
    copied = audit(np.clip(parts[0][:, :, :, ::-1] + noise, -1, 1), *parts[:2], **told)
    assert copied.verdict == COPIES and np.array_equal(copied.nearest, np.arange(28)) and copied.near_copies.low > 0.8


def test_numbers_against_plain_loops():
    train, who = people(9, 2, seed=4)
    held, others = people(6, 1, seed=5)
    made = people(11, seed=6)[0]
    found = audit(made, train, held, patients=who, held_out_patients=others, crops=False)
    real, number = np.concatenate([train, held]), np.array(who + others)
    table = between(PixelSpace(), made, real)
    near = table.argmin(1)
    assert found.closer_to_train.value == pytest.approx(np.mean(near < len(train)))
    trained_on = (np.arange(len(real)) < len(train)).astype(int)
    assert found.membership_auc.value == pytest.approx(auc(trained_on, -table.min(0)))
    assert np.array_equal(found.nearest, table[:, :18].argmin(1)) and np.allclose(found.distance, table[:, :18].min(1))
    strangers = between(PixelSpace(), real, real)
    other = [min(strangers[i, j] for j in range(len(real)) if number[i] != number[j]) for i in range(len(real))]
    assert found.threshold == pytest.approx(np.quantile(other, 0.01), rel=1e-5)
    assert found.near_copies.value == pytest.approx(np.mean(table[:, :18].min(1) <= found.threshold))
    assert np.allclose(found.reference, strangers[18:, :18].min(1)) and found.patients == (9, 6)
    assert found.real_to_train.value == pytest.approx(np.median(found.reference))


def test_p_values_are_exact_where_all_deals_fit():
    train, held = people(4, seed=1)[0], people(3, seed=2)[0]
    found = audit(memoriser(train, 30, noise=0.4), train, held)
    assert found.smallest_p == pytest.approx(1 / comb(7, 4)) and found.verdict == FEW  # 1 in 35 is above 0.05 / 3
    assert found.p["membership_auc"] == pytest.approx(1 / comb(7, 4)) and found.exact_copies == 0


def test_a_single_exact_copy_needs_no_statistics():
    train, held, made = (people(n, seed=k)[0] for n, k in ((4, 1), (3, 2), (20, 3)))
    made[7] = 0.8 * train[2][..., ::-1] + 0.1
    found = audit(made, train, held)
    assert found.exact_copies == 1 and found.verdict == COPIES and found.nearest[7] == 2
    assert "1 exact" in str(audit_table({"": found}))


def test_distances():
    a, b = people(5, seed=1, size=SIDE)[0], people(7, seed=2, size=SIDE)[0]
    by_hand = [cdist(x.reshape(5, -1), b.reshape(7, -1), "correlation") for x in (a, a[..., ::-1])]
    assert np.allclose(between(PixelSpace(), a, b), np.minimum(*by_hand), atol=1e-4)
    assert np.allclose(between(PixelSpace(), a, 0.5 * a[..., ::-1] + 0.1).diagonal(), 0, atol=1e-5)
    r = rng(0, "features")
    x, y = r.normal(size=(4, 3)), r.normal(size=(50, 3)) * [1, 10, 0]
    by_hand = cdist(x[:, :2] / y.std(0)[:2], y[:, :2] / y.std(0)[:2]) / 2**0.5
    assert np.allclose(between(FeatureSpace(y), x, y), by_hand, rtol=1e-5)
    assert nearest(a[..., ::-1][[2]], a, mirrored=True)[0] == [2]


def test_intervals_of_shares_count_the_groups_of_synthetic_images():
    train, held, made = people(12, seed=1)[0], people(6, seed=2)[0], people(40, seed=3)[0]
    made[:8] = train[:8]  # two patients' slices are copies
    sources = [f"source {k // 4}" for k in range(40)]
    alone, grouped, single = (audit(made, train, held, groups=groups, crops=False) for groups in
                              (None, sources, [f"image {k}" for k in range(40)]))
    for share in ("near_copies", "near_copies_held_out", "closer_to_train"):
        one, many = getattr(alone, share), getattr(grouped, share)
        hits = round(40 * one.value)
        assert one == wilson(hits, 40) == getattr(single, share) and one.value == many.value
        assert (one.n, many.n) == (40, 10) and many.low <= one.low and many.high >= one.high
    assert grouped.near_copies.value == 0.2 and "count as 10" in grouped.near_copies.method  # as alike as can be
    assert grouped.near_copies.low < wilson(2, 10).low and grouped.near_copies.high > wilson(2, 10).high
    assert grouped.near_copies_held_out.high == pytest.approx(wilson(0, 10).high)
    assert (alone.verdict, alone.p, alone.membership_auc) == (grouped.verdict, grouped.p, grouped.membership_auc)
    assert grouped.nearest_train.n == 10 and grouped.nearest_train.value == alone.nearest_train.value
    assert "40 synthetic images in 10 groups" in str(audit_table({"": grouped}))
    assert "groups (" not in str(audit_table({"": alone}))


def cut_and_turned(images, n, part, seed=0, noise=0.05):
    """Crops of ``part`` of the side anywhere in the images, half of them mirrored, enlarged, with a little noise."""
    import torch
    from torch.nn import functional as F

    r, side = rng(seed, "cut and turned"), images.shape[-1]
    size, made = round(part * side), []
    for k in r.integers(0, len(images), n):
        top, left = r.integers(0, side - size + 1, 2)
        cut = torch.from_numpy(images[k : k + 1, :, top : top + size, left : left + size].copy())
        cut = F.interpolate(cut, (side, side), mode="bilinear", antialias=True).numpy()[0]
        made.append(cut[..., ::-1] if r.random() < 0.5 else cut)
    return np.clip(np.stack(made) + noise * r.normal(size=(n, *images.shape[1:])), -1, 1).astype(np.float32)


@pytest.fixture(scope="module")
def dealt():
    """Virtual patients' slices of 40 training patients, 20 held-out ones and 20 whom nobody sees, two slices each."""
    slices = phantom_slices(80, size=48, per_patient=2, seed=9)
    who = np.array(slices.patients)
    names = list(dict.fromkeys(slices.patients))
    part = [np.isin(who, names[a:b]) for a, b in ((0, 40), (40, 60), (60, 80))]
    return {key: (slices.images[rows], who[rows]) for key, rows in zip(("train", "held", "others"), part)}


@pytest.mark.parametrize("part", [0.5, 0.65])
def test_a_memoriser_that_crops_and_flips_is_caught(dealt, part):
    (train, who), (held, others) = dealt["train"], dealt["held"]
    told = {"patients": who, "held_out_patients": others}
    copies = cut_and_turned(train, 60, part)
    caught = audit(copies, train, held, **told)
    assert caught.verdict in (COPIES, TRACE) and caught.membership_auc.value > 0.6
    if part == 0.5:
        assert audit(copies, train, held, crops=False, **told).verdict == CLEAN  # whole images do not see it
    fresh = dealt["others"][0]
    for honest in (fresh, cut_and_turned(fresh, 60, part)):  # crops of strangers are no copies
        assert audit(honest, train, held, **told).verdict == CLEAN


def test_the_power_rises_with_the_share_of_copies(dealt):
    (train, who), (held, others) = dealt["train"], dealt["held"]
    found = power(cut_and_turned(train, 60, 0.65), dealt["others"][0], train, held, patients=who,
                  held_out_patients=others, shares=(0.0, 0.3, 1.0), audits=12)
    rates = [float(f) for f in found.found]
    assert rates[0] <= 0.1 and rates[-1] >= 0.9 and rates == sorted(rates) and found.images == 40
    assert found.found[0].n == found.audits == 12
    whole = power(train, dealt["others"][0], train, held, patients=who, held_out_patients=others, shares=(0.05,),
                  audits=4, crops=False)
    assert float(whole.found[0]) == 1.0  # two exact copies among 40
    with pytest.raises(DataError, match="1 to 40 are possible"):
        power(train, dealt["others"][0], train, held, images=41)


@pytest.mark.parametrize("per_source", [1, 4])
def test_a_memoriser_is_caught_and_an_honest_generator_passes_where_images_hang_on_patients(per_source):
    train, held = people(20, seed=1)[0], people(10, seed=2)[0]
    sources = [f"source {k // per_source}" for k in range(40)]
    caught, honest = (audit(made, train, held, groups=sources)
                      for made in (memoriser(train, 40), people(40, seed=3)[0]))
    assert caught.verdict == COPIES and caught.near_copies.low > caught.near_copies_held_out.high
    assert caught.closer_to_train.low > caught.closer_chance
    assert honest.verdict == CLEAN and honest.closer_to_train.low <= honest.closer_chance <= honest.closer_to_train.high


def test_a_table_of_audits():
    train, held = people(12, seed=1)[0], people(12, seed=2)[0]
    audits = {"copier": audit(memoriser(train), train, held), "honest": audit(people(40, seed=3)[0], train, held)}
    text = str(audit_table(audits))
    for words in (f"**{COPIES}**", CLEAN, "12 real ones of 12 patients", "36 synthetic images, 12", "or 40 synthetic"):
        assert words in text


@pytest.mark.parametrize(("change", "words"), [
    ({"held_out": np.zeros((3, 1, 8, 8))}, "one kind"), ({"synthetic": np.full((3, 1, 16, 16), np.nan)}, "NaN"),
    ({"train": np.zeros((1, 1, 16, 16))}, "at least 2"), ({"patients": ["a"]}, "1 names for 6"),
    ({"patients": list("abcdef"), "held_out_patients": list("fghi")}, "'f' is both"),
    ({"groups": ["a"]}, "1 groups for 5")])
def test_what_does_not_fit_is_refused(change, words):
    settings = {"synthetic": people(5, seed=1)[0], "train": people(6, seed=2)[0], "held_out": people(4, seed=3)[0]}
    with pytest.raises(DataError, match=words):
        audit(**{**settings, **change})
