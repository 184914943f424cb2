"""Training a judge and asking it, whichever judge it is."""

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from covlib import rehearsal
from covlib.errors import ConfigError, DataError, TrainingError
from covlib.nets import batched, gathered_statistics
from covlib.seeding import derive, torch_generator
from covlib.training.devices import resolve_device

SETTLE_BATCHES = 16


def descend(model: nn.Module, images: Tensor, answers: Tensor, loss: Callable, augment: Callable, *, judge: str,
            epochs: int | None, steps: int | None, batch_size: int, lr: float, schedule: str, optimizer: str = "adam",
            weight_decay: float = 0.0, balance: bool = False, seed: int = 0, device="cpu", settle_batch: int,
            settle_augmented: bool = False) -> dict:
    """Train ``model`` for a fixed number of steps, then settle its statistics; it is left on ``device`` in eval mode.

    Args:
        images, answers: all there is to train on, (N, C, H, W) and (N, ...).
        loss: (images, answers) of a batch -> scalar, by ``model``.
        augment: (images, answers, torch.Generator) -> the two as they are trained on.
        judge: a word that the random numbers go by, and with which an error begins.
        epochs, steps: see ``training_length``. optimizer, schedule, lr, weight_decay: see ``build_optimiser``.
        balance: see ``drawing_order``.
        settle_batch: images of a batch when batch normalisation's statistics are taken anew, from ``images``; or, with
            ``settle_augmented``, from up to 16 batches as they were trained on.

    Returns:
        {"loss": per step, "train_loss": per epoch, "seconds", "steps", "lr"}.

    Raises:
        ConfigError: a setting that does not fit. TrainingError: the loss is no longer finite.
    """
    steps, per_epoch = training_length(len(images), epochs, steps, batch_size)
    steps, batch_size = rehearsal.cut(f"{judge} {type(model).__name__}", "", steps, batch_size, least=2)
    device = resolve_device(device)
    x, y, model = images.to(device), answers.to(device), model.to(device)
    stepper, scheduler = build_optimiser(model, optimizer, schedule, lr, weight_decay, steps)
    order = drawing_order(y.cpu(), steps, batch_size, balance, seed).to(device)
    noise = torch_generator(seed, f"{judge} augment", device=device)
    losses, train_loss, started = [], [], time.perf_counter()
    model.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derive(seed, f"{judge} dropout"))
        for step, index in enumerate(order):
            value = loss(*augment(x[index], y[index], noise))
            stepper.zero_grad(set_to_none=True)
            value.backward()
            stepper.step()
            scheduler.step()
            losses.append(value.detach())
            rehearsal.step_done(losses[-1])
            if (step + 1) % per_epoch == 0 or step + 1 == steps:
                mean = float(torch.stack(losses[step // per_epoch * per_epoch:]).mean())
                if not np.isfinite(mean):
                    raise TrainingError(f"{judge}: the loss became {mean}; try a smaller lr")
                train_loss.append(mean)
    if settle_augmented:
        x = torch.cat([augment(x[index], y[index], noise)[0] for index in order[:SETTLE_BATCHES]])
    elif rehearsal.active():
        x = x[: max(2, settle_batch)]
    settle(model, x, torch_generator(seed, f"{judge} settle"), settle_batch)
    return {"loss": torch.stack(losses).tolist(), "train_loss": train_loss, "seconds": time.perf_counter() - started,
            "steps": steps, "lr": lr}


def settle(model: nn.Module, x: Tensor, generator: torch.Generator, batch: int) -> None:
    """Batch normalisation's statistics as plain means over batches of ``x``, mixed by ``generator``, without dropout;
    leaves the model in eval mode. A last batch that is not whole is left out."""
    order = torch.randperm(len(x), generator=generator).to(x.device)
    whole = len(x) // batch * batch
    with gathered_statistics(model):
        for index in order[:whole].split(batch) if whole else (order,):
            model(x[index])
    model.eval()


def ask(model: nn.Module, question: Callable, images: Tensor, batch: int) -> np.ndarray:
    """What ``question`` gives of batches of ``images`` (N, C, H, W), along N: in eval mode on the model's device; its
    mode is restored."""
    return torch.cat(batched(lambda x: question(x).cpu(), {"judge": model}, batch, images)).numpy()


def check_images(images, *channels: int) -> Tensor:
    """``images``, array or tensor, as float32.

    Raises:
        DataError: not (N, C, H, W) with N >= 1 and C one of ``channels``, or values that are not finite or not in
            [-1, 1].
    """
    x = torch.as_tensor(images)
    if x.ndim != 4 or x.shape[1] not in channels or len(x) == 0:
        wanted = " or ".join(f"(N, {c}, H, W)" for c in channels)
        raise DataError(f"images have shape {tuple(x.shape)}; {wanted} with N >= 1 is wanted")
    x = x.float()
    low, high = (float(x.min()), float(x.max())) if x.numel() else (0.0, 0.0)
    if not (low >= -1.01 and high <= 1.01):  # false for NaN too
        raise DataError(f"images range from {low:.3g} to {high:.3g}; they must be finite and in [-1, 1]")
    return x


def training_length(n: int, epochs: int | None, steps: int | None, batch_size: int) -> tuple[int, int]:
    """Steps of a judge's training on ``n`` images, and steps in an epoch; ConfigError for a length that cannot be."""
    if batch_size < 2:
        raise ConfigError(f"batch_size is {batch_size}; batch normalisation needs at least 2")
    if epochs is not None and steps is not None:
        raise ConfigError(f"epochs={epochs} and steps={steps} are both given; give one")
    per_epoch = -(-n // batch_size)
    steps = steps if steps is not None else (10 if epochs is None else epochs) * per_epoch
    if steps < 1:
        raise ConfigError(f"epochs={epochs}, steps={steps}: at least one step is needed")
    return steps, per_epoch


def build_optimiser(model, optimizer: str, schedule: str, lr: float, weight_decay: float, steps: int):
    """Optimiser ("adamw", "adam") and learning-rate scheduler for ``steps`` steps: "onecycle", "cosine", "constant" or
    "linear" (constant for half of the steps, then in a straight line to zero).

    Raises:
        ConfigError: another word for either.
    """
    kinds = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
    if optimizer not in kinds:
        raise ConfigError(f"optimizer {optimizer!r} is not known; one of {', '.join(kinds)}")
    stepper = kinds[optimizer](model.parameters(), lr=lr, weight_decay=weight_decay)
    if schedule == "onecycle" and steps > 3:  # its warm-up of 30 % needs a few steps
        return stepper, torch.optim.lr_scheduler.OneCycleLR(stepper, max_lr=lr, total_steps=steps + 1)
    if schedule in ("onecycle", "cosine"):
        return stepper, torch.optim.lr_scheduler.CosineAnnealingLR(stepper, steps)
    if schedule == "constant":
        return stepper, torch.optim.lr_scheduler.LambdaLR(stepper, lambda step: 1.0)
    if schedule == "linear":
        return stepper, torch.optim.lr_scheduler.LambdaLR(stepper, lambda step: min(1.0, 2 * (1 - step / steps)))
    raise ConfigError(f"schedule {schedule!r} is not known; one of onecycle, cosine, constant, linear")


def drawing_order(labels: Tensor, steps: int, batch_size: int, balance: bool, seed: int) -> Tensor:
    """Which images each step takes, (steps, batch): a pure function of labels, sizes and seed.

    Args:
        labels: (N,) classes; without ``balance`` their number alone counts, and any (N, ...) will do.
        balance: draw classes equally often, however rare; otherwise each image is taken once an epoch.
    """
    generator, need = torch_generator(seed, "judge order"), steps * batch_size
    if not balance:
        rounds = -(-need // len(labels))
        chosen = torch.cat([torch.randperm(len(labels), generator=generator) for _ in range(rounds)])
        return chosen[:need].view(steps, batch_size)
    pools = [torch.nonzero(labels == c).flatten() for c in labels.unique()]
    quota = -(-need // len(pools))
    streams = []
    for pool in pools:
        rounds = -(-quota // len(pool))
        streams.append(torch.cat([pool[torch.randperm(len(pool), generator=generator)] for _ in range(rounds)])[:quota])
    return torch.stack(streams, dim=1).flatten()[:need].view(steps, batch_size)
