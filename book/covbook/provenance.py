"""What a number was made with: the project's commit, the versions of the libraries, the machine."""

import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import covlib
from covbook import project

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "scikit-image", "umap-learn", "monai",
            "torchmetrics", "lightning-fabric", "matplotlib")


def git_commit() -> str | None:
    """The commit of this project, with "+changes" when tracked files differ from it; None outside its own git tree.

    An installed copy inside somebody else's repository counts as outside.
    """
    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(project.ROOT), *words], capture_output=True, text=True, timeout=20,
                              check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != project.ROOT:
            return None
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--verify", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str]:
    """Versions of Python, covlib and the libraries that results depend on, read without importing them."""
    found = {"python": platform.python_version(), "covlib": covlib.__version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def sums(files: Iterable[Path]) -> str:
    """Files by name with their SHA-256, for the datasheet of what they made; "" of none."""
    from covlib.training.checkpoints import sha256

    return "; ".join(f"{file.name} (SHA-256 {sha256(file)})" for file in files)


def peak_memory(device="cpu") -> int:
    """The most memory that this process has had, in bytes: that of tensors on a GPU, else all of it."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)  # else KiB


def machine(device) -> dict[str, Any]:
    """What depends on the machine: its name for the device, and peak memory in MB (10^6 bytes)."""
    import torch

    found = {"device_name": platform.processor() or platform.machine(),
             "peak_memory_mb": round(peak_memory() / 1e6, 1),
             "peak_device_memory_mb": None}
    if device.type == "cuda":
        found["device_name"] = torch.cuda.get_device_name(device)
        found["peak_device_memory_mb"] = round(peak_memory(device) / 1e6, 1)
    return found
