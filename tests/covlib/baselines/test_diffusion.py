"""The diffusion model: noising, target and DDIM against formulas in float64, conditions, training, errors."""

import math

import pytest
import torch
from rivals import gradients, paired, touched

from covlib.baselines.diffusion import Config, Diffusion, check_sampling
from covlib.errors import ConfigError, DataError
from covlib.seeding import torch_generator
from covlib.training.fit import fit


def small(**changes):
    return Config.for_profile("smoke", {"timesteps": 100, "sampling_steps": 4, **changes})


def cosine(T: int) -> torch.Tensor:
    """Products of alphas of Nichol and Dhariwal (2021), Eq. 17, betas at most 0.999; float64 (T,)."""
    f = [math.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(T + 1)]
    betas = [min(1 - f[t + 1] / f[t], 0.999) for t in range(T)]
    return torch.tensor([1 - b for b in betas], dtype=torch.float64).cumprod(0)


def linear(T: int) -> torch.Tensor:
    """Ho et al. (2020), section 4: betas from 1e-4 to 0.02."""
    return (1 - torch.linspace(1e-4, 0.02, T, dtype=torch.float64)).cumprod(0)


# ---- the mathematics -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, products", [("cosine", cosine), ("linear_beta", linear)])
def test_noising_is_the_formula(name, products):
    """Ho et al., Eq. 4."""
    method = Diffusion(small(noise_schedule=name), 4)
    draws = torch_generator(0, "noising")
    x, e = (torch.randn(5, 1, 8, 8, generator=draws) for _ in range(2))
    t = torch.tensor([0, 1, 17, 60, 99])
    a = products(100)[t].view(-1, 1, 1, 1)
    wanted = a.sqrt() * x.double() + (1 - a).sqrt() * e.double()
    assert torch.allclose(method.forward_process.add_noise(x, e, t).double(), wanted, atol=2e-5)


def test_target_is_noise_or_velocity():
    draws = torch_generator(0, "target")
    x, e = (torch.randn(3, 1, 8, 8, generator=draws) for _ in range(2))
    t = torch.tensor([3, 50, 90])
    a = cosine(100)[t].view(-1, 1, 1, 1)
    velocity = a.sqrt() * e.double() - (1 - a).sqrt() * x.double()
    assert torch.allclose(Diffusion(small(), 4).target(x, e, t).double(), velocity, atol=2e-5)
    assert Diffusion(small(predict="epsilon"), 4).target(x, e, t) is e


def told(image, method):
    """A network that knows the image and says the right velocity."""
    def predict(noisy, t, condition):
        a = cosine(method.config.timesteps)[t].view(-1, 1, 1, 1)
        noise = (noisy.double() - a.sqrt() * image) / (1 - a).sqrt()
        return (a.sqrt() * noise - (1 - a).sqrt() * image).float()

    return predict


@pytest.mark.parametrize("steps", [1, 2, 4, 10, 50])
def test_ddim_is_the_formula_and_ends_at_the_image(steps, monkeypatch):
    """Song et al. (2021), Eq. 12 with sigma 0, in float64; a network that is right ends exactly at its image."""
    method, image = Diffusion(small(), 4), torch.full((2, 1, 32, 32), 0.3, dtype=torch.float64)
    monkeypatch.setattr(method, "predict", told(image, method))
    start = torch.randn(2, 1, 32, 32, generator=torch_generator(0, "ddim"))
    a, x, stride = cosine(100), start.double(), 100 // steps
    for (t, made, expected), n in zip(method.denoise(start, None, torch.Generator(), steps), range(steps)):
        assert t == 99 - n * stride
        before = a[t - stride] if t >= stride else torch.tensor(1.0, dtype=torch.float64)
        noise = (x - a[t].sqrt() * image) / (1 - a[t]).sqrt()
        x = before.sqrt() * image + (1 - before).sqrt() * noise
        assert torch.allclose(made.double(), x, atol=1e-4), t
        assert torch.allclose(expected.double(), image, atol=1e-4)
    assert torch.allclose(made.double(), image, atol=1e-4)


def test_loss_is_the_mean_squared_error_of_the_target():
    method, batch = Diffusion(small(), 8), paired(4)
    seen = {}

    class Recorder:
        stage, index, device, generator = method.stages[0], 0, torch.device("cpu"), torch.Generator()
        randn = staticmethod(lambda *shape: torch.ones(*shape))
        rand = staticmethod(lambda *shape: torch.full(shape, 0.505))
        minimise = staticmethod(lambda name, loss, **_: seen.update({name: loss}))

    loss = method.training_step(batch, Recorder)["loss"]
    a, x = cosine(100)[50], batch["image"].double()
    velocity = a.sqrt() - (1 - a).sqrt() * x
    # The last layer of MONAI's network starts at zero: it says 0 before its first step.
    assert float(loss) == pytest.approx(float(velocity.square().mean()), rel=1e-5)
    assert seen == {"U": loss}


