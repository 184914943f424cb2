"""What ``covlib.training.fit.fit`` looks at: its options, whether a method's parts fit, whether weights are finite."""

import re

import torch
from torch import nn

from covlib.errors import ConfigError
from covlib.training.method import Method

PRECISIONS = ("32", "bf16-mixed")
AUTO = "auto"


def check_options(o: dict) -> None:
    """ConfigError naming the first of ``fit``'s options, by name, that means nothing."""
    if str(o["precision"]) not in (AUTO, *PRECISIONS):
        raise ConfigError(f"precision {o['precision']!r} is not one of {', '.join((AUTO, *PRECISIONS))}")
    for name in ("channels_last", "graph"):
        if o[name] not in (AUTO, True, False):
            raise ConfigError(f"{name} {o[name]!r} is not one of {AUTO}, True, False")
    for name in ("checkpoint_every", "sample_every", "log_every", "keep"):
        value = o[name]
        if not (value is None and name in ("checkpoint_every", "sample_every")) and not (
            isinstance(value, int) and value >= 1
        ):
            raise ConfigError(f"{name} must be a whole number of at least 1, not {value!r}")
    if o["ema"] is not None and not 0 < o["ema"] < 1:
        raise ConfigError(f"ema must lie between 0 and 1 (0.999, say), not {o['ema']!r}")


def for_device(o: dict, device: torch.device, world: int, method: Method) -> dict:
    """What "auto" means on this device, for ``world`` processes.

    Raises:
        ConfigError: a graph is asked for where there can be none.
    """
    gpu = device.type == "cuda"
    alone = gpu and world == 1 and o["compile"] in (False, True)  # a mode of torch.compile may record by itself
    # On an H200 CycleGAN's step of 16 images takes 270 ms so and 205 ms in PyTorch's own layout.
    turning = any(isinstance(m, nn.modules.instancenorm._InstanceNorm) for net in method.networks.values()
                  for m in net.modules())
    if o["graph"] is True and not (gpu and world == 1):
        raise ConfigError(f"graph: True on {device.type} with {world} process(es); steps are recorded on one GPU only")
    half = gpu and torch.cuda.is_bf16_supported(including_emulation=False)  # emulated it is slower than float32
    found = {"precision": PRECISIONS[half], "channels_last": gpu and not (turning and not o["compile"]), "graph": alone}
    return {name: value for name, value in found.items() if o[name] == AUTO}


def check_method(method: Method) -> None:
    """ConfigError unless a method's stages, networks and optimisers fit together."""
    names = [stage.name for stage in method.stages]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"method {method.name!r}: its stages need different names, they are {names}")
    for name in method.networks:
        if not re.fullmatch(r"[A-Za-z0-9_]+", name):  # it becomes a file's name, and a prefix before a dot
            raise ConfigError(f"method {method.name!r}: network name {name!r} may hold letters, digits and _ only")
    for stage in method.stages:
        for name, spec in method.optimizers(stage).items():
            if strangers := set(spec.nets) - set(stage.nets):
                raise ConfigError(f"method {method.name!r}, stage {stage.name!r}: optimiser {name!r} would move "
                                  f"{', '.join(sorted(strangers))}, which the stage does not train")


def spoilt_network(networks: dict[str, nn.Module]) -> str | None:
    """Name of the first network with a weight or buffer that is not finite; the device is waited for once."""
    held = {n: [v for v in net.state_dict().values() if v.is_floating_point()] for n, net in networks.items()}
    norms = {n: torch.stack(torch._foreach_norm(v)).sum().float() for n, v in held.items() if v}
    finite = torch.stack(list(norms.values())).isfinite().tolist()
    return None if all(finite) else list(norms)[finite.index(False)]
