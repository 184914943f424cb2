"""``covlib bench synthesis synthesis_paper``: images a second of every method with untrained networks, over the number
of images.

At the ``cpu`` profile and at the papers' sizes; on a GPU at those only. Conditions are noise of the right kind. What is
timed ends with the images on the host, as a data set's writer takes them.
"""

import sys
from collections.abc import Callable
from pkgutil import resolve_name

import torch
from torch import Tensor

from benchmarks.cosingan import phantom_like
from benchmarks.measure import peak_memory, timed
from covlib.seeding import torch_generator
from covlib.training.method import Method
from covlib.training.trained import METHODS as TRAINED

COUNTS, FEW = (4, 8, 16), (1, 2, 4)  # conditions; the most that a GPU is given is ON_GPU times as many
ON_GPU = 8
METHODS = ("dcgan", "global_local", "cosingan", "cyclegan", "cgan3d", "pix2pix", "diffusion")
CHANGED = {"cosingan": {"lambda_vgg": 0.0, "lambda_unet": 0.0},  # no losses are asked for, so none of their networks
           "diffusion": {"condition": "map"}}


def bench() -> list[dict]:
    """Rows of ``covlib bench``: for each method, at profile "cpu", on a GPU "paper", one for each of ``COUNTS``."""
    device, profile, times = ("cuda", "paper", ON_GPU) if torch.cuda.is_available() else ("cpu", "cpu", 1)
    return [row for name in METHODS for row in rows(name, profile, [times * n for n in COUNTS], device)]


def bench_paper() -> list[dict]:
    """At the papers' sizes without a GPU, which has them in ``bench`` already: one to four images of each method, one
    of the diffusion model, whose network is asked 50 times for it. Every call is timed once."""
    if torch.cuda.is_available():
        print("synthesis_paper: on a GPU the group synthesis has the papers' sizes; nothing to measure",
              file=sys.stderr)
        return []
    return [row for name in METHODS for row in rows(name, "paper", [1] if name == "diffusion" else list(FEW), "cpu",
                                                    repeats=1)]


def rows(name: str, profile: str, counts: list[int], device, repeats: int = 3) -> list[dict]:
    """One method over the number of images; the network and its settings are made once."""
    method, size, conditions = make(name, profile)
    for net in method.networks.values():
        net.to(device).eval()
    what, found = "blocks" if name == "cgan3d" else "images", []
    for n in counts:
        given = conditions(n)

        def work(given=given):
            return method.synthesize(given, torch_generator(0, "bench", device=device)).cpu()

        row = timed(f"{name}, {n} {what}, {size}", work, repeats=repeats, warm_up=int(repeats > 1),
                    grows={"of": f"synthesis, {name}", "with": "number of images", "x": n})
        found.append({**row, "note": f"{n / row['median_s']:.3g} {what}/s, profile {profile}",
                      "memory": peak_memory(work)})
    return found


def make(name: str, profile: str) -> tuple[Method, str, Callable[[int], Tensor | int]]:
    """A method with untrained networks, the size of what it makes, and n -> n conditions for ``synthesize``."""
    cls = resolve_name(TRAINED[name])
    config = sys.modules[cls.__module__].Config.for_profile(profile, CHANGED.get(name))
    if name == "cosingan":
        one, size = phantom_like(config.size), f"{config.size}x{config.size}, {len(config.scales)} scales"
        return cls(config, one).grow(), size, lambda n: one.condition.expand(n, -1, -1, -1)
    sides = (config.block,) * 3 if name == "cgan3d" else (config.image_size,) * 2
    method = cls(config, config.batch_size)
    if name == "global_local":
        for stage in method.stages:
            method.begin_stage(stage)
    chance = lambda: torch_generator(0, "bench")
    noise = lambda n: torch.rand((n, 1, *sides), generator=chance()) * 2 - 1
    maps = lambda n: torch.randint(0, 4, (n, *sides), generator=chance(), dtype=torch.uint8)
    size = "x".join(map(str, sides)) + (f", {config.sampling_steps} steps" if name == "diffusion" else "")
    return method, size, {"dcgan": lambda n: n, "cyclegan": noise, "cgan3d": noise}.get(name, maps)