# ---- as a method -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patch", [1, 2])
def test_shapes_range_and_determinism(patch):
    method, maps = Diffusion(small(patch=patch), 8, seed=1), paired(5)["map"]
    a, b = (method.synthesize(maps, torch_generator(0, "x"), batch=n) for n in (5, 2))
    assert a.shape == (5, 1, 32, 32) and a.dtype == torch.float32 and float(a.abs().max()) <= 1
    assert torch.allclose(a, b, atol=1e-4)  # an image does not depend on the batch it is made in
    assert torch.equal(a, method.synthesize(maps, torch_generator(0, "x"), batch=5))
    assert not torch.equal(a, method.synthesize(maps, torch_generator(1, "x"), batch=5))
    more = Diffusion(small(patch=patch, eta=1.0), 8, seed=1)
    assert torch.equal(*(more.synthesize(maps, torch_generator(0, "x")) for _ in range(2)))


@pytest.mark.parametrize("condition, given", [("class", torch.tensor([0, 1, 1])), ("none", 3)])
def test_other_conditions(condition, given):
    made = Diffusion(small(condition=condition), 8).synthesize(given, torch_generator(0, "x"))
    assert made.shape == (3, 1, 32, 32)


def test_all_weights_learn():
    method = Diffusion(small(condition="class"), 8)
    batch = {"image": paired(4)["image"], "label": torch.tensor([0, 1, 0, 1])}
    for weight in method.networks["U"].parameters():  # MONAI starts some layers at zero, which stops what is below
        if weight.ndim > 1 and not weight.any():
            torch.nn.init.normal_(weight, std=0.1)
    reached = gradients(method, batch)
    assert list(reached) == ["U"] and all(touched(reached["U"], "U"))


def test_training_learns_the_maps_greys(tmp_path):
    config = small(channels=(16, 32), groups=8, batch_size=8, epochs=50, learning_rate=2e-3, augment=False,
                   patch=2, sampling_steps=10, ema=0.9)
    data = paired(16)
    method = Diffusion(config, len(data["map"]), seed=0)
    loss = fit(method, data, tmp_path, device="cpu", ema=config.ema, progress=False).log["loss"]
    assert loss[-1] < 0.5 * loss[0]
    made = method.synthesize(data["map"], torch_generator(0, "x"))
    means = [float(made[:, 0][data["map"] == k].mean()) for k in range(4)]
    assert means == sorted(means) and means[3] - means[0] > 0.8  # greys are -1, -0.6, 0 and 0.6


def test_training_repeats_bit_for_bit(tmp_path):
    data, found = paired(8), []
    for name in ("a", "b"):
        method = Diffusion(small(), len(data["map"]), seed=0)
        fit(method, data, tmp_path / name, device="cpu", ema=0.5, progress=False)
        found.append(method.synthesize(data["map"], torch_generator(0, "x")))
    assert torch.equal(*found)


# ---- what does not fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes, words", [
    ({"sampling_steps": 3}, "does not divide timesteps, 100; 1, 2, 4, 5 would"), ({"eta": 1.5}, "eta"),
    ({"image_size": 33}, "image_size: 33"), ({"groups": 3}, "not a multiple of groups"),
    ({"attention": (True,)}, "1 values for 2 resolutions"), ({"head_channels": 5}, "head_channels"),
    ({"patch": 0}, "folds of 0"), ({"condition": "words"}, "condition: must be one of map, class, none")])
def test_settings_that_do_not_fit(changes, words):
    with pytest.raises(ConfigError, match=words):
        small(**changes)


def test_conditions_that_do_not_fit():
    draws = torch_generator(0, "x")
    with pytest.raises(DataError, match=r"\(N, 32, 32\)"):
        Diffusion(small(), 4).synthesize(torch.zeros(2, 16, 16, dtype=torch.uint8), draws)
    with pytest.raises(DataError, match="0 to 1 are known"):
        Diffusion(small(condition="class"), 4).synthesize(torch.tensor([0, 2]), draws)
    with pytest.raises(DataError, match="number of images"):
        Diffusion(small(condition="none"), 4).synthesize(torch.tensor([1]), draws)
    with pytest.raises(ConfigError, match="does not divide"):
        check_sampling(7, 100)
    with pytest.raises(ConfigError, match="nothing to train on"):
        Diffusion(small(), 0)
