"""Virtual slices beside real ones: vessels out to the pleura, an uneven border of the heart, fissures, noise of rays.

What real slices measure is recorded here; the last test measures it anew where there are real slices. Before vessels
fanned out and hearts had a border, ``outer_share`` was 0.41 and ``border_roughness`` 0.7 mm.
"""

from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
from likeness import border_roughness, lungs, resampled, vessel_share
from scipy import ndimage
from scipy.spatial import cKDTree

from covlib.files.scans import read_nifti
from covlib.phantom import generate, sample
from covlib.phantom.generator import Subject, _axes
from covlib.phantom.grid import Grid
from covlib.phantom.scanner import scan
from covlib.phantom.vessels import Tubes, placer

REAL_OUTER, REAL_CLEAR = 0.82, 0.64  # outer_share of ten real slices, and of the four of them with the least disease
REAL_BORDER = 2.3  # mm, median of the ten


def outer_share(shares):
    """Vessels per area 2 to 10 mm below the lung's edge over that 10 to 40 mm below it; sums of ``vessel_share``."""
    seen, area = np.sum(shares, 0).T
    return (seen[:2].sum() / area[:2].sum()) / (seen[2:].sum() / area[2:].sum())


def test_vessels_reach_the_pleura_and_hearts_have_an_uneven_border_as_on_real_slices():
    shares, rough = [], []
    for number in range(4):
        case = generate(number, label="normal", modality="A", shape=(1, 384, 384), levels=(0.3, 0.4, 0.5, 0.6))
        for hu in case.hu:
            hu = resampled(hu.astype(float), case.spacing[2])
            mask = lungs(hu)
            shares.append(vessel_share(hu, mask))
            rough.append(border_roughness(mask))
    assert 0.75 * REAL_CLEAR < outer_share(shares) < 1.2 * REAL_OUTER
    nearest = np.sum(shares, 0)[0]
    assert 0.03 < nearest[0] / nearest[1] < 0.12  # vessels within 5 mm of the edge; real: 0.04 (least ill) to 0.075
    assert 0.5 * REAL_BORDER < np.median(rough) < 1.5 * REAL_BORDER


def tree(number):
    subject = Subject(sample(number, label="normal"))
    vessels = subject.trees.vessels
    hila = placer(subject.anatomy)(np.array([[-38, 6, 130], [40, 10, 130]], np.float32))
    middle = (vessels.start + vessels.end) / 2
    outward = middle - hila[(middle[:, 0] > hila.mean(0)[0]).astype(int)]
    along = vessels.end - vessels.start
    length = np.linalg.norm(along, axis=1)
    cosine = (along * outward).sum(1) / (length * np.linalg.norm(outward, axis=1) + 1e-6)
    return subject, middle, length, (vessels.r0 + vessels.r1) / 2, cosine


def test_vessels_run_away_from_the_hilum_and_get_thin_towards_the_pleura():
    subject, middle, length, radius, cosine = tree(1)
    wide = radius > 0.9
    assert np.average(cosine[wide], weights=length[wide]) > 0.68  # 0.62 where they wandered
    depth = subject.map.depth[cKDTree(subject.map.points).query(middle)[1]]
    near, far = depth < 12, depth > 45
    assert length[depth < 15].sum() > 0.27 * length.sum()  # 0.23
    assert radius[near].max() < 1.5 < radius[far].max()
    assert np.average(radius[near], weights=length[near]) < 0.8 * np.average(radius[far], weights=length[far])


def test_both_lungs_show_a_major_fissure_with_gaps_and_few_vessels_beside_it():
    shown, whole, beside = [], [], []
    for number in range(4):
        patient = sample(number, label="normal")
        subject = Subject(patient, 0.75)
        y, x = _axes(patient, 400, 400)
        z = np.array([0.35, 0.5, 0.65]) * patient.height_mm
        hu, lung, _ = subject.render(z, y, x, 1.25, noise=False)
        shape = subject.anatomy.shape(Grid(z, y, x, 1.25))
        gap = np.abs(shape.oblique)
        for side in (1, 2):
            inside = (lung == side) & (shape.lung < -4) & (np.abs(shape.x) > 70)
            line, near, far = (inside & (gap >= a) & (gap < b) for a, b in ((0, 0.5), (2, 4), (8, 16)))
            contrast = hu[line] - np.median(hu[near])
            shown.append((contrast > 60).mean() > 0.4)
            whole.append((contrast > 150).mean() > 0.97)
            beside.append((hu[near] > -700).mean() / (hu[far] > -700).mean())
    assert np.mean(shown) >= 0.8 and np.mean(whole) < 0.5
    assert np.mean(beside) < 0.6


