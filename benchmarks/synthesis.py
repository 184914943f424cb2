"""``covlib bench synthesis synthesis_paper``: images a second of every method with untrained networks, over the number
of images.

At the ``cpu`` profile and at the papers' sizes; on a GPU at those only. Conditions are noise of the right kind. What is
timed ends with the images on the host, as a data set's writer takes them.
"""

import sys
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.measure import peak_memory, timed
from covlib.seeding import torch_generator
from covlib.training.method import Method

COUNTS, FEW = (4, 8, 16), (1, 2, 4)  # conditions; the most that a GPU is given is ON_GPU times as many
ON_GPU = 8
METHODS = ("dcgan", "global_local", "cosingan", "cyclegan", "cgan3d", "pix2pix", "diffusion")


def bench(profile: str | None = None, counts: tuple[int, ...] = COUNTS) -> list[dict]:
    """Rows of ``covlib bench``: for each method one for each of ``counts``.

    Args:
        profile: of every method's settings; by default "cpu", on a GPU "paper".
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    profile = profile or ("paper" if device.type == "cuda" else "cpu")
    times = ON_GPU if device.type == "cuda" else 1
    return [row for name in METHODS for row in rows(name, profile, [times * n for n in counts], device)]


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
    return {"dcgan": _dcgan, "global_local": _global_local, "cosingan": _cosingan, "cyclegan": _cyclegan,
            "cgan3d": _cgan3d, "pix2pix": _pix2pix, "diffusion": _diffusion}[name](profile)


def _noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch_generator(0, "bench")) * 2 - 1


def _maps(size: int) -> Callable[[int], Tensor]:
    return lambda n: torch.randint(0, 4, (n, size, size), generator=torch_generator(0, "bench"), dtype=torch.uint8)


def _square(size: int) -> str:
    return f"{size}x{size}"


def _dcgan(profile):
    from covlib.papers.dcgan.method import DCGAN, Config

    c = Config.for_profile(profile)
    return DCGAN(c, c.batch_size), _square(c.image_size), lambda n: n


def _global_local(profile):
    from covlib.papers.global_local.method import Config, GlobalLocal

    c = Config.for_profile(profile)
    method = GlobalLocal(c, c.batch_size)
    for stage in method.stages:
        method.begin_stage(stage)
    return method, _square(c.image_size), _maps(c.image_size)


def _cosingan(profile):
    from covlib.papers.cosingan.method import Config, CoSinGAN, OneSlice

    # Losses are not asked for here; without MS-FVL and MS-FUL their networks are not built.
    c = Config.for_profile(profile, {"lambda_vgg": 0.0, "lambda_unet": 0.0})
    s = c.size
    condition = torch.zeros((1, 1, s, s), dtype=torch.uint8)
    condition[..., s // 4 : -s // 4, s // 8 : -s // 8] = 1
    condition[..., s // 3 : s // 2, s // 3 : s // 2] = 2
    method = CoSinGAN(c, OneSlice(_noise(1, 1, s, s), condition, "bench", "bench")).grow()
    return method, _square(s) + f", {len(c.scales)} scales", lambda n: condition.expand(n, -1, -1, -1)


def _cyclegan(profile):
    from covlib.papers.cyclegan.method import Config, CycleGAN

    c = Config.for_profile(profile)
    return CycleGAN(c, c.batch_size), _square(c.image_size), lambda n: _noise(n, 1, c.image_size, c.image_size)


def _cgan3d(profile):
    from covlib.papers.cgan3d.method import CGAN3D, Config

    c = Config.for_profile(profile)
    return CGAN3D(c, 1), f"{c.block}x{c.block}x{c.block}", lambda n: _noise(n, 1, c.block, c.block, c.block)


def _pix2pix(profile):
    from covlib.baselines.pix2pix import Config, Pix2Pix

    c = Config.for_profile(profile)
    return Pix2Pix(c, c.batch_size), _square(c.image_size), _maps(c.image_size)


def _diffusion(profile):
    from covlib.baselines.diffusion import Config, Diffusion

    c = Config.for_profile(profile, {"condition": "map"})
    return Diffusion(c, c.batch_size), _square(c.image_size) + f", {c.sampling_steps} steps", _maps(c.image_size)
