"""The plain twin of chapter 03's step does the same mathematics."""

import torch

from benchmarks import dcgan
from benchmarks.steps import largest_gap
from covlib.papers.dcgan.method import Config


def small(**changes):
    return Config.for_profile("smoke", {"image_size": 28, "width": 4, "batch_size": 4, **dcgan.PAPERS, **changes})


def test_our_step_and_the_plain_one_have_the_same_losses():
    for first_norm in (True, False):
        assert largest_gap(dcgan.twins(small(first_norm=first_norm)), steps=3) < 1e-5


def test_both_move_the_weights_alike():
    both = dcgan.twins(small())
    ours, theirs = both.ours(), both.theirs()
    ours(), theirs()
    for name, net in ours.method.networks.items():
        twin = theirs.method.networks[name].state_dict()
        for (key, value), other in zip(net.state_dict().items(), twin.values(), strict=True):
            if "num_batches" not in key:
                torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-5, msg=f"{name}.{key}")


def test_rows_say_what_the_page_needs():
    rows = dcgan.step_rows(small(), "cpu", repeats=1, grows={"of": "training step", "with": "batch", "x": 4})
    assert [row["side"] for row in rows] == ["plain", "covlib"] and rows[0]["pair"] == rows[1]["pair"]
    # The plain step makes weight gradients of D for the generator's loss and throws them away.
    assert rows[0]["flops"] > rows[1]["flops"] > 0 and "losses equal to" in rows[1]["note"]
