"""Which device a run uses, and how several processes of one run find and help each other (Lightning Fabric)."""

import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from covlib.errors import ConfigError, TrainingError

NVML_CHECK = "PYTORCH_NVML_BASED_CUDA_CHECK"
SAVE_SECONDS = 300.0  # how often a training state is kept at least, where nothing else is said
SOON = 5.0  # and at most
LOST = ("connection", "gloo", "nccl", "timed out", "timeout", "socket")  # words of errors when a process has gone


@dataclass(frozen=True)
class Team:
    """How many processes train together, and how often they keep a state; what ``fit`` does where it is not told."""

    devices: int = 1
    nodes: int = 1
    save_seconds: float | None = None


_team = Team()


def current_team() -> Team:
    """The team of the innermost ``team`` block; one process outside of any."""
    return _team


@contextmanager
def team(device: torch.device, devices: int = 1, nodes: int = 1, save_seconds: float = SAVE_SECONDS):
    """Start (or join) the processes, and let every ``fit`` inside share its work among them; gives the Fabric.

    Raises:
        ConfigError: as ``launch``. TrainingError: another process of the job has gone, so that none can go on.
    """
    global _team
    before, fabric = _team, launch(device, devices, nodes)
    _team = Team(devices, nodes, save_seconds)
    try:
        yield fabric
    except RuntimeError as error:  # what gloo and nccl raise; a RuntimeError of ours is passed on
        if fabric.world_size == 1 or not any(word in str(error).lower() for word in LOST):
            raise
        _end_others(fabric)
        raise TrainingError(f"process {fabric.global_rank} of {fabric.world_size} has lost another one of this job "
                            f"({str(error).splitlines()[0][:100]}); give the same command again, with any number of "
                            "devices, and it goes on from the newest state") from error
    finally:
        _team = before
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _end_others(fabric) -> None:
    """End the processes that this one has started. Fabric looks after them every few seconds, and would end this one
    along with them (SIGKILL) before it has said why; its watcher holds the same list and stops at an empty one."""
    started = getattr(fabric.strategy.launcher, "procs", [])
    for process in started:
        process.kill()
        process.wait()
    started.clear()


def is_first() -> bool:
    """Whether this process is the one of its job that writes files: rank 0, or the only one."""
    distributed = torch.distributed
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0


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


def launch(device: torch.device, devices: int, nodes: int):
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
    known = {"MASTER_ADDR", "MASTER_PORT", "NODE_RANK"} <= os.environ.keys() or "SLURM_JOB_ID" in os.environ
    if nodes > 1 and not known and "TORCHELASTIC_RUN_ID" not in os.environ:
        raise ConfigError(f"nodes={nodes}: set MASTER_ADDR, MASTER_PORT and NODE_RANK (0 to {nodes - 1}) on each node, "
                          "or start the command with torchrun or srun")
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


# ---- BatchNorm over all processes ------------------------------------------------------------------------------------


def synchronise_norms(net: nn.Module, device: torch.device) -> nn.Module:
    """``net`` with every BatchNorm taking its statistics over the whole batch, all processes together.

    On GPUs PyTorch's SyncBatchNorm, which there is for GPUs only; else ``AcrossProcesses``, in place.
    """
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(net)
    for module in net.modules():
        if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
            module.__class__ = AcrossProcesses  # same parameters, buffers and hooks; only the forward pass differs
    return net


class _Sum(torch.autograd.Function):
    """Sum over all processes. Every process's loss depends on it, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        torch.distributed.all_reduce(total)
        return total


class AcrossProcesses(nn.modules.batchnorm._BatchNorm):
    """BatchNorm over the batch of all processes of a job, each of which holds a share of it.

    Mean and variance are summed up in two messages (the variance around the mean of all, which loses no digits where
    the mean is large) with gradients through both. In eval mode it is the plain BatchNorm.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"BatchNorm: input has shape {tuple(input.shape)}; (N, C, ...) is wanted")

    def forward(self, input: Tensor) -> Tensor:
        tracked = self.running_mean is not None
        if not self.training and tracked or not torch.distributed.is_initialized():
            return super().forward(input)
        self._check_input_dim(input)
        dims, shape = [0, *range(2, input.ndim)], [1, -1, *[1] * (input.ndim - 2)]
        n = torch.tensor([input.numel() / input.shape[1]], dtype=input.dtype, device=input.device)
        sums = _Sum.apply(torch.cat([input.sum(dims), n]))
        n = sums[-1].detach()
        mean = sums[:-1] / n
        centred = input - mean.view(shape)
        var = _Sum.apply(centred.square().sum(dims)) / n
        if self.training and tracked:
            self.num_batches_tracked.add_(1)
            share = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.detach().to(self.running_mean), share)
            self.running_var.lerp_((var.detach() * n / (n - 1)).to(self.running_var), share)
        scaled = centred * torch.rsqrt(var + self.eps).view(shape)
        return scaled if self.weight is None else scaled * self.weight.view(shape) + self.bias.view(shape)
