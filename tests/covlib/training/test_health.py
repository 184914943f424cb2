"""How often a discriminator was right: against plain loops, through ``fit``, after a kill, and in words."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tiny_gan import TinyGAN, images
from torch import nn

from covlib.errors import DataError
from covlib.training import health
from covlib.training.fit import fit
from covlib.training.method import Stage, Step

COLUMNS = ["D right real", "D right synthetic", "D right real patches", "D right synthetic patches", "D AUC"]


def by_loops(real: list[np.ndarray], fake: list[np.ndarray], threshold: float) -> list[float]:
    """The five columns, one number after the other: images by the mean over scales of the mean over patches."""
    mean = lambda side, k: sum(float(scale[k].mean()) for scale in side) / len(side)
    r, f = ([mean(side, k) for k in range(len(side[0]))] for side in (real, fake))
    patches = []
    for side, right in ((real, lambda v: v > threshold), (fake, lambda v: v < threshold)):
        patches.append(np.mean([np.mean([right(v) for v in scale.ravel()]) for scale in side]))
    order = np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a in r for b in f])
    return [np.mean([a > threshold for a in r]), np.mean([b < threshold for b in f]), *patches, order]


# Multiples of 1/8, whose means over one, two or four patches are exact: a tie is a tie in both.
logits = st.integers(-32, 32).map(lambda k: k / 8)
scale = lambda n: st.sampled_from([(n,), (n, 1), (n, 2), (n, 1, 2, 2)]).flatmap(
    lambda shape: arrays.arrays(np.float32, shape, elements=logits))
sides = st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 2)).flatmap(
    lambda n: st.tuples(st.lists(scale(n[0]), min_size=n[2], max_size=n[2]),
                        st.lists(scale(n[1]), min_size=n[2], max_size=n[2])))


@given(sides, st.sampled_from([0.0, 0.5]))
@settings(max_examples=60, deadline=None)
def test_judged_is_what_loops_count(both, threshold):
    real, fake = both
    tensors = [[torch.from_numpy(s) for s in side] for side in both]
    given = tensors if len(real) > 1 else [side[0] for side in tensors]  # a single scale needs no list
    found = health.judged("D", *given, threshold)
    assert list(found) == COLUMNS and all(health.is_health(name) for name in found)
    assert [v.item() for v in found.values()] == pytest.approx(by_loops(real, fake, threshold), abs=1e-6)


def test_judged_by_hand():
    """Two scales, two real images and one synthetic: the second real one is wrong in the mean, right in one patch."""
    real = [torch.tensor([[[[2.0, -1.0]]], [[[1.0, -4.0]]]]), torch.tensor([1.0, -1.0])]
    fake = [torch.tensor([[[[-1.0, -3.0]]]]), torch.tensor([[3.0]])]  # mean 0.5: taken for real
    found = [v.item() for v in health.judged("D", real, fake).values()]
    assert found == pytest.approx([0.5, 0.0, 0.5, 0.5, 0.5])


def test_what_is_judged_holds_no_graph():
    x = torch.ones(3, requires_grad=True)
    assert not any(v.requires_grad for v in health.judged("D", 2 * x, -x).values())


# ---- whose gradient reaches the generator ----------------------------------------------------------------------------


def make_step() -> Step:
    return Step(Stage("s", 5, 4, ("G",)), {}, None, torch.Generator().manual_seed(1), 0, 1)


def test_the_ratio_is_that_of_two_gradients_taken_apart():
    torch.manual_seed(0)
    G, D, z, real = nn.Linear(3, 6), nn.Linear(6, 2), torch.randn(4, 3), torch.randn(4, 6)
    step, fake = make_step(), G(z)
    judged, restored = step.apart(fake)
    assert torch.equal(judged, fake) and torch.equal(restored, fake)
    losses = F.softplus(-D(judged)).mean(), 7 * F.l1_loss(restored, real)
    sum(losses).backward(inputs=list(G.parameters()))
    mine = [p.grad.clone() for p in G.parameters()]

    fake = G(z)
    adversary, reconstruction = (torch.autograd.grad(loss, fake, retain_graph=True)[0] for loss in
                                 (F.softplus(-D(fake)).mean(), 7 * F.l1_loss(fake, real)))
    theirs = torch.autograd.grad(fake, list(G.parameters()), adversary + reconstruction)
    torch.testing.assert_close(mine, list(theirs))
    columns = step.health()
    assert list(columns) == [health.RATIO] and health.is_health(health.RATIO)
    assert columns[health.RATIO].item() == pytest.approx((adversary.norm() / reconstruction.norm()).item(), rel=1e-5)
    assert step.health() == {}  # read once


def test_the_lengths_of_several_images_add_up_and_ds_own_pass_does_not_count():
    step, D = make_step(), nn.Linear(2, 1)
    a, b = torch.ones(1, 2, requires_grad=True), torch.ones(1, 2, requires_grad=True)
    (judged_a, kept_a), (judged_b, kept_b) = step.apart(a), step.apart(b)
    (3 * judged_a.sum() + 4 * judged_b.sum() + kept_a.sum() + kept_b.sum()).backward(inputs=[a, b])
    assert step.health()[health.RATIO].item() == pytest.approx(5 / 2**0.5)
    judged, _ = step.apart(a)
    D(judged).sum().backward(inputs=list(D.parameters()))
    assert step.health() == {}


@pytest.mark.parametrize(("of_adversary", "of_reconstruction", "found"), [
    (9.0, 4.0, 1.5), (1.0, 0.0, health.LARGEST), (0.0, 0.0, 0.0), (1e30, 1e-30, health.LARGEST),
])
def test_the_ratio_is_always_a_finite_number(of_adversary, of_reconstruction, found):
    value = health.ratio(torch.tensor(of_adversary), torch.tensor(of_reconstruction))
    assert value.item() == pytest.approx(found)


def test_what_has_no_gradient_is_not_counted():
    step = make_step()
    step.apart(torch.ones(2))
    judged, _ = step.apart(torch.ones(2, requires_grad=True))
    judged.sum().backward()  # no reconstruction: there is no ratio
    assert step.health() == {}


def test_parts_of_a_step_count_alike():
    step = make_step()
    step.judged("D", torch.tensor([1.0, 1.0]), torch.tensor([-1.0]))
    step.judged("D", torch.tensor([1.0, -1.0]), torch.tensor([1.0]))
    assert [v.item() for v in step.health().values()] == pytest.approx([0.75, 0.5, 0.75, 0.5, 0.625])


# ---- read from a log -------------------------------------------------------------------------------------------------


def made_up(answers: list[tuple[str, float]], name: str = "D", **further) -> dict[str, list]:
    """A log with these (stage, share right about images) rows; where the share is NaN, nobody was judged."""
    shares = [right for _, right in answers]
    log = {"step": list(range(len(answers))), "stage": [stage for stage, _ in answers], "D": [1.0] * len(answers)}
    return log | {column.replace("D", name, 1): shares for column in COLUMNS} | further


def test_the_last_third_of_the_last_stage_counts():
    rows = [("one", 1.0)] * 3 + [("two", 0.0)] * 4 + [("two", 0.6), ("two", 0.8), ("two", 0.7)]
    log = made_up(rows, **{health.RATIO: [math.nan] * 7 + [0.1, 0.2, 0.6]})
    (found,) = health.health(log)
    assert (found.stage, found.discriminator) == ("two", "D")
    shares = (found.real, found.synthetic, found.real_patches, found.synthetic_patches, found.auc, found.right)
    assert shares == pytest.approx((0.75,) * 6, abs=1e-9)  # of 7 rows, the last two
    assert found.ratio == pytest.approx(0.4)


def test_stages_without_a_discriminator_are_passed_over_and_any_other_may_be_asked_for():
    log = made_up([("gan", 0.7), ("u-net", math.nan)])
    assert health.health(log)[0].stage == "gan" and math.isnan(health.health(log)[0].ratio)
    log = made_up([("one", 0.5), ("two", 0.7)])
    assert health.health(log, "one")[0].right == 0.5
    with pytest.raises(DataError, match="no discriminator's answers in stage 'three'$"):
        health.health(log, "three")
    for bare in ({"step": [1], "stage": ["one"], "G": [1.0]}, {}):
        with pytest.raises(DataError, match="no discriminator's answers$"):
            health.health(bare)


def test_each_discriminator_of_a_stage_is_told_apart():
    log = made_up([("one", 0.7), ("two", math.nan)], "D1") | made_up([("one", 0.6), ("two", 0.9)], "D2")
    assert [(h.discriminator, h.right) for h in health.health(log, "one")] == [("D1", 0.7), ("D2", 0.6)]
    assert [(h.discriminator, h.right) for h in health.health(log)] == [("D2", 0.9)]


@pytest.mark.parametrize(("right", "verdict", "words"), [
    (0.5, "at chance", "right about 50 % of images; it was at chance"), (0.0, "at chance", "right about 0 %"),
    (0.55, "plays", ""), (0.8, "plays", ""), (0.95, "plays", ""), (0.96, "perfect", "96 % of images; it was all but"),
])
def test_a_reader_is_warned_in_words(right, verdict, words):
    (found,) = health.health(made_up([("joint", right)] * 3))
    assert found.verdict == verdict and (words in found.warning if words else found.warning == "")
    assert not words or (found.warning.startswith("D, last third of stage 'joint'") and "\n" not in found.warning)


# ---- through fit -----------------------------------------------------------------------------------------------------


class Judged(TinyGAN):
    """TinyGAN that says how right its discriminator is, and paints towards nought beside deceiving it."""

    def training_step(self, batch, step):
        D, real = self.networks["D"], batch["image"]
        fake = self.make(step.randn(len(real), 4))
        d_real, d_fake = D(real), D(fake.detach())
        step.judged("D", d_real, d_fake)
        d_loss = F.softplus(-d_real).mean() + F.softplus(d_fake).mean()
        self.calls += 1
        self.on_step(self.calls, {})
        step.minimise("D", d_loss)
        judged, restored = step.apart(fake)
        g_loss = F.softplus(-D(judged)).mean()
        step.minimise("G" if step.stage.name == "first" else "R", g_loss + restored.square().mean())
        return {"D": d_loss, "G": g_loss}


def test_fit_logs_it_as_a_mean_over_steps(tmp_path):
    found = []

    class Telling(Judged):
        def training_step(self, batch, step):
            original = step.judged
            step.judged = lambda *given: (original(*given), found.append(health.judged(*given)))[0]
            try:
                return super().training_step(batch, step)
            finally:
                step.judged = original

    result = fit(Telling(steps=(6,)), {"image": images()}, tmp_path, seed=3, device="cpu", log_every=3, progress=False)
    assert list(result.log) == ["step", "stage", "D", "G", *COLUMNS, health.RATIO] and len(found) == 6
    for name in COLUMNS:
        means = np.array([step[name].item() for step in found]).reshape(2, 3).mean(1)
        assert result.log[name] == pytest.approx(means.tolist(), abs=1e-6)
    assert all(0 < r < health.LARGEST for r in result.log[health.RATIO])
    assert (tmp_path / "log.csv").read_text().startswith("step,stage,D,G,D right real,")
    assert health.health(result.log)[0].discriminator == "D"


def test_a_killed_run_goes_on_with_the_same_columns(tmp_path):
    def kill(call, losses):
        if call == 9:
            raise KeyboardInterrupt

    options = dict(seed=3, device="cpu", checkpoint_every=2, log_every=3, progress=False)
    whole = fit(Judged(), {"image": images()}, tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        fit(Judged(on_step=kill), {"image": images()}, tmp_path / "killed", **options)
    again = fit(Judged(), {"image": images()}, tmp_path / "killed", **options)
    assert again.resumed_from == 8 and again.log == whole.log
    assert (tmp_path / "killed" / "log.csv").read_bytes() == (tmp_path / "whole" / "log.csv").read_bytes()
    assert [h.stage for h in health.health(again.log)] == ["refine"]
