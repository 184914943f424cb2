"""What chapter 04 shows: readings of the HU scale, a forced alpha, tables of one run, the data set it leaves."""

import numpy as np
import pytest
import torch

from covbook import runs
from covbook.chapters.global_local import experiment
from covbook.chapters.global_local import show as chapter
from covbook.chapters.global_local.networks import listen
from covlib.data import label_maps
from covlib.data.label_maps import Paired
from covlib.errors import ConfigError
from covlib.files import layouts
from covlib.judges.features import get_extractor
from covlib.papers.global_local.method import Config, GlobalLocal
from covlib.seeding import torch_generator

SIZE = 32


@pytest.fixture(scope="module")
def roles():
    return experiment.prepare(Config.for_profile("smoke"), "phantom", 0)


@pytest.fixture(scope="module")
def method():
    return GlobalLocal(Config.for_profile("smoke"), 8, seed=3)


def test_readings_of_the_window_count_pixels():
    images = torch.tensor([-900.0, -700.0, -500.0, 0.0]).view(1, 1, 2, 2)
    maps = torch.tensor([1, 1, 1, 2], dtype=torch.uint8).view(1, 2, 2)
    paired = Paired((images + 600) / 750, maps, ["p"], ["s"], hu_window=(-600.0, 1500.0))
    readings = chapter.window_readings(paired)
    assert readings == {"range from -600 to 1500 HU": pytest.approx(2 / 3), "level -600, width 1500 HU": 0.0}
    paired.hu_window = None
    assert chapter.window_readings(paired) == {}


def test_the_range_blackens_most_healthy_lung_of_virtual_patients(roles):
    dark, kept = chapter.window_readings(roles.train).values()
    assert dark > 0.8 and kept < 0.01


def test_forced_alpha_agrees_with_the_one_that_the_network_gives(method, roles):
    maps = roles.test.maps[:1]
    given = float(listen(method, maps)["alpha"][0])
    forced = chapter.with_alpha(method, maps, given)
    own = label_maps.lung_only(method.synthesize(maps, torch_generator(0)), maps)
    torch.testing.assert_close(forced, own, atol=1e-5, rtol=0)
    assert 0 < given < 1 and (chapter.with_alpha(method, maps, 1.0) - forced).abs().max() > 1e-6


def test_alpha_must_be_a_share_of_two_generators(method, roles):
    with pytest.raises(ConfigError, match="alpha: 1.5"):
        chapter.with_alpha(method, roles.test.maps, 1.5)
    with pytest.raises(ConfigError, match="generators: 1"):
        chapter.with_alpha(GlobalLocal(Config.for_profile("smoke", {"generators": 1}), 8), roles.test.maps, 0.5)


def test_the_floor_needs_enough_slices(roles):
    extractor = get_extractor("random-conv")
    few = roles.test.subset(np.arange(3))
    assert chapter.real_floor(extractor, few, few) is None
    floor = chapter.real_floor(extractor, roles.test, roles.slices.subset(np.arange(0)), seed=0)
    assert floor is None or floor.n <= len(roles.test)
    floor = chapter.real_floor(extractor, roles.slices, roles.slices.subset(np.arange(1)), seed=0)
    assert 0 < floor.value < chapter.generative.fid(extractor(lung_only(roles)), extractor(-lung_only(roles)))


def lung_only(roles):
    return chapter.lung_pair(roles.slices)[0]


def test_tables_mark_the_best_and_leave_out_nothing():
    values = {"fid": 0.2, "fid_others": 0.3, "psnr": 20.0, "ssim": 0.5, "rmse": 0.1}
    worse = {"fid": 0.4, "fid_others": 0.2, "psnr": 19.0, "ssim": 0.4, "rmse": 0.2}
    quality = {name: {"complete": v, "lung_only": v, "inside": v} for name, v in (("a", values), ("b", worse))}
    table = chapter.quality_table(quality, {"a": "A", "b": "B"})
    assert [row[0] for row in table.rows] == ["A", "B"]
    best = [[cell.startswith("**") for cell in row[1:]] for row in table.rows]
    assert all(x != y for x, y in zip(*best))
    assert best[1] == [column == "FID, lung, other patients" for column in table.columns[1:]]

    scores = {f"{f}_{s}": 0.5 for f in experiment.FOCI for s in experiment.SCORES}
    del scores["consolidation_sensitivity"]
    row = chapter.segmentation_table({"x": scores}, {"x": "X"}).rows[0]
    assert len(row) == 10 and row.count("none drawn") == 1 and row.count("50.0") == 8


def test_the_exported_set_reads_back_and_keeps_the_source_patients(tmp_path, roles):
    run = runs.start("04_global_local", profile="smoke", out=str(tmp_path), config_cls=Config)
    made = torch.zeros_like(roles.test.images)
    folder = chapter.export(run, made, roles.test)
    back = layouts.load_slices(str(folder), size=SIZE, need=("lung", "infection"))
    assert sorted(set(back.patients)) == sorted(set(roles.test.patients))
    np.testing.assert_array_equal(label_maps.from_slices(back).maps.numpy(), roles.test.maps.numpy())
    inside = (roles.test.maps > 0).numpy()
    assert np.abs(back.images[:, 0][inside]).max() < 0.01
    np.testing.assert_allclose(back.images[:, 0][~inside], roles.test.images[:, 0].numpy()[~inside], atol=0.005)
