"""Train a DCGAN on images of your own: arrays in, a file of weights out."""
import numpy as np

from covlib.papers.dcgan import Config, train_all

images = np.load("images.npy")  # (N, 1, 28, 28), -1 black to 1 white
config = Config.for_profile("smoke", {"image_size": images.shape[-1], "steps": 40})  # cpu, long, gpu, paper
methods, results = train_all(config, {"covid": images}, "runs/mine", seed=0)
print(methods["covid"].stages[0].steps, "steps; weights in runs/mine/checkpoints/dcgan.safetensors")
