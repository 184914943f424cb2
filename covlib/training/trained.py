"""Trained methods on disk: their weights with their settings, so that nothing has to be given by hand to use them::

    method = load("runs/04_global_local/checkpoints/global_local.safetensors")     # in any process, on any machine
    images = method.synthesize(maps, torch_generator(0, "samples"))

What ``fit`` leaves, and what a paper's own ``train`` leaves, name their method and its settings in the file's header. A
header is data: the class comes from the table METHODS, and nothing that a file says is imported or executed.
"""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from torch import Tensor

from covlib.config import Config
from covlib.errors import ConfigError
from covlib.training.checkpoints import check_state, digest, load_weights, read_weights, save_weights
from covlib.training.devices import resolve_device
from covlib.training.method import Method

METHODS = {
    "dcgan": "covlib.papers.dcgan.method:DCGAN",
    "global_local": "covlib.papers.global_local.method:GlobalLocal",
    "cosingan": "covlib.papers.cosingan.method:CoSinGAN",
    "cyclegan": "covlib.papers.cyclegan.method:CycleGAN",
    "cgan3d": "covlib.papers.cgan3d.method:CGAN3D",
    "cgan3d_coarse": "covlib.papers.cgan3d.noise:CoarseGAN",
    "pix2pix": "covlib.baselines.pix2pix:Pix2Pix",
    "pix2pixhd": "covlib.baselines.pix2pixhd:Pix2PixHD",
    "spade": "covlib.baselines.spade:SPADE",
    "sean": "covlib.baselines.sean:SEAN",
    "diffusion": "covlib.baselines.diffusion:Diffusion",
}  # name -> module and class; beside each class the module has its Config


def described(method: Method) -> dict[str, str]:
    """What the header of a method's weights says of it: its name and, of those in METHODS, its settings as JSON.

    A chapter's settings may have fields beyond the method's (judges, say); they are left out.
    """
    cls = type(method)
    if METHODS.get(method.name) != f"{cls.__module__}:{cls.__qualname__}":
        return {"method": method.name}
    own = {field.name for field in fields(_settings(cls))}
    settings = {key: value for key, value in method.config.as_dict().items() if key in own}
    return {"method": method.name, "config": json.dumps(settings)}


def _settings(cls: type[Method]) -> type[Config]:
    """The Config beside a class of METHODS."""
    return sys.modules[cls.__module__].Config


def load(path, part: str = "", device="auto") -> Method:
    """A trained method, its networks on ``device`` and in eval mode, ready for ``synthesize``.

    Its schedule is that of one image: to train on, make the method anew and call ``fit`` on the folder of the run.

    Args:
        path: a file of weights that ``fit`` or a paper's ``train`` left, or the folder of the run (or its
            ``checkpoints``) where all files are of one method.
        part: which of several methods in the file (the class of chapter 03's, the source class of chapter 06's).

    Raises:
        ConfigError: no such file, one that does not name its method and settings, settings or weights that do not fit
            this version, no such part, or several parts and none named.
    """
    tensors, header = _read(Path(path))
    method = _made(header, f"checkpoint {path}")
    parts = sorted({key.partition(".")[0] for key in tensors} - method.networks.keys())
    if not part and len(parts) == 1:
        part = parts[0]
    if part not in (parts or [""]):
        raise ConfigError(f"checkpoint {path}: part {part!r} is not one of {', '.join(parts) or '(none)'}")
    return filled(method, tensors, part, f"checkpoint {path}", device)


def filled(method: Method, tensors: dict[str, Tensor], part: str, where: str, device="auto") -> Method:
    """``method`` with the weights of ``part`` ("": the only one) among ``tensors``, on ``device``, in eval mode.
    Discriminators, which only training needs, may be left out. ConfigError: weights that do not fit."""
    for name, net in method.networks.items():
        prefix = f"{part}.{name}.".lstrip(".")
        state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if state or name in method.generators:
            check_state(net, state, f"{where}: network {prefix[:-1]!r}")
            net.load_state_dict(state)
        net.to(resolve_device(device)).eval()
    return method


