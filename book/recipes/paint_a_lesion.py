"""Paint a lesion into your own lung: a label map edited by hand, and the network's answer to it."""
import numpy as np

from covlib.training.trained import load

method = load("weights.safetensors")  # of chapter 04: runs/04_global_local/checkpoints/global_local.safetensors
lung = np.load("lung.npy").astype(np.uint8)  # (S, S), 1 in the lung; S is the network's size
row, column = np.argwhere(lung == 1)[len(np.argwhere(lung == 1)) // 2]
disc = np.hypot(*(np.indices(lung.shape) - np.reshape([row, column], (2, 1, 1)))) < 4
ill = np.where(disc & (lung == 1), 2, lung).astype(np.uint8)  # 2 ground glass, 3 consolidation
painted = method.synthesize(np.stack([lung, ill])).cpu().numpy()
np.save("painted.npy", painted)
print(f"painted {(ill == 2).sum()} pixels of ground glass; the network changed {(painted[0] != painted[1]).sum()} of "
      f"{lung.size}")
