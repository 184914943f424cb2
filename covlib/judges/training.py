"""What training a judge needs, whichever judge it is."""

import torch

from covlib.errors import ConfigError
from covlib.seeding import torch_generator


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
    """Optimiser ("adamw", "adam") and learning-rate scheduler ("onecycle", "cosine", "constant") for ``steps`` steps.

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
    if schedule == "linear":  # half of the steps at the full rate, then in a straight line to zero
        return stepper, torch.optim.lr_scheduler.LambdaLR(stepper, lambda step: min(1.0, 2 * (1 - step / steps)))
    raise ConfigError(f"schedule {schedule!r} is not known; one of onecycle, cosine, constant, linear")


def drawing_order(labels: torch.Tensor, steps: int, batch_size: int, balance: bool, seed: int) -> torch.Tensor:
    """Which images each step takes, (steps, batch): a pure function of labels, sizes and seed."""
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
