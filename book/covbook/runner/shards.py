"""Synthetic images made by many processes: every number once, whichever process makes it, and however often one dies.

The numbers 0 .. n-1 are cut into batches of fixed size; batch k is made by rank k modulo the number of ranks, from a
random generator of its own, and written whole or not at all. So the images depend on (seed, number) and not on how many
processes there are, and a job that was cut off makes only what is not there yet.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from covlib.atomic import write_atomically
from covlib.errors import DataError, TrainingError
from covlib.seeding import torch_generator
from covlib.training.checkpoints import read_weights


def batches(n: int, size: int) -> list[range]:
    """The numbers 0 .. n-1 in batches of ``size``; the last may be shorter."""
    return [range(start, min(start + size, n)) for start in range(0, n, size)]


def make(synthesise: Callable[[range, torch.Generator], Tensor], n: int, folder: Path, *, seed: int, key: str,
         batch: int = 64, rank: int = 0, world: int = 1, device="cpu") -> int:
    """Make this rank's batches that are not in ``folder`` yet, one file a batch.

    Args:
        synthesise: (numbers, generator on ``device``) -> images float (len(numbers), C, H, W) in [-1, 1].
        key: what is made; goes into the seed of every batch.

    Returns:
        How many images were made by this call.

    Raises:
        TrainingError: images that are not finite, or not as many as asked for; a file that cannot be written.
    """
    made = 0
    for numbers in batches(n, batch)[rank::world]:
        file = Path(folder) / f"{numbers.start:08d}-{numbers.stop:08d}.safetensors"
        if file.is_file():
            continue
        images = synthesise(numbers, torch_generator(seed, "shards", key, numbers.start, device=device))
        images = images.detach().float().cpu().contiguous()
        if len(images) != len(numbers) or not bool(images.isfinite().all()):
            raise TrainingError(f"synthesis of {key}, images {numbers.start} to {numbers.stop - 1}: {len(images)} "
                                "came, or some are not finite")
        content = save({"images": images, "numbers": torch.tensor(list(numbers))})
        write_atomically(file, lambda out, content=content: out.write(content))
        made += len(numbers)
    return made


def collect(folder: Path, n: int) -> Tensor:
    """All images of ``folder`` in the order of their numbers, (n, C, H, W).

    Raises:
        DataError: a number is missing or there twice; the first one is named. ConfigError: a damaged file.
    """
    found: dict[int, Tensor] = {}
    for file in sorted(Path(folder).glob("*.safetensors")):
        tensors, _ = read_weights(file)
        for number, image in zip(tensors["numbers"].tolist(), tensors["images"], strict=True):
            if number in found:
                raise DataError(f"{file}: image {number} is in another file too; remove {folder} and make them again")
            found[number] = image
    missing = [k for k in range(n) if k not in found]
    if missing or len(found) != n:
        what = f"image {missing[0]} is missing" if missing else f"image {max(found)} was not asked for"
        raise DataError(f"{folder}: {len(found)} of {n} images, {what}; give the command again to make it")
    return torch.stack([found[k] for k in range(n)])


def folder_for(out: Path, networks: dict[str, nn.Module], *what) -> Path:
    """Where the batches of these weights and this purpose go: files of other weights are never mistaken for them."""
    digest = hashlib.sha256(repr(what).encode())
    for name in sorted(networks):
        for key, value in networks[name].state_dict().items():
            digest.update(f"{name}.{key}".encode() + value.detach().cpu().contiguous().flatten().view(torch.uint8)
                          .numpy().tobytes())
    return Path(out) / f".parts-{digest.hexdigest()[:12]}"
