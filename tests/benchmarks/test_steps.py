"""Plain twins of training steps do the same mathematics as ours."""

import pytest
import torch

from benchmarks import measure as bench
from benchmarks import steps
from covlib.errors import TrainingError


def small(name):
    if name == "cgan3d":
        from covlib.papers.cgan3d.method import Config

        return Config.for_profile("smoke", {"task": "denoise"})
    if name == "global_local":
        from covlib.papers.global_local.method import Config

        return Config.for_profile("smoke", {"discriminator": "paper"})
    if name == "pix2pix":
        from covlib.baselines.pix2pix import Config

        return Config.for_profile("smoke")
    from covlib.baselines.diffusion import Config

    return Config.for_profile("smoke")


@pytest.mark.parametrize("name", ["global_local", "cgan3d", "pix2pix", "diffusion"])
def test_losses_and_weights_after_a_step_are_those_of_ours(name):
    twins = getattr(steps, name)(small(name), 3)
    ours, theirs = twins.ours(), twins.theirs()
    ours(), theirs()
    assert steps.gap(ours.losses, theirs.losses) < steps.EQUAL
    for key, net in ours.method.networks.items():
        twin = theirs.method.networks[key].state_dict()
        for (what, value), other in zip(net.state_dict().items(), twin.values(), strict=True):
            if "num_batches" not in what and not what.endswith("bias"):  # before a norm a bias has no gradient
                torch.testing.assert_close(value, other, rtol=1e-3, atol=2e-4, msg=f"{key}.{what}")


def test_the_paper_s_saturating_loss_too():
    from dataclasses import replace

    assert steps.largest_gap(steps.cgan3d(replace(small("cgan3d"), saturating=True), 2)) < steps.EQUAL


@pytest.mark.parametrize("apart", [1e-3, float("nan")])
def test_losses_that_differ_are_not_timed(apart):
    assert steps.equal("x", 0.0) == 0.0
    with pytest.raises(TrainingError, match="bench x: ours and the plain step differ by"):
        steps.equal("x", apart)


def test_every_group_can_be_found():
    import importlib

    for group, place in bench.MODULES.items():
        name, function, *asked = place.split(":")
        module = importlib.import_module(f"benchmarks.{name}")
        assert group in bench.available()
        assert callable(getattr(module, function)) and set(asked) <= set(getattr(module, "GROUPS", ()))
