"""CT slices from your own label maps: ``python first_script.py train``, then ``python first_script.py judge``."""

import sys

import numpy as np
import torch

from covlib.judges.features import get_extractor
from covlib.metrics.generative import frechet
from covlib.papers.global_local import Config, train
from covlib.seeding import torch_generator
from covlib.training.trained import load

maps = np.zeros((24, 32, 32), np.uint8)  # your own arrays: labels 0 outside, 1 lung, 2 ground glass, 3 consolidation
maps[:, 6:26, 4:14] = maps[:, 6:26, 18:28] = 1
images = np.where(maps, np.random.default_rng(0).normal(-0.6, 0.1, maps.shape), -1).clip(-1, 1)[:, None]  # in [-1, 1]
real = torch.from_numpy(images.astype(np.float32))

if sys.argv[1] == "train":
    train(Config.for_profile("smoke"), {"image": real, "map": torch.from_numpy(maps)}, "runs/first", seed=0)
else:
    method = load("runs/first/checkpoints/global_local.safetensors")  # the settings are in the file
    made = method.synthesize(torch.from_numpy(maps), torch_generator(0, "first")).cpu()
    print(frechet(real.numpy(), made.numpy(), get_extractor("lite2-24")))
