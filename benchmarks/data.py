"""``covlib bench data``: reading slices of NIfTI scans, virtual slices, augmentation on the device; ``covlib bench
volumes``: 3-D stitching."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from torchvision.transforms import v2

from benchmarks.measure import pair, timed
from covlib.data import augment
from covlib.data.blocks import apply_blocks
from covlib.data.case import Case
from covlib.files import layouts
from covlib.files.scans import write_case
from covlib.papers.cgan3d.method import Config
from covlib.papers.cgan3d.nets import UNet3d
from covlib.phantom import phantom_slices
from covlib.seeding import rng, torch_generator
from covlib.training.method import seeded

SIDES = (64, 128, 256, 512)
SCANS = (1, 2, 4)
VOLUMES = ((32, 64, 64), (48, 96, 96), (64, 160, 160), (80, 256, 256))
OVERLAP = 16  # of blocks of 32, as in chapter 07


def bench() -> list[dict]:
    """Rows of ``covlib bench data``."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return [*_reading(), *_phantom(), *_augmentation(device)]


def _reading() -> list[dict]:
    rows = []
    for n in SCANS:
        with tempfile.TemporaryDirectory() as folder:
            for k in range(n):
                hu = rng(0, "bench", k).integers(-1024, 400, (16, 256, 256)).astype(np.int16)
                lung = np.zeros(hu.shape, np.uint8)
                lung[:, 80:180, 40:110], lung[:, 80:180, 140:210] = 1, 2
                infection = np.zeros_like(lung)
                infection[4:12, 100:130, 50:80] = 1
                write_case(Case(f"case_{k}", hu, (1.0, 1.0, 1.0), lung, infection), Path(folder) / f"case_{k}")
            read = lambda folder=folder: layouts.load_slices(folder, size=128, need=("lung", "infection"),
                                                             per_patient=8)
            rows.append(timed(f"slices of {n} NIfTI scans 256x256x16 with masks, 8 each, at 128x128", read, repeats=3,
                              note="gzip, random voxels: the slowest to unpack",
                              grows={"of": "reading slices of NIfTI scans", "with": "number of images", "x": 8 * n}))
    return rows


def _phantom() -> list[dict]:
    return [timed(f"virtual slices of {n} patients, 4 each, 64x64",
                  lambda n=n: phantom_slices(n, size=64, per_patient=4, seed=1), repeats=3,
                  grows={"of": "virtual slices", "with": "number of images", "x": 4 * n}) for n in (2, 4, 8)]


def _augmentation(device) -> list[dict]:
    rows, wait = [], torch.cuda.synchronize if device.type == "cuda" else lambda: None
    for side in SIDES:
        images = (torch.rand((32, 1, side, side), generator=torch_generator(0, "bench")) * 2 - 1).to(device)
        chain = v2.Compose([v2.RandomResizedCrop(side, scale=(0.5, 1.0), antialias=False), v2.RandomHorizontalFlip()])

        def ours(images=images):
            generator = torch_generator(0, "bench", device=device)
            augment.horizontal_flip(augment.random_resized_crop(images, generator, scale=(0.5, 1.0)), generator)
            wait()

        def plain(images=images, chain=chain):
            torch.stack([chain(image) for image in images])
            wait()

        rows += pair(f"crop and flip of 32 images, {side}x{side}", plain, ours, repeats=15,
                     note="plain: torchvision, image by image",
                     grows={"of": "augmentation", "with": "image size", "x": side})
    return rows


def bench_volumes() -> list[dict]:
    """Rows of ``covlib bench volumes``: cutting into blocks that overlap and adding up again, alone and with the
    network that depixelates in chapter 07 (``cpu`` profile, untrained)."""
    device, c = torch.device("cuda" if torch.cuda.is_available() else "cpu"), Config.for_profile("cpu")
    with seeded(0, "bench"):
        net = UNet3d(c.widths, noise=0, norm=c.norm, residual=True, pixelated=True, folded=c.folded).eval().to(device)
    rows = []
    for shape in VOLUMES:
        hu, size = rng(0, "bench", "volume").random(shape, np.float32), "x".join(map(str, shape))
        out, voxels = np.empty_like(hu), int(np.prod(shape))
        for of, network, name in (("stitching", lambda blocks: blocks, "blocks cut and added up"),
                                  ("stitching and network", net, "blocks through chapter 07's network")):

            def work(hu=hu, network=network, out=out):
                with torch.inference_mode():
                    apply_blocks(hu, network, overlap=OVERLAP, batch=16, out=out, device=device)

            row = timed(f"{name}, {size}, overlap {OVERLAP}", work, repeats=3,
                        grows={"of": of, "with": "volume size", "x": voxels})
            rows.append({**row, "note": f"{voxels / row['median_s'] / 1e6:.2f} million voxels/s"})
    return rows
