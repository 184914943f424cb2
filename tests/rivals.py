"""What the tests of all rivals need: maps with images that follow from them, and who gets which gradients."""

import torch

from covlib.methods import Step
from covlib.seeding import torch_generator


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


def touched(grads: dict, net: str) -> list[bool]:
    """For each weight of a network, whether its gradient is there and not all zero."""
    return [g is not None and bool(g.abs().sum() > 0) for k, g in grads.items() if k.startswith(f"{net}.")]
