"""The game's section: twins of settings, what is kept of a log, and sets of images compared."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from covbook import runs
from covbook.chapters import game
from covbook.plots import right_curves
from covlib.errors import DataError
from covlib.papers import cosingan, cyclegan, dcgan, global_local
from covlib.papers.cgan3d.method import Config as Config3d
from covlib.papers.dcgan.method import DCGAN
from covlib.training.fit import fit
from covlib.training.health import Health


@pytest.fixture
def run(tmp_path):
    return runs.start("03_dcgan", profile="smoke", out=str(tmp_path / "run"), config_cls=dcgan.Config)


@pytest.mark.parametrize("cls", [dcgan.Config, global_local.Config, cosingan.Config, cyclegan.Config, Config3d])
def test_a_twin_differs_by_its_discriminator_and_its_length_alone(cls):
    more = {"gan_loss": "hinge"} if cls is cyclegan.Config else {}
    ours = cls.for_profile("smoke", {"discriminator": "projected", "twin": 2.5, **more})
    twin = game.twin(ours)
    changed = {k: v for k, v in twin.as_dict().items() if ours.as_dict()[k] != v}
    longer = {k: round(2.5 * ours.as_dict()[k]) for k in changed if k.startswith("epochs")}
    expected = {"discriminator": "paper", "twin": 0.0} | longer | ({"gan_loss": "least_squares"} if more else {})
    expected |= {"diff_augment": False} if cls is dcgan.Config else {}  # the paper's D sees images as they are
    assert longer and changed == expected
    assert game.twin(twin) is None and game.twin(cls.for_profile("paper")) is None
    assert (game.name_of(ours), game.name_of(twin)) == (game.OURS, game.THEIRS)


@pytest.mark.parametrize("cls", [dcgan.Config, global_local.Config, cyclegan.Config, Config3d])
def test_where_steps_are_given_a_twin_has_more_of_them_in_the_same_shares(cls):
    more = {"gan_loss": "hinge"} if cls is cyclegan.Config else {}
    ours = cls.for_profile("smoke", {"discriminator": "projected", "twin": 1.7, "steps": 100, **more})
    twin = game.twin(ours)
    assert twin.steps == 170 and [twin.steps_of(9), ours.steps_of(9)] == [170, 100]
    assert all(getattr(twin, name) == getattr(ours, name) for name in game.LENGTHS[1:] if hasattr(ours, name))


def test_of_a_training_the_game_is_kept_and_drawn(run, tmp_path):
    config = dcgan.Config.for_profile("smoke", {"image_size": 28, "width": 4, "discriminator": "paper"})
    result = fit(DCGAN(config, 8, 0), {"image": torch.rand(8, 1, 28, 28) * 2 - 1}, tmp_path / "fit", device="cpu",
                 log_every=1, progress=False)
    found = game.logs(config, result, None, None)
    assert list(found) == [game.THEIRS] and game.logs(config, None, None, None) == {}
    table = game.keep(run, found)
    assert len(table.rows) == 1 and table.rows[0][:2] == [game.THEIRS, "D"]
    kept = {m["name"]: m["value"] for m in run.metrics}
    assert set(kept) == {f"d_{what}_paper_d" for what in ("right_real", "right_synthetic", "auc")}
    last = result.log["D right real"][-max(1, len(result.log["step"]) // 3):]
    assert kept["d_right_real_paper_d"] == pytest.approx(np.mean(last))
    figure = right_curves(found)
    assert len(figure.axes) == 1 and len(figure.axes[0].lines) == 3  # real, synthetic, and a half


def test_a_game_that_nobody_played_is_said_in_words(run):
    bad = {"step": [1, 2, 3], "stage": ["joint"] * 3, "D right real": [0.5] * 3, "D right synthetic": [0.5] * 3,
           "D right real patches": [0.5] * 3, "D right synthetic patches": [0.5] * 3, "D AUC": [0.5] * 3}
    table = game.keep(run, {game.OURS: bad})
    assert table.rows[0][-1].startswith("at chance") and any("at chance" in note for note in run.notes)
    assert game.keep(run, {}).rows == []


def test_sets_are_compared_with_as_many_real_images(run):
    r = np.random.default_rng(0)
    real = np.clip(gaussian_filter(r.standard_normal((40, 1, 40, 40)), (0, 0, 0.7, 0.7)), -1, 1).astype(np.float32)
    sharp, soft = real[:20], gaussian_filter(real[20:], (0, 0, 1.5, 1.5))
    table = game.compare(run, real[20:], {game.OURS: sharp, game.THEIRS: soft})
    kept = {m["name"]: (m["value"], m["n"]) for m in run.metrics}
    assert kept["fid_projected_discriminator"][0] < kept["fid_paper_discriminator"][0]
    assert kept["detail_projected_discriminator"][0] == pytest.approx(1, abs=0.3)
    assert kept["detail_paper_discriminator"][0] < 0.1 and {n for _, n in kept.values()} == {20}
    assert "Lite2" in table.note
    with pytest.raises(DataError, match="as many"):
        game.compare(run, real, {game.OURS: sharp})


def test_verdicts_meet_at_their_bounds():
    health = lambda right: Health("s", "D", right, right, right, right, right, float("nan"))
    assert [health(v).verdict for v in (0.54, 0.56, 0.94, 0.96)] == ["at chance", "plays", "plays", "perfect"]


def test_a_cosingan_that_plays_against_the_papers_discriminator_has_a_projected_twin():
    ours = cosingan.Config.for_profile("cpu")
    twin = game.twin(ours)
    assert (ours.discriminator, twin.discriminator, twin.twin) == ("paper", "projected", 0)
    assert list(twin.lengths(64)) == [pytest.approx(ours.twin * n, abs=ours.finest) for n in ours.lengths(64)]
    assert game.twin(cosingan.Config.for_profile("long")).discriminator == "paper"
    assert game.twin(cosingan.Config.for_profile("paper")) is None
