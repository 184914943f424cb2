"""Rivals of chapter 05: one scale, one stage, the terms they are named after, and as many updates as CoSinGAN."""

import dataclasses

import pytest
import torch

from covbook.chapters.cosingan import rivals
from covlib.errors import ConfigError
from covlib.papers.cosingan.method import Config, CoSinGAN
from covlib.papers.cosingan.slices import OneSlice
from covlib.seeding import torch_generator

CONFIG = dataclasses.replace(Config.for_profile("smoke"), epochs_first=3, epochs_second=2)


def a_slice(size=48):
    condition = torch.zeros(1, 1, size, size, dtype=torch.uint8)
    condition[..., 8:40, 6:42], condition[..., 20:30, 10:20] = 1, 2
    image = torch.tensor([-0.2, -0.8, 0.3])[condition.long()]
    image = (image + 0.05 * torch.randn(image.shape, generator=torch_generator(0, "slice"))).clamp(-1, 1)
    return OneSlice(image, condition, "p", "s")


@pytest.mark.parametrize("profile", ["smoke", "cpu", "paper"])
def test_a_rival_has_one_scale_and_all_of_cosingan_s_updates(profile):
    config = Config.for_profile(profile)
    total = (len(config.scales) - 1 + config.finest) * (config.epochs_first + config.epochs_second)
    for name, terms in rivals.TERMS.items():
        own = rivals.rival_config(name, config)
        stages = CoSinGAN(own, a_slice(own.size)).stages if profile == "smoke" else []
        assert own.scales == (config.size,) and own.epochs_second == 0 and own.epochs_first == total
        assert sum(s.steps for s in stages if s.name != "unet") == (total if stages else 0)
        assert [key for key in rivals.LAMBDAS if getattr(own, key)] == list(terms)
        assert own.lambda_wppl in (0, config.lambda_wppl)
    if profile == "paper":
        assert total == 54_000


def test_pix2pix_minimises_wppl_and_the_enhanced_one_all_terms(tmp_path):
    one = a_slice()
    plain, log = rivals.train_rival("pix2pix", CONFIG, one, tmp_path / "a", device="cpu", log_every=1)
    assert set(log.log) >= {"WPPL", "G", "D"} and "MS-SSIM" not in log.log and "U" not in plain.networks
    assert log.steps == CONFIG.updates == 10
    for rec, wppl in zip(log.log["rec"], log.log["WPPL"]):
        assert rec == pytest.approx(CONFIG.lambda_wppl * wppl, rel=1e-5)
    donor = CoSinGAN(CONFIG, one)
    before = [p.clone() for p in donor.networks["U"].parameters()]
    enhanced, log = rivals.train_rival("enhanced", CONFIG, one, tmp_path / "b", device="cpu", log_every=1,
                                       unet=donor.networks["U"], updates=4)
    assert log.steps == 4 and set(log.log) >= {"WPPL", "MS-SSIM", "MS-FVL", "MS-FUL"}
    assert all(torch.equal(p, q) for p, q in zip(before, donor.networks["U"].parameters()))  # shared, never trained
    for k in range(4):
        terms = [log.log[t][k] for t in ("WPPL", "MS-SSIM", "MS-FVL", "MS-FUL")]
        assert log.log["rec"][k] == pytest.approx(sum(w * t for w, t in zip(CONFIG.lambdas, terms)), rel=1e-4)
    made = [m.synthesize(one.condition, torch_generator(0, "x")) for m in (plain, enhanced)]
    assert made[0].shape == (1, 1, 48, 48) and not torch.equal(*made)


def test_one_loss_alone_measures_the_others_too(tmp_path):
    method, log = rivals.train_rival("only_ms_ssim", CONFIG, a_slice(), tmp_path, device="cpu", updates=2,
                                     measure_all=True, log_every=1)
    assert log.log["rec"][-1] == pytest.approx(CONFIG.lambda_ms_ssim * log.log["MS-SSIM"][-1], rel=1e-5)
    assert set(log.log) >= {"WPPL", "MS-FVL", "MS-FUL"} and "U" in method.networks


def test_unknown_rivals_are_named():
    with pytest.raises(ConfigError, match="rival: 'spade' is not one of pix2pix, enhanced"):
        rivals.rival_config("spade", CONFIG)
