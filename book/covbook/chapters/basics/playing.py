"""Three tiny games for chapter 02: a discriminator that never learns, one that always wins, and one that plays.

The generator sharpens: it is given an image whose 4 x 4 blocks are averaged, and draws what was lost. Its losses are
the distance to the original and what the discriminator says. Everything is as small as it can be, so that a game takes
seconds; what is logged is what ``covlib.training.fit`` logs of a real one.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from covbook.chapters.game import HEAD, WORDS
from covbook.tables import Table
from covlib.metrics.checks import finite
from covlib.seeding import derive, torch_generator
from covlib.training.health import CHANCE, PERFECT, RATIO, health, judged, ratio

SIDE, BLOCK, WIDTH = 16, 4, 16  # pixels of an image and of an averaged block; channels
BATCH = 32
# Learning rates of the discriminator; the generator's is ``G_RATE`` in all three.
GAMES = {"never learns": 0.0, "learns too fast": 2e-3, "learns along": 1e-4}
G_RATE = 1e-3


def play(images, d_rate: float, *, steps: int = 300, weight: float = 1.0, seed: int = 0) -> dict[str, list]:
    """One game.

    Args:
        images: (N, 1, H, W) in [-1, 1], shrunk to 16 pixels a side. d_rate: learning rate of the discriminator.
        weight: of what the discriminator says, beside the mean absolute error.

    Returns:
        A log as ``FitResult.log``: step, stage, how often D was right, and the ratio of the gradients.
    """
    real = F.adaptive_avg_pool2d(torch.from_numpy(finite("images", images, ndim=4)).float(), SIDE)
    given = F.interpolate(F.avg_pool2d(real, BLOCK), size=(SIDE, SIDE))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "playing"))
        G, D = _generator(), _discriminator()
    g_step = torch.optim.Adam(G.parameters(), G_RATE, betas=(0.5, 0.99))
    d_step = torch.optim.Adam(D.parameters(), d_rate, betas=(0.5, 0.99))
    draw, log = torch_generator(seed, "playing batches"), {"step": [], "stage": []}
    for step in range(1, steps + 1):
        rows = torch.randint(len(real), (BATCH,), generator=draw)
        noise = torch.randn(BATCH, 1, SIDE, SIDE, generator=draw)
        made = (given[rows] + G(torch.cat([given[rows], noise], 1))).clamp(-1, 1)
        of_real, of_made = D(real[rows]), D(made.detach())
        _descend(d_step, F.softplus(-of_real).mean() + F.softplus(of_made).mean())
        adversary, distance = weight * F.softplus(-D(made)).mean(), F.l1_loss(made, real[rows])
        squares = [torch.autograd.grad(x, made, retain_graph=True)[0].square().sum() for x in (adversary, distance)]
        _descend(g_step, adversary + distance)
        columns = judged("D", of_real.detach(), of_made.detach()) | {RATIO: ratio(*squares)}
        for name, value in ({"step": step, "stage": "game"} | {k: float(v) for k, v in columns.items()}).items():
            log.setdefault(name, []).append(value)
    return log


def _descend(stepper: torch.optim.Optimizer, loss: Tensor) -> None:
    stepper.zero_grad(set_to_none=True)
    loss.backward()
    stepper.step()


def _generator() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, WIDTH, 3, padding=1), nn.ReLU(), nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU(),
                         nn.Conv2d(WIDTH, 1, 3, padding=1))


def _discriminator() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, WIDTH, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(WIDTH, 2 * WIDTH, 4, 2, 1),
                         nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(2 * WIDTH * (SIDE // 4) ** 2, 1))


def table(logs: dict[str, dict]) -> Table:
    """What ``health`` reads from the last third of each game; the keys name the discriminators."""
    share, rows = lambda value: f"{100 * value:.0f} %", []
    for name, log in logs.items():
        one = health(log)[0]
        rows.append([name, share(one.real), share(one.synthetic), f"{one.auc:.2f}", f"{one.ratio:.2g}",
                     WORDS[one.verdict]])
    head = ["discriminator", *HEAD[2:]]
    played = f"It played if the mean of both shares is {100 * CHANCE:.0f} to {100 * PERFECT:.0f} %."
    return Table(head, rows, right=tuple(head[1:5]), note=f"Means over the last third. {played}").of_this_run()
