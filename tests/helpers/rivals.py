"""What the tests of all rivals need: maps with images that follow from them, who gets which gradients, who moves, and
whether a killed run ends where one that was not does."""

import pytest
import torch

from covlib.seeding import torch_generator
from covlib.training.fit import fit
from covlib.training.method import Step


def paired(n: int = 8, side: int = 32, seed: int = 0) -> dict[str, torch.Tensor]:
    """A batch of lung-only images, each label of its own grey, and maps in patches of a quarter of the side."""
    draws = torch_generator(seed, "rivals")
    maps = torch.randint(0, 4, (n, 4, 4), generator=draws, dtype=torch.uint8)
    maps = maps.repeat_interleave(side // 4, 1).repeat_interleave(side // 4, 2)
    greys = torch.tensor([-1.0, -0.6, 0.0, 0.6])
    images = greys[maps.long()][:, None] + 0.05 * torch.randn(n, 1, side, side, generator=draws)
    return {"image": torch.where(maps[:, None] > 0, images, -1.0), "map": maps}


def gradients(method, batch, stage: int = 0) -> dict[str, dict[str, torch.Tensor | None]]:
    """One training step that moves nothing: optimiser -> {"net.parameter": gradient of its loss, None if untouched}.

    All weights of all networks are asked for, also those that the optimiser does not move and those that the stage
    does not train: what ``minimise`` may reach is decided by ``fit``, what a loss would reach is seen here.
    """
    weights = {f"{n}.{k}": p for n, net in method.networks.items() for k, p in net.named_parameters()}
    reached = {}

    def minimise(name, loss, retain_graph):
        grads = torch.autograd.grad(loss, list(weights.values()), allow_unused=True, retain_graph=True)
        reached[name] = dict(zip(weights, grads))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        method.training_step(batch, Step(method.stages[stage], method.networks, minimise,
                                         torch_generator(0, "step"), 0, 1))
    return reached


def recording(method, stage: int = 0) -> tuple[Step, dict[str, float]]:
    """A Step that moves nothing, and what it was asked to minimise: optimiser -> loss."""
    minimised = {}

    def minimise(name, loss, retain_graph):
        minimised[name] = loss.item()

    return Step(method.stages[stage], method.networks, minimise, torch_generator(0, "step"), 0, 1), minimised


def touched(grads: dict, net: str) -> list[bool]:
    """For each weight of a network, whether its gradient is there and not all zero."""
    return [g is not None and bool(g.abs().sum() > 0) for k, g in grads.items() if k.startswith(f"{net}.")]


class Recorder:
    """A Step that keeps each optimiser's loss and which of its own weights it would move, and moves none."""

    def __init__(self, method):
        self.method, self.losses, self.reached = method, {}, {}
        self.step = Step(method.stages[0], method.networks, self._minimise, torch_generator(0, "step"), 0, 1)

    def _minimise(self, name, loss, retain_graph):
        nets = self.method.optimizers(self.method.stages[0])[name].nets
        weights = {f"{n}.{k}": p for n in nets for k, p in self.method.networks[n].named_parameters()}
        grads = torch.autograd.grad(loss, list(weights.values()), allow_unused=True, retain_graph=retain_graph)
        self.losses[name] = loss.item()
        self.reached[name] = {k: g is not None and bool(g.abs().sum() > 0) for k, g in zip(weights, grads)}

    def missed(self) -> list[str]:
        """Weights that no loss reaches; biases are left out, for one before a norm has no gradient."""
        return [k for reached in self.reached.values() for k, ok in reached.items()
                if not ok and not k.endswith("bias")]


def rates(still: str) -> dict[str, float]:
    """Learning rates with which the networks of the optimiser ``still`` ("G" or "D") stand still."""
    fast, none = {"G": "learning_rate", "D": "learning_rate_d"}, 1e-30
    return {key: none if side == still else 1e-3 for side, key in fast.items()}


def largest_moves(method, data, out) -> dict[str, float]:
    """Network -> how far the weight went that one ``fit`` moved most."""
    before = {n: [p.detach().clone() for p in net.parameters()] for n, net in method.networks.items()}
    fit(method, data, out, device="cpu", progress=False)
    return {n: max((p - start).abs().max().item() for p, start in zip(net.parameters(), before[n]))
            for n, net in method.networks.items()}


def whole_and_killed(kind, config, data, out):
    """Two methods of one seed: trained at a stretch, and killed at the step after the seventh and taken up from the
    state of the sixth. All numbers in their networks are shown to be equal bit for bit."""

    class Killed(kind):
        def training_step(self, batch, step):
            if step.index == 7:
                raise KeyboardInterrupt
            return super().training_step(batch, step)

    options = {"seed": 3, "device": "cpu", "progress": False, "checkpoint_every": 3}
    whole, again = (kind(config, len(data["map"]), seed=3) for _ in range(2))
    fit(whole, data, out / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        fit(Killed(config, len(data["map"]), seed=3), data, out / "killed", **options)
    assert fit(again, data, out / "killed", **options).resumed_from == 6
    for name, net in whole.networks.items():
        state, other = net.state_dict(), again.networks[name].state_dict()
        assert all(torch.equal(state[k], other[k]) for k in state)
    return whole, again
