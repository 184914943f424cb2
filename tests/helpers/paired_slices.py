"""Slices small enough to know by heart: ellipses as lungs, squares as lesions, noise as grey."""

import numpy as np
import torch

from covlib.data.label_maps import Paired
from covlib.seeding import torch_generator


def paired_slices() -> Paired:
    """Nine patients with four slices of 32x32 each."""
    maps = np.zeros((36, 32, 32), np.uint8)
    rows, columns = np.ogrid[:32, :32]
    for k in range(36):
        for middle in (9, 22):
            maps[k][((rows - 16) / 11) ** 2 + ((columns - middle) / 6) ** 2 <= 1] = 1
        maps[k, 12:16 + k % 3, 6:10], maps[k, 18:20, 21:24] = 2, 3
    grey = torch.tensor([-1.0, -0.7, -0.1, 0.6])[torch.from_numpy(maps).long()][:, None]
    images = (grey + 0.1 * torch.randn(grey.shape, generator=torch_generator(0, "test"))).clamp(-1, 1)
    images[:, :, :3] = 0.8  # something outside the lungs
    return Paired(images, torch.from_numpy(maps), [f"p{k // 4}" for k in range(36)], [f"s{k}" for k in range(36)],
                  fingerprint="abc")
