"""Training and synthesis of every method on chapter 08's protocol."""

from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor

from covbook.chapters import game
from covbook.chapters.global_local import experiment
from covbook.chapters.side_by_side import volumes
from covbook.chapters.side_by_side.budget import steps_for, with_steps
from covbook.chapters.side_by_side.settings import CHAPTER, ENTRIES, Config
from covbook.chapters.side_by_side.tasks import Part, Task
from covlib.baselines import diffusion
from covlib.data import label_maps
from covlib.errors import ConfigError, TrainingError
from covlib.papers.cosingan import method as cosingan
from covlib.papers.cosingan.slices import choose, ternary
from covlib.papers.cyclegan import method as cyclegan
from covlib.papers.dcgan import method as dcgan
from covlib.papers.global_local import method as global_local
from covlib.seeding import derive, torch_generator
from covlib.training.batches import Unpaired
from covlib.training.checkpoints import load_weights, save_weights
from covlib.training.fit import fit, resolve_device
from covlib.training.health import AUC
from covlib.training.method import Method

PLAIN = {"plain": "paper"}  # as the coarse GAN's setting calls the discriminator without ours of the others
JITTER = 0.02  # noise of the planted memoriser, as a share of half the grey scale


@dataclass
class Trained:
    """An arm that can make images. ``methods``: {"": method}, or one a class; {} for a control. ``steps``: of all of
    them together; ``seconds``: what they took here. ``notes``: of the methods. ``logs``: name of a network -> log of
    its training, where a discriminator was judged in it."""

    arm: str
    task: Task
    methods: dict[str, Method] = field(default_factory=dict)
    steps: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    logs: dict[str, dict] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        return sum(p.numel() for m in self.methods.values() for net in m.networks.values() for p in net.parameters())


def parts(arm: str, task: Task, profile: str, seed: int = 0, device="cpu") -> dict[str, tuple[Method, dict]]:
    """What is trained for an arm: key -> (method, its training data). Keys share the steps evenly."""
    name, train = ENTRIES[arm].name, task.train
    if name == "diffusion":
        config = replace(diffusion.Config.for_profile(profile), image_size=task.size,
                         condition="map" if task.kind == "mask" else "class")
        data = _painted_from(train) if task.kind == "mask" else {"image": train.images, "label": train.labels}
        return {"": (diffusion.Diffusion(config, len(train), seed), data)}
    if name == "cosingan":
        return _cosingan(task, profile, seed, device)
    if task.kind == "mask":
        base = replace(global_local.Config.for_profile(profile), image_size=task.size)
        config = experiment.method_config(name, base, profile)
        method = experiment.methods()[name][1](config, len(train), seed)
        return {"": (method, _painted_from(train))}
    if name == "dcgan":
        config = replace(dcgan.Config.for_profile(profile), image_size=task.size)
        rows = {c: train.subset(train.labels == k) for k, c in enumerate(task.classes)}
        return {c: (dcgan.DCGAN(config, len(x), derive(seed, c)), {"image": x.images}) for c, x in rows.items()}
    if name == "cgan3d":
        return volumes.parts(task, profile, seed)
    config = replace(cyclegan.Config.for_profile(profile), image_size=task.size)
    a, b = (train.images[train.labels == k] for k in (0, 1))
    return {"": (cyclegan.CycleGAN(config, max(len(a), len(b)), seed), Unpaired(a=a, b=b))}


def _painted_from(train: Part) -> dict[str, Tensor]:
    return {"image": train.lungs(), "map": train.maps}


def _cosingan(task: Task, profile: str, seed: int, device) -> dict[str, tuple[Method, dict]]:
    """CoSinGAN learns from one slice of the training patients, whatever their number."""
    own = cosingan.Config.for_profile(profile)
    scales = (*(s for s in own.scales if s < task.size), task.size)
    one = choose(task.paired(task.train))
    return {"": (cosingan.CoSinGAN(replace(own, scales=scales), one, seed, resolve_device(device)),
                 one.training_data())}


def discriminators(arm: str, profile: str) -> str:
    """Whose discriminators an arm's networks have at a profile, as the chapters name them; "none" without adversary."""
    name, module = ENTRIES[arm].name, import_module(ENTRIES[arm].module)
    if name == "diffusion":
        return "none"
    if name == "cgan3d":
        config = volumes.Chapter07.for_profile(profile)
        kinds = (PLAIN.get(config.coarse_discriminator, config.coarse_discriminator), config.discriminator)
    else:
        kinds = (getattr(module.Config.for_profile(profile), "discriminator", "paper"),)
    return ", ".join(dict.fromkeys(game.NAMES[kind] for kind in kinds))


def layout(method: Method, device) -> bool | str:
    """``fit``'s channels_last for a method: on a CPU the diffusion model alone takes the channels innermost, with which
    its step is the shorter one; GANs keep the layout that their costs were recorded with."""
    return True if method.name == "diffusion" and resolve_device(device).type == "cpu" else "auto"


