"""Load what was trained, in another process, and make images with it. The file says method and settings."""
import numpy as np

from covlib.seeding import torch_generator
from covlib.training.trained import load

method = load("runs/mine")  # the folder of a run, or a file of weights
made = method.synthesize(50, torch_generator(0, "mine"))  # equal seeds, equal images
np.save("made.npy", made.cpu().numpy())
print("made.npy:", tuple(made.shape), f"grey {made.min():.2f} to {made.max():.2f}")