def begin_at(method: Method, start, part: str = "") -> dict[str, str]:
    """Let ``method`` begin to learn where an earlier training ended, in place of its own first weights.

    Its generators are taken from there. Of its other networks those are taken that the weights hold and that were made
    alike; a discriminator of another kind, or one that was not kept, begins anew.

    Args:
        start: a file of weights, a folder with one file a network, or the folder of a run. part: whose, where the
            weights hold those of several.

    Returns:
        What tells this beginning from another, for ``fit``'s ``identity``.

    Raises:
        ConfigError: weights of another method, of another part, or that do not fit.
    """
    where, (tensors, header) = f"start {start}", _read(Path(start))
    if header.get("method") != method.name:
        raise ConfigError(f"{where}: weights of {header.get('method', 'a method that they do not state')!r}; of "
                          f"{method.name!r} are wanted")
    kind = lambda settings: settings.get("discriminator")
    alike = kind(json.loads(header.get("config", "{}"))) == kind(method.config.as_dict())
    states = {}
    for name, net in method.networks.items():
        prefix = f"{part}.{name}.".lstrip(".")
        state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if name in method.generators or state and alike:
            check_state(net, state, f"{where}: network {prefix[:-1]!r}")
            states[name] = state
    for name, state in states.items():
        method.networks[name].load_state_dict(state)
    return {"start": digest(start), "start part": part, "start networks": ", ".join(states)}


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a file or a folder of files, and their header."""
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else [path]
    if not files:
        raise ConfigError(f"checkpoint {path}: the folder holds no safetensors file")
    tensors: dict[str, Tensor] = {}
    headers = []
    for file in files:
        found, header = read_weights(file)
        tensors |= found
        headers.append(header)
    if len({(header.get("method"), header.get("config")) for header in headers}) > 1:
        raise ConfigError(f"checkpoint {path}: its {len(files)} files are not of one method; give one of them")
    return tensors, headers[0]


def _made(header: dict[str, str], where: str) -> Method:
    """The method that a header names, with all its networks, untrained."""
    name = header.get("method")
    if name not in METHODS or "config" not in header:
        raise ConfigError(f"{where}: its header does not state a method of {', '.join(METHODS)} with its settings; "
                          "make the method with the settings it was trained with, and use "
                          "covlib.training.checkpoints.load_weights")
    cls = resolve_name(METHODS[name])
    try:
        return cls.empty(_settings(cls).for_profile("paper", json.loads(header["config"])))
    except (ConfigError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: its settings do not fit this version of {name}: {error}") from error


def weights_in(place, name: str) -> Path:
    """The file ``name`` of a run whose folder (or its ``checkpoints``) is ``place``; ``place`` itself where it is a
    file, or a folder of another kind (one file a network)."""
    place = Path(place)
    found = [file for file in (place / "checkpoints" / name, place / name) if file.is_file()]
    return found[0] if found else place / "checkpoints" if (place / "checkpoints").is_dir() else place


def parts_in(place) -> list[str]:
    """The parts (classes, say) that weights hold, by the names of their tensors or, of a folder, of its files."""
    place = Path(place)
    names = [file.name for file in place.glob("*.safetensors")] if place.is_dir() else read_weights(place)[0]
    return sorted({name.partition(".")[0] for name in names})


def fit_or_load(methods: Mapping[str, Method], train: Callable[[], Any], file, notes: dict[str, Any], *,
                checkpoint=None, device="auto", left_out: tuple[str, ...] = (), unread: tuple[str, ...] = ()) -> Any:
    """Train methods of one kind and keep their weights in ``file``; or take them from a checkpoint.

    Args:
        methods: name of the part -> method; {"": method} where there is but one. train: trains them all, with ``fit``.
        file: where the weights go. notes: for its header; a checkpoint's must say the same, but for "seed".
        checkpoint: a file of an earlier call, the folder of its run, or a folder with one file a network; nothing is
            trained then.
        left_out: networks that the file does without. unread: networks in it that a checkpoint need not hold: they stay
            as they begin.

    Returns:
        What ``train`` returned; None with a checkpoint.

    Raises:
        ConfigError: a checkpoint that does not fit.
    """
    named = lambda without: {f"{part}.{name}".lstrip("."): net for part, method in methods.items()
                             for name, net in method.networks.items() if name not in without}
    if checkpoint is None:
        result = train()
        save_weights(file, named(left_out), {**notes, **described(next(iter(methods.values())))})
        return result
    for method in methods.values():
        method.grow()
    load_weights(weights_in(checkpoint, Path(file).name), named((*left_out, *unread)),
                 {k: str(v) for k, v in notes.items() if k != "seed"})
    for net in named(()).values():
        net.to(resolve_device(device)).eval()
    return None