def train(arm: str, task: Task, config: Config, out, *, profile: str, costs: dict, seed: int = 0, device="auto",
          resume: bool = True, checkpoint=None) -> Trained:
    """An arm trained for its budget, in ``out/training/<arm>``, its weights in ``out/checkpoints/<arm>.safetensors``; a
    control is given as it is.

    Args:
        checkpoint: folder of an earlier run, or its folder of weights; nothing is trained then.

    Raises:
        ConfigError: a checkpoint without this arm, or of another size. TrainingError: divergence.
    """
    entry = ENTRIES[arm]
    if not entry.module:
        return Trained(arm, task)
    built = parts(arm, task, profile, seed, device)
    if checkpoint is not None:
        return _loaded(arm, task, built, Path(checkpoint), device)
    steps, trained = steps_for(arm, config, costs), Trained(arm, task)
    for key, (method, data) in built.items():
        method.stages = with_steps(method.stages, max(1, steps // len(built)))
        total = sum(stage.steps for stage in method.stages)
        result = fit(method, data, Path(out) / "training" / arm / key, seed=derive(seed, arm, key), device=device,
                     resume=resume, log_every=max(1, total // 100), ema=ema_of(method), progress=False,
                     channels_last=layout(method, device),
                     identity={"chapter": CHAPTER, "arm": arm, **method.config.as_dict()})
        for net in method.networks.values():  # as weights lie that come from a file, for the same bits in every image
            net.to(memory_format=torch.contiguous_format)
        trained.methods[key] = method
        trained.steps, trained.seconds = trained.steps + result.steps, trained.seconds + result.seconds
        if any(column.endswith(AUC) for column in result.log):
            trained.logs[f"{entry.title} {key}".strip()] = result.log
        trained.notes += [f"{entry.title}: {note}" for note in getattr(method, "notes", [])]
    meta = {"chapter": CHAPTER, "arm": arm, "seed": seed, "steps": trained.steps}
    meta |= {f"note {key}": m.note for key, m in trained.methods.items() if hasattr(m, "note")}
    save_weights(Path(out) / "checkpoints" / f"{arm}.safetensors", _networks(trained.methods), meta)
    return trained


def ema_of(method: Method) -> float | None:
    """Decay of the running average of a method's weights, where its paper or its chapter keeps one."""
    return getattr(method.config, "ema", None) or getattr(method, "ema", None)


def _networks(methods: dict[str, Method]) -> dict:
    return {f"{key}/{name}": net for key, method in methods.items() for name, net in method.networks.items()}


def _loaded(arm: str, task: Task, built: dict, folder: Path, device) -> Trained:
    folder = folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder
    methods = {key: method.grow() for key, (method, _) in built.items()}
    nets = _networks(methods)
    meta = load_weights(folder / f"{arm}.safetensors", nets, {"chapter": CHAPTER, "arm": arm})
    for key, method in methods.items():
        if hasattr(method, "note"):
            if f"note {key}" not in meta:
                raise ConfigError(f"checkpoint {folder / arm}.safetensors: its header lacks 'note {key}'; give the "
                                  "folder of a finished run of this chapter")
            method.note = meta[f"note {key}"]
    for net in nets.values():
        net.to(resolve_device(device)).eval()
    return Trained(arm, task, methods, int(meta.get("steps", 0)))


def synthesize(trained: Trained, part: Part, seed: int = 0, **options) -> Tensor:
    """One synthetic image for each image of ``part`` (float32 on the CPU, in [-1, 1]): from its mask, of its class, or,
    where images are translated, from those of the source class only.

    Args:
        options: further arguments of the methods' ``synthesize`` (``steps`` of a diffusion model, say).
    """
    name, task = ENTRIES[trained.arm].name, trained.task
    if not trained.methods:
        return _control(name, task, part, seed)
    method = next(iter(trained.methods.values()))
    device = next(p.device for net in method.networks.values() for p in net.parameters())
    draws = torch_generator(seed, "synthesis", trained.arm, device=device)
    if task.kind == "mask":
        given = part.maps
        if name == "cosingan":
            given = ternary(part.maps)
        made = method.synthesize(given.to(device), draws, **options).cpu()
        return label_maps.lung_only(made.float().clamp(-1, 1), part.maps)
    if task.kind == "translate":
        return method.synthesize(part.images[part.labels == 0].to(device), draws, **options).float().cpu().clamp(-1, 1)
    if name == "cgan3d":
        made, said = volumes.synthesize(trained.methods, task, part.labels, synthesis_seed(trained, seed))
        trained.notes = [f"{ENTRIES[trained.arm].title}: {said}"]
        return made
    if len(trained.methods) == 1:
        return method.synthesize(part.labels, draws, **options).cpu()
    made = torch.empty_like(part.images)
    for k, one in enumerate(trained.methods.values()):
        rows = part.labels == k
        made[rows] = one.synthesize(int(rows.sum()), draws).float().cpu().clamp(-1, 1)
    return made


def synthesis_seed(trained: Trained, seed: int) -> int:
    """Of whatever an arm draws while it makes images."""
    return derive(seed, "synthesis", trained.arm)


def _control(name: str, task: Task, part: Part, seed: int) -> Tensor:
    if name == "real":
        return part.lungs() if task.kind != "translate" else part.images[part.labels == 1]
    if name == "source":
        return part.images[part.labels == 0]
    if name == "painted":
        return label_maps.painted(part.maps, label_maps.label_means(task.train.lungs(), task.train.maps))
    if name != "memoriser":
        raise TrainingError(f"control {name!r} is not known")
    draws, made = torch_generator(seed, "memoriser"), torch.empty_like(part.images)
    for k in range(len(task.classes)):
        pool, rows = task.train.images[task.train.labels == k], part.labels == k
        taken = torch.randint(len(pool), (int(rows.sum()),), generator=draws)
        made[rows] = pool[taken] + JITTER * torch.randn(len(taken), *pool.shape[1:], generator=draws)
    return made.clamp(-1, 1)
