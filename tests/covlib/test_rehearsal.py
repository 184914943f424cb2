"""A rehearsal: every training is cut and timed, and without one nothing changes."""

import itertools

import numpy as np
import pytest
import torch
from tiny_gan import TinyGAN

from covlib import parallel, rehearsal
from covlib.errors import ConfigError
from covlib.judges import segmenters
from covlib.training.fit import fit


def images(n=12):
    return torch.linspace(-1, 1, n * 64).view(n, 1, 8, 8)


def test_every_stage_of_fit_takes_two_steps_of_few_samples(tmp_path):
    method = TinyGAN(noise=False)
    whole = [(stage.name, stage.steps, stage.batch_size) for stage in method.stages]
    with rehearsal.rehearsing(steps=2, batch=2, clock=itertools.count(step=3).__next__) as noted:
        result = fit(method, {"image": images()}, tmp_path, device="cpu", progress=False)
    assert [(t.stage, t.steps, t.batch) for t in noted.trainings] == whole
    for training, (_, steps, batch) in zip(noted.trainings, whole):
        assert training.taken == min(2, batch) and training.seconds == [3] * min(2, steps)
        assert training.step_seconds == 3 * batch / 2
        assert training.hours == pytest.approx(1.5 * batch * steps / 3600)
    assert len(result.log["step"]) == sum(min(2, steps) for _, steps, _ in whole)


def test_the_epoch_in_which_a_method_settles_is_cut_too(tmp_path):
    class Settling(TinyGAN):
        seen = 0

        def settle(self, batches):
            for batch in batches:
                self.seen += len(batch["image"])

    whole, cut = Settling(), Settling()
    fit(whole, {"image": images()}, tmp_path / "whole", device="cpu", progress=False)
    with rehearsal.rehearsing(steps=2, batch=2, clock=itertools.count(step=3).__next__) as noted:
        fit(cut, {"image": images()}, tmp_path / "cut", device="cpu", progress=False)
    last = noted.trainings[-1]
    assert whole.seen >= 12 and cut.seen == 4  # every image once at least; two batches of two
    assert (last.stage, last.steps, last.batch, last.seconds) == ("settle", 6, 2, [3, 3])


@pytest.mark.parametrize("augmented", [True, False])
def test_a_judge_takes_two_steps_and_is_left_ready(augmented):
    net = segmenters.build("unet", 3, width=4)
    x, maps = torch.rand(40, 1, 16, 16), torch.zeros(40, 16, 16, dtype=torch.uint8)
    with rehearsal.rehearsing(steps=2, batch=1) as noted:
        history = segmenters.train_segmenter(net, x, maps, steps=500, batch_size=4, settle_augmented=augmented)
    training, = noted.trainings
    assert (training.steps, training.batch, training.taken, len(training.seconds)) == (500, 4, 2, 2)
    assert history["steps"] == 2 and not net.training


def test_without_a_rehearsal_nothing_is_cut(tmp_path):
    assert not rehearsal.active() and rehearsal.cut("judge", "", 500, 16) == (500, 16)
    rehearsal.step_done()
    first, second = TinyGAN(), TinyGAN()
    fit(first, {"image": images()}, tmp_path / "a", device="cpu", progress=False)
    with rehearsal.rehearsing(1, 2):
        fit(TinyGAN(), {"image": images()}, tmp_path / "b", device="cpu", progress=False)
    fit(second, {"image": images()}, tmp_path / "c", device="cpu", progress=False)  # the rehearsal left nothing behind
    for name, net in first.networks.items():
        for a, b in zip(net.parameters(), second.networks[name].parameters()):
            assert torch.equal(a, b)


def test_jobs_stay_in_this_process_while_it_counts():
    with rehearsal.rehearsing():
        assert parallel.spread(_counted, [(k,) for k in range(3)], workers=3) == [True] * 3


def _counted(k: int) -> bool:
    return rehearsal.active()


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="0 steps of 0 samples"), rehearsal.rehearsing(steps=0):
        pass
    with rehearsal.rehearsing(), pytest.raises(ConfigError, match="another one is under way"), rehearsal.rehearsing():
        pass
    assert not rehearsal.active()


def test_busy_seconds_are_those_of_the_processor():
    clock = rehearsal.busy_clock(2)
    before = clock()
    while clock() == before:
        np.linalg.norm(np.ones((50, 50)) @ np.ones((50, 50)))
    assert clock() > before