def test_the_minor_fissure_is_the_right_lung_s_alone():
    found = {1: 0.0, 2: 0.0}
    for number in range(4):
        patient = sample(number, label="normal")
        subject = Subject(patient, 1.5)
        y, x = _axes(patient, 200, 200)
        z = np.arange(0.42, 0.52, 0.01) * patient.height_mm
        hu, lung, _ = subject.render(z, y, x, 1.0, noise=False)
        shape = subject.anatomy.shape(Grid(z, y, x, 1.0))
        gap = np.abs(shape.horizontal)
        for side in found:
            inside = (lung == side) & (shape.lung < -6) & (shape.oblique > 8) & (np.abs(shape.x) > 70)
            found[side] += (np.median(hu[inside & (gap < 0.4)]) - np.median(hu[inside & (gap > 4) & (gap < 8)])) / 4
    assert found[2] > 60 > abs(found[1]) + 40


def test_noise_is_strongest_where_rays_cross_most_tissue_and_streaks_along_them():
    patient = replace(sample(0), kernel="medium", noise_hu=20.0, number=0)
    n, dx = 256, 1.2
    axis = (np.arange(n) - n / 2) * dx
    body = np.zeros((1, n, n), np.float32)
    body[:, 40:216, 100:156] = 1
    body[:, 150:190, 10:246] = 1  # shoulders
    grid = Grid(np.zeros(1), axis, axis, 1.0)
    noise = scan(np.full_like(body, 40), grid, patient, [0], body)[0] - 40
    wide, narrow = noise[154:186, 104:152], noise[60:140, 104:152]
    assert wide.std() > 1.3 * narrow.std()
    along = lambda a, b: np.corrcoef(a.ravel(), b.ravel())[0, 1]
    streak = [along(wide[:, :-1], wide[:, 1:]), along(wide[:-1], wide[1:])]
    assert streak[0] > streak[1] + 0.05
    inside = noise[body[0] > 0]
    assert inside.std() == pytest.approx(20 * noise_left(dx), rel=0.25)


def noise_left(dx):
    """Share of the noise that is left in pixels of ``dx`` mm, on a flat body."""
    patient = replace(sample(0), kernel="medium", noise_hu=1.0, number=0)
    axis = np.arange(128) * dx
    flat = np.ones((1, 128, 128), np.float32)
    return scan(0 * flat, Grid(np.zeros(1), axis, axis, 1.0), patient, [0], flat).std()


def test_dose_differs_from_patient_to_patient():
    level = [p.noise_hu for p in (sample(i) for i in range(200)) if p.kernel == "medium" and p.thickness_mm == 1.25]
    assert max(level) > 2 * min(level)


def test_the_markings_of_a_film_thin_out_from_the_hila():
    project = import_module("covlib.phantom.xray")._project
    rings = np.zeros(3)
    for number in (0, 1):
        subject = Subject(sample(number, label="normal"))
        p, size = subject.patient, 96
        film = project(subject, size)
        none = lambda tubes: Tubes(*(part[:0] for part in tubes.parts()))
        trees = subject.trees
        subject.tissue.trees = replace(
            trees, vessels=none(trees.vessels), bronchi=none(trees.bronchi), bronchus_level=trees.bronchus_level[:0])
        marks = film - project(subject, size)
        dx = max(1.32 * p.height_mm, 324 * p.width) / size
        row, column = np.mgrid[:size, :size]
        z, x = 1.15 * p.height_mm - (row + 0.5) * dx, (column - (size - 1) / 2) * dx
        away = np.minimum(*(np.hypot(x - side * p.width, z - 0.53 * p.height_mm) for side in (-40, 40)))
        rings += [marks[(away >= a) & (away < b)].mean() for a, b in ((10, 30), (30, 60), (60, 90))]
        fine = marks - ndimage.gaussian_filter(marks, 4)
        assert fine[(away > 60) & (away < 80)].std() > 0.002  # and do not end half-way
    assert rings[0] > 1.4 * rings[1] > 1.4 * 1.4 * rings[2] > 0


def test_real_slices_measure_what_is_recorded_here(real_data):
    shares, rough = [], []
    for file in sorted((real_data / "ct_slices_hu").glob("*.nii.gz")):
        volume = read_nifti(file)
        hu = resampled(volume.array[0].astype(float), volume.spacing[2])
        mask = lungs(hu)
        shares.append(vessel_share(hu, mask))
        rough.append(border_roughness(mask))
    assert outer_share(shares) == pytest.approx(REAL_OUTER, abs=0.05)
    assert outer_share([shares[i] for i in (4, 5, 8, 9)]) == pytest.approx(REAL_CLEAR, abs=0.05)
    assert np.median(rough) == pytest.approx(REAL_BORDER, abs=0.2)
