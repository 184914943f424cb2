"""What exported networks have in common: their words, and a module that holds the networks that a function calls."""

from collections.abc import Callable

from torch import Tensor, nn

SYNTHETIC = "What it makes is synthetic: it shows no patient, and is not for diagnosis. "


class Called(nn.Module):
    """A function of tensors, with the networks that it calls as parts, so that their weights are its own."""

    def __init__(self, networks: dict[str, nn.Module], work: Callable):
        super().__init__()
        self.nets = nn.ModuleDict({name.replace(".", "_"): net for name, net in networks.items()})
        self.work = work

    def forward(self, *inputs: Tensor):
        return self.work(*inputs)
