"""Which samples make up the batch of a step, and how they get to the device.

The order is a pure function of (seed, stage, epoch): every epoch is a fresh permutation in which each sample comes
once, and batches run on across the end of an epoch, so that all have the same size. A run taken up at any step, by any
number of devices, therefore sees what an uninterrupted one would have seen.
"""

import hashlib

import torch
from torch import Tensor

from covlib.errors import DataError
from covlib.seeding import torch_generator


class Unpaired(dict):
    """Data of several domains that do not belong together pair by pair: ``Unpaired(a=images, b=other_images)``.

    Each domain is a tensor (N, ...), domains may differ in N, and each is shuffled on its own. The batch has the same
    names, with ``batch_size`` samples of every domain.
    """


class SampleOrder:
    """An endless sequence of sample numbers: one permutation of 0 .. n-1 after the other, each from its own seed."""

    def __init__(self, n: int, seed: int, *keys):
        self.n, self.seed, self.keys = n, seed, keys
        self._epochs: dict[int, Tensor] = {}

    def epoch(self, number: int) -> Tensor:
        if number not in self._epochs:
            self._epochs = {k: v for k, v in self._epochs.items() if k == number - 1}
            generator = torch_generator(self.seed, "order", *self.keys, number)
            self._epochs[number] = torch.randperm(self.n, generator=generator)
        return self._epochs[number]

    def take(self, start: int, count: int) -> Tensor:
        """Sample numbers at places ``start`` .. ``start + count - 1`` of the sequence, int64 (count,)."""
        parts = []
        while count > 0:
            number, place = divmod(start, self.n)
            part = self.epoch(number)[place : place + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def make_batches(data: dict[str, Tensor], stage, seed: int, device: torch.device, rank: int = 0, world: int = 1):
    """A function step index -> batch (dict of tensors on ``device``, this rank's rows of the step's batch)."""
    share, names = stage.batch_size // world, list(data)
    if isinstance(data, Unpaired):
        orders = {name: SampleOrder(len(data[name]), seed, stage.name, name) for name in names}
    else:
        orders = dict.fromkeys(names, SampleOrder(len(data[names[0]]), seed, stage.name))

    def read(index: int) -> dict[str, Tensor]:
        numbers = {}  # one transfer of sample numbers for all the tensors that share an order
        for order in orders.values():
            if id(order) not in numbers:
                rows = order.take(index * stage.batch_size + rank * share, share)
                numbers[id(order)] = to_device(rows, device)
        return {name: data[name].index_select(0, numbers[id(orders[name])]) for name in names}

    return read


def per_epoch(data: dict[str, Tensor], stage) -> int:
    """Batches after which every sample has come once (of ``Unpaired`` domains the largest's)."""
    return -(-max(map(len, data.values())) // stage.batch_size)


def check_data(data) -> None:
    """Raise DataError unless ``data`` can be trained on: tensors of equal length, none of them empty."""
    if not isinstance(data, dict):
        raise DataError(f"training data of type {type(data).__name__}: give a dict of tensors")
    for name, value in data.items():
        if not isinstance(value, Tensor) or value.ndim == 0:
            raise DataError(f"training data {name!r} is {type(value).__name__}: give a tensor, first axis samples")
    lengths = {name: len(value) for name, value in data.items()}
    if not lengths or min(lengths.values()) == 0:
        raise DataError(f"training data is empty: samples by name are {lengths}")
    if not isinstance(data, Unpaired) and len(set(lengths.values())) > 1:
        raise DataError(f"training data differs in length, {lengths}: give one length, or Unpaired(...) domains")


def fingerprint(data: dict[str, Tensor]) -> str:
    """16 hex digits of a SHA-256 of names, shapes and contents."""
    digest = hashlib.sha256()
    for name in sorted(data):
        value = data[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data if value.numel() else b"")
    return digest.hexdigest()[:16]


def to_device(value: Tensor, device: torch.device) -> Tensor:
    """``value`` on ``device``, without making the host wait for work under way on a GPU."""
    if device.type == "cuda" and not value.is_cuda:
        return value.pin_memory().to(device, non_blocking=True)
    return value.to(device)
