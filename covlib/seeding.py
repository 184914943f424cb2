"""Random numbers that depend on a seed and a purpose, never on who drew before.

Every draw in the project comes from a generator made here from the run's seed and a few keys that say what it is for
(``rng(0, "phantom", 17)``, ``rng(0, "split")``). Adding a draw in one place then leaves all others as they were, and a
killed run can take up its random numbers at any step without a saved state.
"""

import hashlib

import numpy as np

Key = int | str


def derive(seed: int, *keys: Key) -> int:
    """A 63-bit seed for the purpose named by ``keys``; equal on every machine and Python version."""
    text = "\x1f".join([str(int(seed)), *(f"{type(k).__name__}:{k}" for k in keys)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def rng(seed: int, *keys: Key) -> np.random.Generator:
    """A NumPy generator (PCG64) for the purpose named by ``keys``."""
    return np.random.Generator(np.random.PCG64(derive(seed, *keys)))


def torch_generator(seed: int, *keys: Key, device="cpu"):
    """A ``torch.Generator`` on ``device`` for the purpose named by ``keys``."""
    import torch

    return torch.Generator(device=device).manual_seed(derive(seed, *keys))


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch globally, for what third-party code draws (initial weights, UMAP, dropout)."""
    import random

    import torch

    random.seed(derive(seed, "python"))
    np.random.seed(derive(seed, "numpy") % 2**32)
    torch.manual_seed(derive(seed, "torch"))
    torch.use_deterministic_algorithms(True, warn_only=True)
