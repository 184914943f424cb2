"""A study whose arms train the tiny GAN, for the tests of the study runner; run as a script, it sweeps on its own."""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tiny_gan import TinyGAN, images

from covbook.runner.studies import sweep
from covbook.studies import Arm, Study
from covlib.config import Config as BaseConfig
from covlib.seeding import torch_generator
from covlib.training.fit import fit


@dataclass(frozen=True)
class Config(BaseConfig):
    steps: int = 8
    batch_size: int = 8

    @classmethod
    def profiles(cls):
        return {"smoke": {"steps": 4}}


SETTINGS = {"plain": {"noise": False}, "noisy": {"noise": True}, "fast": {"noise": False, "lr": 0.01},
            "slow": {"noise": True, "pause": 0.05}, "diverges": {"noise": False, "spoil": True}}


def arms(profile: str) -> list[Arm]:
    return [Arm(name, settings) for name, settings in SETTINGS.items()]


def run_arm(arm, *, profile, data, seed, device, out, overrides=None):
    """Train a tiny GAN and tell the mean and spread of what it makes."""
    config, settings = Config.for_profile(profile, overrides), arm.settings

    def on_step(call, losses):
        if settings.get("spoil"):
            losses["D"] = losses["D"] * float("nan")
        if settings.get("pause"):
            print(f"step {call}", flush=True)
            time.sleep(settings["pause"])

    method = TinyGAN((config.steps,), config.batch_size, seed, settings["noise"], settings.get("lr", 2e-3), on_step)
    fit(method, {"image": images()}, out, seed=seed, device=device, checkpoint_every=2, log_every=2)
    made = method.sample_grid(torch_generator(seed, "tiny study")).detach()
    return {"mean": float(made.mean()), "spread": float(made.std()), "undefined": float("nan")}


STUDY = Study("tiny", "90_tiny", "What the tiny GAN makes", arms, run_arm, Config, "table_{arm}_{metric}")


def studies() -> list[Study]:
    return [STUDY]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("arms", nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("ready", flush=True)
    input()  # so that several can be let go at once
    sweep(STUDY, profile="smoke", seeds=given.seeds, arms=given.arms, out=given.out, device="cpu",
          overrides={"steps": 6}, say=lambda text: print(text, flush=True))


if __name__ == "__main__":
    main()
