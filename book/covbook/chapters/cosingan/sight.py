"""At what size the segmenting judges of chapter 05 see slices: 256 pixels, though slices have 512 (Section 3.3.2)."""

from torch import Tensor, nn

from covlib.papers.cosingan.nets import resize_condition, resize_image


class AtSize(nn.Module):
    """A segmenter that shrinks what it is shown, (N, 1, S, S) of any S, to ``size`` pixels and answers at that size."""

    multiple = 1  # it takes slices of any side

    def __init__(self, net: nn.Module, size: int):
        super().__init__()
        self.net, self.size, self.n_classes = net, size, net.n_classes

    def forward(self, x: Tensor) -> Tensor:
        return self.net(resize_image(x, self.size))


def seen_at(size: int, side: int) -> int:
    """The size at which a judge that is to see ``size`` pixels sees slices of ``side``: smaller ones as they are."""
    return min(size, side)


def as_seen(net: nn.Module, masks: Tensor) -> Tensor:
    """Conditions (N, 1, S, S) at the size of a judge's answer, by nearest neighbour."""
    return resize_condition(masks, net.size) if isinstance(net, AtSize) else masks
