"""Which device a run uses, and how several processes of one run find and help each other (Lightning Fabric)."""

import os
import sys

import torch
from torch import nn

from covlib.errors import ConfigError

NVML_CHECK = "PYTORCH_NVML_BASED_CUDA_CHECK"


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """The device meant by "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1" or "mps".

    Raises ConfigError when this machine does not have it.
    """
    if str(device) == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"device {device!r} is not known: use auto, cpu, cuda, cuda:N or mps") from error
    if found.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (found.index or 0) >= count:
            raise ConfigError(f"device {str(device)!r}: CUDA devices on this machine: {count}; use device=auto or cpu")
        return torch.device("cuda", found.index or 0)
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device 'mps': this machine has none; use device=auto or cpu")
    if found.type not in ("cpu", "mps"):
        raise ConfigError(f"device {str(device)!r} cannot be trained on: use auto, cpu, cuda, cuda:N or mps")
    return torch.device(found.type)


def launch(device: torch.device, devices: int = 1, nodes: int = 1):
    """A Fabric with its processes started: one, those that torchrun started, or ``devices`` copies of this script."""
    asked = os.environ.get(NVML_CHECK)
    from lightning_fabric import Fabric

    # Fabric's import switches this on, for processes that fork. It makes every step of an optimiser look for CUDA's
    # management library again: 0.3 ms each on a machine without a GPU. We start processes afresh and need it not.
    if asked is None:
        os.environ.pop(NVML_CHECK, None)
    if "TORCHELASTIC_RUN_ID" in os.environ:  # started by torchrun: it says how many we are
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    if devices < 1 or nodes < 1:
        raise ConfigError(f"devices and nodes must be at least 1, not {devices} and {nodes}")
    if device.type == "cuda" and devices > torch.cuda.device_count():
        raise ConfigError(f"devices={devices}: CUDA devices on this machine: {torch.cuda.device_count()}")
    if devices * nodes > 1 and hasattr(sys, "ps1"):
        raise ConfigError(f"devices={devices}, nodes={nodes}: several processes cannot be started from a notebook; "
                          "train from a script (torchrun), then run the notebook on the same out folder")
    alone = devices * nodes == 1
    which = [device.index] if device.type == "cuda" and alone else devices
    fabric = Fabric(accelerator=device.type, devices=which, num_nodes=nodes, strategy="auto" if alone else "ddp")
    fabric.launch()
    return fabric


def seed_device(device: torch.device, seed: int) -> None:
    """Seed the global generators that work on ``device`` draws from (dropout, say).

    ``torch.manual_seed`` does it for all devices, and takes a good part of a millisecond where CUDA is not in use.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def average_gradients(parameters: list[nn.Parameter], world: int) -> None:
    """Replace the gradients of all ``world`` processes by their mean, in one message."""
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in grads])
    torch.distributed.all_reduce(flat)
    flat /= world
    parts = flat.split([g.numel() for g in grads])
    torch._foreach_copy_(grads, [part.view(g.shape) for part, g in zip(parts, grads, strict=True)])
