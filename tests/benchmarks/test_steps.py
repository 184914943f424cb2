"""Plain twins of training steps do the same mathematics as ours."""

import pytest
import torch

from benchmarks import measure as bench
from benchmarks import steps


def small(name):
    if name == "cgan3d":
        from covlib.papers.cgan3d.method import Config

        return Config.for_profile("smoke", {"task": "denoise"})
    if name == "global_local":
        from covlib.papers.global_local.method import Config

        return Config.for_profile("smoke")
    if name == "pix2pix":
        from covlib.baselines.pix2pix import Config

        return Config.for_profile("smoke")
    from covlib.baselines.diffusion import Config

    return Config.for_profile("smoke")


@pytest.mark.parametrize("name", ["global_local", "cgan3d", "pix2pix", "diffusion"])
def test_losses_and_weights_after_a_step_are_those_of_ours(name):
    method, batch, draws = getattr(steps, name)(small(name), 3)
    ours, plain = steps.both(name, method, batch, draws)
    assert steps.gap(ours(), plain()) < steps.EQUAL
    for key, net in method.networks.items():
        for (what, value), other in zip(net.state_dict().items(), plain.nets[key].state_dict().values(), strict=True):
            if "num_batches" not in what and not what.endswith("bias"):  # before a norm a bias has no gradient
                torch.testing.assert_close(value, other, rtol=1e-3, atol=2e-4, msg=f"{key}.{what}")


def test_the_paper_s_saturating_loss_too():
    from dataclasses import replace

    config = replace(small("cgan3d"), saturating=True)
    ours, plain = steps.both("cgan3d", *steps.cgan3d(config, 2))
    assert steps.gap(ours(), plain()) < steps.EQUAL


def test_every_group_can_be_found():
    import importlib

    for group, place in bench.MODULES.items():
        module, _, function = place.partition(":")
        assert group in bench.available()
        assert callable(getattr(importlib.import_module(module), function or "bench"))
