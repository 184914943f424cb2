"""The projected discriminator: shapes, what is frozen and what learns, the same numbers wherever it is made."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from covlib import pretrained
from covlib.errors import ConfigError
from covlib.losses import hinge_discriminator
from covlib.projected import CHANNELS, ProjectedDiscriminator, Projection
from covlib.seeding import torch_generator
from covlib.training.health import judged
from covlib.training.method import seeded


def make(*args, seed=0, **kwargs) -> ProjectedDiscriminator:
    with seeded(seed, "projected"):
        return ProjectedDiscriminator(*args, **kwargs)


def pictures(n=2, side=64, channels=1, key="x"):
    return torch.rand(n, channels, side, side, generator=torch_generator(0, "projected", key)) * 2 - 1


def fingerprint(D, x, condition=None) -> str:
    with torch.no_grad():
        return hashlib.sha256(D.eval()(x, condition).numpy().tobytes()).hexdigest()


@pytest.fixture(scope="module")
def D():
    return make()


@pytest.fixture(scope="module")
def told():
    return make(3)


# ---- shapes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [32, 56, 64, 112, 128])
def test_every_head_ends_at_the_coarsest_stride(D, side):
    *maps, logits = D.features(pictures(2, side))
    assert [m.shape for m in maps] == [(2, CHANNELS, -(-side // s), -(-side // s)) for s in (2, 4, 8, 16)]
    assert logits.shape == (2, 4, -(-side // 16), -(-side // 16)) and logits.isfinite().all()
    grey = pictures(2, side)
    torch.testing.assert_close(D.eval()(grey), D(grey.expand(-1, 3, -1, -1)))  # grey is colour of three equal channels


@pytest.mark.parametrize(("strides", "enlarge"), [((1, 2, 4, 8), 2), ((4, 8, 16, 32), 1), ((8,), 1), ((1, 2), 4)])
def test_other_strides_and_enlarged_images(strides, enlarge):
    *maps, logits = make(0, strides, enlarge).features(pictures(1, 32))
    assert [m.shape[-1] for m in maps] == [-(-32 // s) for s in strides]
    assert logits.shape == (1, len(strides), -(-32 // strides[-1]), -(-32 // strides[-1]))


@pytest.mark.parametrize(("strides", "enlarge", "words"), [
    ((1, 2), 1, "strides: .1, 2. at 1 times the size; strides out of 2, 4, 8, 16, 32"), ((3, 6), 1, "out of"),
    ((), 1, "out of"), ((2, 64), 1, "out of"), ((16, 32), 2, "at 2 times the size; strides out of 1, 2, 4, 8, 16"),
    ((8, 2), 1, "finest first"),
])
def test_strides_that_do_not_fit_are_refused(strides, enlarge, words):
    with pytest.raises(ConfigError, match=words) as refused:
        Projection(strides, enlarge)
    assert "\n" not in str(refused.value)


# ---- what learns -----------------------------------------------------------------------------------------------------


def test_nothing_frozen_is_kept_moved_or_learnt(told):
    names = {*told.state_dict(), *(k for k, _ in told.named_parameters()), *(k for k, _ in told.named_buffers())}
    assert names and all(name.startswith("heads.") for name in names)
    assert sum(p.numel() for p in told.parameters()) < 1e6 and all(p.requires_grad for p in told.parameters())
    frozen = told.projection._fixed[0]
    told.train()
    assert not any(m.training for m in frozen.modules()) and not any(p.requires_grad for p in frozen.parameters())
    told.requires_grad_(False).requires_grad_(True)  # as fit freezes and thaws
    assert not any(p.requires_grad for p in frozen.parameters())


def test_gradients_reach_the_image_and_every_head_and_no_frozen_weight(told):
    x, condition = pictures(2).requires_grad_(), pictures(2, channels=3, key="c")
    frozen = {k: v.clone() for k, v in told.projection._fixed[0].state_dict().items()}
    told.zero_grad()
    told(x, condition).mean().backward()
    assert (x.grad.flatten(1).abs().sum(1) > 0).all() and x.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in told.parameters())
    assert all(p.grad is None for p in told.projection._fixed[0].parameters())
    assert all(torch.equal(frozen[k], v) for k, v in told.projection._fixed[0].state_dict().items())


def test_a_weight_file_loads_into_another(told):
    other = make(3, seed=5)
    x, condition = pictures(2), pictures(2, channels=3, key="c")
    assert fingerprint(other, x, condition) != fingerprint(told, x, condition)
    other.load_state_dict(told.state_dict())
    assert fingerprint(other, x, condition) == fingerprint(told, x, condition)


# ---- condition -------------------------------------------------------------------------------------------------------


def test_the_condition_is_seen_and_not_projected(told):
    told.eval()
    x, a, b = pictures(2), pictures(2, channels=3, key="a"), pictures(2, channels=3, key="b")
    assert not torch.equal(told(x, a), told(x, b)) and not torch.equal(told(x, a), told(-x, a))
    assert torch.equal(told.projection(x)[0], told.features(torch.cat([a, x], 1))[0])  # maps do not know of it
    assert torch.equal(told(x, a), told.features(torch.cat([a, x], 1))[-1])


# ---- the same numbers everywhere -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_made_in_another_process_it_says_the_same():
    here = fingerprint(make(), torch.linspace(-1, 1, 2 * 32 * 32).view(2, 1, 32, 32))
    code = ("import sys; sys.path.insert(0, sys.argv[1]); import torch; torch.set_num_threads(int(sys.argv[2])); "
            "from test_projected import fingerprint, make; "
            "print(fingerprint(make(), torch.linspace(-1, 1, 2 * 32 * 32).view(2, 1, 32, 32)))")
    done = subprocess.run([sys.executable, "-c", code, str(__file__).rsplit("/", 1)[0], str(torch.get_num_threads())],
                          capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == here, done.stderr


def test_made_twice_it_says_the_same():
    x = torch.linspace(-1, 1, 2 * 32 * 32).view(2, 1, 32, 32)
    first, second, other = (fingerprint(make(seed=s), x) for s in (0, 0, 1))
    assert first == second != other


def test_mixing_is_fixed_by_numpy_whatever_torchs_random_state():
    """A sum of the fixed weights: it must not change, or trained heads would look through other eyes."""
    torch.manual_seed(7)
    fixed = Projection()._fixed[0]
    sums = [float(p.double().abs().sum()) for key in ("across", "down") for p in fixed[key].parameters() if p.ndim > 1]
    assert len(sums) == 7 and sum(sums) == pytest.approx(4988.29382, rel=1e-6)


# ---- without the wheel -----------------------------------------------------------------------------------------------


def test_without_the_wheel_a_named_network_stands_in(monkeypatch, caplog):
    monkeypatch.setattr(pretrained, "lite_file", lambda name: None)
    monkeypatch.setattr(pretrained, "_said", set())
    D = make(1)
    assert D.note.startswith("a fixed random network instead of EfficientNet-Lite0") and "pip install" in D.note
    assert sum(D.note in r.getMessage() for r in caplog.records) == 1
    x, condition = pictures(2), pictures(2, key="c")
    assert fingerprint(D, x, condition) == fingerprint(make(1), x, condition)
    for side in (32, 56):
        x = pictures(2, side).requires_grad_()
        *maps, logits = D.look(x, pictures(2, side, key="c"))
        assert [m.shape[-1] for m in maps] == [-(-side // s) for s in (2, 4, 8, 16)]
        assert logits.shape == (2, 4, -(-side // 16), -(-side // 16)) and logits.isfinite().all()
        logits.mean().backward()
        assert x.grad.abs().sum() > 0
    assert all(name.startswith("heads.") for name in D.state_dict())
    *maps, logits = make(0, (4, 8, 16, 32)).features(pictures(1, 64))
    assert [m.shape[-1] for m in maps] == [16, 8, 4, 2] and logits.shape == (1, 4, 2, 2)


# ---- it sees ---------------------------------------------------------------------------------------------------------


def test_it_tells_blurred_images_from_sharp_ones_within_a_few_steps():
    """Structure of lungs' scale with fine texture on it; blurred by five pixels."""
    coarse = nn.functional.interpolate(pictures(16, 8, key="coarse"), 64, mode="bicubic")
    sharp = (0.6 * coarse + 0.3 * pictures(16, 64, key="fine")).clamp(-1, 1)
    blurred = nn.functional.avg_pool2d(sharp, 5, 1, 2)
    D = make().train()
    optimiser = torch.optim.Adam(D.parameters(), 2e-4, (0.0, 0.99))
    for _ in range(15):
        loss = hinge_discriminator(D(sharp[:8]), D(blurred[:8]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        held_out = judged("D", D.eval()(sharp[8:]), D(blurred[8:]))
    assert held_out["D AUC"] > 0.95 and np.isfinite(loss.item())
