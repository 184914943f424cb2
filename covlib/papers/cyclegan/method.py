"""CycleGAN that turns chest X-rays of one class into another's, after Zunair and Ben Hamza (2020).

Two models: normal to COVID-19 and pneumonia to COVID-19. Domain A is the source class, B is COVID-19; G_A: A to B, G_B:
B to A; D_B tells real from translated B, D_A likewise for A (Section 3.1, with the paper's own letters). The paper
states its losses (Eqs. 1 to 5) and hardly any setting; those come from the cited CycleGAN (Zhu et al. 2017) and from
the authors' public notebook, and each is marked "ours" in ``Config``.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from covlib.data import augment
from covlib.errors import DataError
from covlib.nets import PatchGAN, as_tensor, batched, init_normal
from covlib.papers.cyclegan.config import CHAPTER, SHAPE_FIELDS, TARGET, Config, training_fields
from covlib.papers.cyclegan.losses import cycle_loss, discriminator_loss, generator_loss, identity_loss
from covlib.papers.cyclegan.nets import ImagePool, build_generator
from covlib.parallel import spread
from covlib.projected import ProjectedDiscriminator
from covlib.seeding import derive, rng
from covlib.training.batches import Unpaired
from covlib.training.fit import FRAMES, FitResult, fit, resolve_device
from covlib.training.method import Method, OptimizerSpec, Stage, Step, seeded
from covlib.training.trained import fit_or_load

NETS = ("G_A", "G_B", "D_A", "D_B")
WORTH_A_PROCESS = 50  # steps; a process takes seconds to start


# ---- method ----------------------------------------------------------------------------------------------------------


def build_discriminator(config: Config) -> nn.Module:
    """D_A or D_B, as ``config`` says."""
    if config.discriminator == "projected":
        return ProjectedDiscriminator()
    return init_normal(PatchGAN(config.channels, config.d_width, config.d_layers))


class CycleGAN(Method):
    """Batches {"a": (N, C, S, S), "b": ...} of ``covlib.training.batches.Unpaired``; one-channel images fit C = 3 too.

    Args:
        n_images: of the larger domain; an epoch shows each of its images once.
    """

    name = "cyclegan"
    generators = ("G_A", "G_B")

    def __init__(self, config: Config, n_images: int, seed: int = 0):
        c = self.config = config
        with seeded(seed, "cyclegan", "init"):
            self.networks = {name: init_normal(build_generator(c.generator, c.channels, c.width, c.blocks, c.residual))
                             if name.startswith("G") else build_discriminator(c) for name in NETS}
        steps = c.steps_of(n_images)
        self.stages = [Stage("adversarial", steps=steps, batch_size=c.batch_size, nets=NETS, lr_decay="linear",
                             constant_steps=round(c.decay_from * steps))]
        self.pools = {"a": ImagePool(c.pool_size), "b": ImagePool(c.pool_size)}

    def optimizers(self, stage: Stage) -> dict[str, OptimizerSpec]:
        c = self.config
        return {"G": OptimizerSpec(("G_A", "G_B"), lr=c.learning_rate, betas=(c.beta1, 0.999)),
                "D": OptimizerSpec(("D_A", "D_B"), lr=c.learning_rate, betas=(c.beta1, 0.999))}

    def augment(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Random left-right flips."""
        if not self.config.flip:
            return batch
        return {name: augment.horizontal_flip(images, generator) for name, images in batch.items()}

    def repeats(self, step: Step) -> bool:
        return all(pool.full for pool in self.pools.values())  # until then they grow

    def training_step(self, batch: dict[str, Tensor], step: Step) -> dict[str, Tensor]:
        c = self.config
        a, b = (batch[k].expand(-1, c.channels, -1, -1) for k in ("a", "b"))
        terms, fake_a, fake_b = self.generator_terms(a, b, step)
        total = (terms["G_A"] + terms["G_B"] + c.cycle * (terms["cycle_A"] + terms["cycle_B"])
                 + c.identity * terms["identity"])
        step.minimise("G", total)
        draws = step.rand(1, 2, len(a) + c.pool_size)[0]  # each process has pools, and draws, of its own
        d_a = self.discriminator_term("D_A", a, self.pools["a"].exchange(fake_a, draws[0]), step)
        d_b = self.discriminator_term("D_B", b, self.pools["b"].exchange(fake_b, draws[1]), step)
        step.minimise("D", d_a + d_b)
        return {**terms, "D_A": d_a, "D_B": d_b}

    def generator_terms(self, a: Tensor, b: Tensor, step: Step) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """The parts of Eq. 1 for the generators, and the translations.

        What is to be translated and what is to be left alone pass in one batch: InstanceNorm looks at each sample by
        itself, so nothing mixes.
        """
        G_A, G_B, D_A, D_B = (self.networks[k] for k in NETS)
        kind, n = self.config.gan_loss, len(a)
        if self.config.identity:
            fake_b, same_b = G_A(torch.cat([a, b])).split(n)
            fake_a, same_a = G_B(torch.cat([b, a])).split(n)
            identity = identity_loss(same_a, a) + identity_loss(same_b, b)
        else:
            fake_b, fake_a = G_A(a), G_B(b)
            identity = fake_b.float().new_zeros(())
        (judged_a, kept_a), (judged_b, kept_b) = step.apart(fake_a), step.apart(fake_b)
        back_a, back_b = G_B(kept_b), G_A(kept_a)
        with step.frozen("D_A", "D_B"):
            g_a, g_b = generator_loss(D_B(judged_b), kind), generator_loss(D_A(judged_a), kind)
        return {"G_A": g_a, "G_B": g_b, "cycle_A": cycle_loss(back_a, a), "cycle_B": cycle_loss(back_b, b),
                "identity": identity}, fake_a, fake_b

    def discriminator_term(self, name: str, real: Tensor, fake: Tensor, step: Step) -> Tensor:
        """A discriminator's loss; real and translated images pass in one batch."""
        of_real, of_fake = self.networks[name](torch.cat([real.to(fake.dtype), fake])).split(len(real))
        step.judged(name, of_real, of_fake, 0.5 if self.config.gan_loss == "least_squares" else 0.0)
        return discriminator_loss(of_real, of_fake, self.config.gan_loss)

    def state(self) -> dict[str, Tensor]:
        return {f"pool_{k}_{name}": v for k, pool in self.pools.items() for name, v in pool.state().items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        for k, pool in self.pools.items():
            pool.load_state({n: state[f"pool_{k}_{n}"] for n in ("images", "filled") if f"pool_{k}_{n}" in state})

    def synthesize(self, condition, generator: torch.Generator | None = None, batch: int = 32) -> Tensor:
        """Images of class B from images of class A, (N, 1 or 3, S, S) in [-1, 1]. There is no chance in it."""
        return self.translate(condition, "G_A", batch=batch)

    def translate(self, images, *nets: str, batch: int = 32) -> Tensor:
        """``images`` (N, 1 or 3, S, S), a tensor or an array, through the generators ``nets`` one after the other, in
        eval mode.

        The result lies where the images were, float32, with as many channels; one channel is the mean of three.
        """
        chain = {name: self.networks[name] for name in nets}

        def work(part: Tensor) -> Tensor:
            x = part.expand(-1, self.config.channels, -1, -1)
            for net in chain.values():
                x = net(x)
            return (x.mean(1, keepdim=True) if images.shape[1] == 1 else x).float().to(images.device)

        return torch.cat(batched(work, chain, batch, check_images(images, self.config)))

    def round_trip(self, images: Tensor, batch: int = 32) -> dict[str, Tensor]:
        """{"source", "translation", "reconstruction", "difference"}, each (N, C, S, S); difference = translation -
        source, in [-2, 2]."""
        images = check_images(images, self.config)
        there = self.translate(images, "G_A", batch=batch)
        back = self.translate(there, "G_B", batch=batch)
        return {"source": images, "translation": there, "reconstruction": back, "difference": there - images}


def check_images(images, config: Config) -> Tensor:
    """``images`` (a tensor or a NumPy array) as a tensor, if they are float (N >= 1, 1 or 3, S, S) of the config's size
    in [-1, 1]; DataError otherwise."""
    images = as_tensor(images) if isinstance(images, np.ndarray) else images
    s = config.image_size
    channels = (1, 3) if config.channels == 3 else (1,)
    if not isinstance(images, Tensor) or images.ndim != 4 or not len(images) or images.shape[1] not in channels \
            or tuple(images.shape[2:]) != (s, s):
        wanted = f"(N >= 1, {' or '.join(map(str, channels))}, {s}, {s})"
        raise DataError(f"images: {tuple(getattr(images, 'shape', ()))} given; {wanted} is wanted (see image_size and "
                        "channels)")
    if not images.is_floating_point() or not bool((images.abs() <= 1 + 1e-4).all()):
        raise DataError("images: hold values outside [-1, 1], NaN or whole numbers; display grey scaled to [-1, 1] is "
                        "wanted")
    return images


# ---- data and training -----------------------------------------------------------------------------------------------




def undersample(images: Tensor, n: int, seed: int = 0, key: str = "") -> Tensor:
    """At most ``n`` of ``images``, chosen at random without replacement and kept in their order (Section 3.3)."""
    if len(images) <= n:
        return images
    rows = rng(seed, "undersample", key).choice(len(images), n, replace=False)
    return images[torch.from_numpy(rows).sort().values]


def domains(images: dict[str, Any], source: str, config: Config, seed: int = 0) -> Unpaired:
    """Training data of one model: both classes cut down to the same number, ``per_domain`` or the smaller class's."""
    for name in (source, TARGET):
        if name not in images or not len(images[name]):
            raise DataError(f"class {name!r}: no image to train on; both domains need some")
    n = min(config.per_domain, len(images[source]), len(images[TARGET]))
    a, b = (undersample(check_images(images[k], config), n, seed, k) for k in (source, TARGET))
    return Unpaired(a=a, b=b)


def train_all(config: Config, images: dict[str, Any] | None, out, *, seed: int = 0, device="auto",
              resume: bool = True, checkpoint=None, **options) -> tuple[dict[str, CycleGAN], dict[str, FitResult]]:
    """One CycleGAN per source class, in folders of ``out``; or all of them from a checkpoint.

    Args:
        images: class name -> training images (N, 1, S, S), of ``by_class``; None will do with a checkpoint.
        checkpoint: file of an earlier call (``out/checkpoints/cyclegan.safetensors``), the folder of its run, or a
            folder with one file a generator; nothing is trained then, and the discriminators, which only training
            needs, stay as they begin.
        options: further arguments of ``covlib.training.fit.fit`` (precision, channels_last, compile ...). On a CPU and
            without ``progress`` the models are trained side by side, one core each.

    Returns:
        source class -> method with trained networks; source class -> what ``fit`` returned (empty with a checkpoint).
    """
    if images is None and checkpoint is None:
        raise DataError("images: none given, and no checkpoint; images of both domains are wanted")
    data = {source: domains(images, source, config, seed) for source in config.sources} if images is not None else {}
    methods = {s: _made(config, data.get(s), s, seed) for s in config.sources}
    options = {"device": device, "resume": resume, **options}

    def fitted() -> dict[str, FitResult]:
        jobs = lambda: [(config, data[s], Path(out) / "training" / s, s, seed, options) for s in methods]
        long = max(method.stages[0].steps for method in methods.values()) >= WORTH_A_PROCESS
        if long and resolve_device(device).type == "cpu" and not options.get("progress", True):
            spread(_train, jobs())  # each model on a core of its own; what they left is taken up below, at once
            options["resume"] = True
        return {job[3]: _train(*job, methods[job[3]]) for job in jobs()}

    notes = {"chapter": CHAPTER, "seed": seed, **{k: getattr(config, k) for k in SHAPE_FIELDS}}
    results = fit_or_load(methods, fitted, Path(out) / "checkpoints" / "cyclegan.safetensors", notes,
                          checkpoint=checkpoint, device=device, unread=("D_A", "D_B"))
    return methods, results or {}


def _made(config: Config, data: Unpaired | None, source: str, seed: int) -> CycleGAN:
    return CycleGAN(config, len(data["a"]) if data else 1, derive(seed, source))


def _train(config: Config, data: Unpaired, out: Path, source: str, seed: int, options: dict,
           method: CycleGAN | None = None) -> FitResult:
    """Of ``method``, or, in a process of its own, of one made there: networks with spectral norm do not travel."""
    method = method or _made(config, data, source, seed)
    identity = {"chapter": CHAPTER, "source": source, **training_fields(method.config)}
    method.examples, steps = data["a"][:8], method.stages[0].steps
    return fit(method, data, out, seed=derive(seed, source), log_every=max(1, steps // 100),
               sample_every=max(1, steps // FRAMES), identity=identity, **options)


