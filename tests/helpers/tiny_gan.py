"""A small GAN that grows, for the tests of the training loop; run as a script, it trains in a process of its own.

It has what the papers' methods have between them: two stages, a network made when the second begins, BatchNorm and
dropout (both can be left out), augmentation, a pool of earlier fakes as state of its own, and a frozen network.
"""

import argparse
import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from covlib.training.devices import team
from covlib.training.fit import fit
from covlib.training.method import Method, OptimizerSpec, Stage, seeded


class TinyGAN(Method):
    name = "tiny"
    generators = ("G", "R")

    def __init__(self, steps=(6, 6), batch_size=8, seed=0, noise=True, lr=2e-3, on_step=None):
        norm = nn.BatchNorm1d(16) if noise else nn.Identity()
        with seeded(seed, "init"):
            self.networks = {
                "G": nn.Sequential(nn.Linear(4, 16), norm, nn.ReLU(), nn.Dropout(0.2 if noise else 0.0),
                                   nn.Linear(16, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8))),
                "D": nn.Sequential(nn.Conv2d(1, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 4)),
            }
        self.stages = [Stage("first", steps[0], batch_size, ("G", "D"), "linear", constant_steps=steps[0] // 2)]
        if len(steps) > 1:
            self.stages.append(Stage("refine", steps[1], batch_size, ("R", "D")))
        self.noise, self.lr, self.on_step, self.calls = noise, lr, on_step or (lambda call, losses: None), 0
        self.pool = torch.zeros(4, 1, 8, 8)

    def begin_stage(self, stage):
        if stage.name == "refine":
            self.networks["R"] = nn.Conv2d(1, 1, 3, padding=1)

    def optimizers(self, stage):
        maker = "G" if stage.name == "first" else "R"
        return {"D": OptimizerSpec(("D",), self.lr), maker: OptimizerSpec((maker,), self.lr)}

    def augment(self, batch, generator):
        if not self.noise:
            return batch
        image = batch["image"]
        return {"image": image + 0.1 * torch.randn(len(image), 1, 1, 1, generator=generator, device=image.device)}

    def make(self, z):
        fake = self.networks["G"](z)
        return fake + self.networks["R"](fake) if "R" in self.networks else fake

    def training_step(self, batch, step):
        D, real = self.networks["D"], batch["image"]
        fake = self.make(step.randn(len(real), 4))
        shown = torch.cat([fake.detach(), self.pool.to(fake)]) if self.noise else fake.detach()
        d_loss = F.softplus(-D(real)).mean() + F.softplus(D(shown)).mean()
        g_loss_of = lambda: F.softplus(-D(fake)).mean()
        losses = {"D": d_loss}
        self.calls += 1
        self.on_step(self.calls, losses)
        step.minimise("D", losses["D"])
        losses["G"] = g_loss_of()
        step.minimise("G" if step.stage.name == "first" else "R", losses["G"])
        self.pool = fake.detach()[:4].clone()
        return losses

    def sample_grid(self, generator):
        return self.make(torch.randn(4, 4, generator=generator, device=generator.device))

    def state(self):
        return {"pool": self.pool}

    def load_state(self, state):
        self.pool = state["pool"]


def images(n=21):
    """Random images (n, 1, 8, 8), the same ones always."""
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(5)) * 2 - 1


OPTIONS = dict(seed=3, device="cpu", ema=0.9, checkpoint_every=2, log_every=3, sample_every=4)


LONG = (20, 20)  # steps of the run that is killed


def tell(call, losses):
    """Say which step of this process begins, and leave the parent the time to kill it there."""
    print(call, flush=True)
    time.sleep(0.02)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--devices", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.devices == 1:
        fit(TinyGAN(steps=LONG, on_step=tell), {"image": images()}, args.out, **OPTIONS)
        return
    method = TinyGAN(steps=(1,), noise=False)
    with team(torch.device("cpu"), args.devices):
        fit(method, {"image": images()}, args.out / "one", seed=3, device="cpu")
        grads = {f"{n}.{k}": p.grad.tolist() for n, net in method.networks.items() for k, p in net.named_parameters()}
        rank = torch.distributed.get_rank()
        (args.out / f"grads{rank}.json").write_text(json.dumps(grads))
        fit(TinyGAN(steps=(4, 3), noise=False), {"image": images()}, args.out / "more", **OPTIONS)


if __name__ == "__main__":
    main()
