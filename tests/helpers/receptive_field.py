"""How far the output of a network looks, by which tests tell a paper's networks from others."""

from copy import deepcopy

import torch
from torch import nn


def receptive_field(module: nn.Module, channels: int, size: int = 256, dims: int = 2) -> tuple[int, ...]:
    """Extent, in input pixels along each axis, of what one output value depends on, found by its gradient.

    The output value in the middle of the (first) output of ``module`` for a (1, channels, size, ...) input is followed
    back; ``size`` must be larger than the field. Norms that mix all places are left out meanwhile, and all weights are
    positive, so that nothing cancels. Runs in float64 on a copy. (Of a max-pooling window one place alone is seen.)
    """
    mixing = (nn.modules.batchnorm._NormBase, nn.GroupNorm)  # _NormBase: batch and instance norms
    net = deepcopy(module).double().cpu().eval()
    for part in list(net.modules()):
        for name, child in part.named_children():
            if isinstance(child, mixing):
                setattr(part, name, nn.Identity())
    for p in net.parameters():  # a mean over the inputs: values stay near 1, where no activation is flat
        p.data = torch.full_like(p, 1 / p[0].numel()) if p.ndim > 1 else torch.zeros_like(p)
    x = torch.ones(1, channels, *[size] * dims, dtype=torch.float64, requires_grad=True)
    out = net(x)
    out = out[0] if isinstance(out, list | tuple) else out
    middle = out[(0, 0, *(n // 2 for n in out.shape[2:]))]
    (grad,) = torch.autograd.grad(middle, x)
    touched = grad[0].abs().sum(0)
    extents = []
    for axis in range(dims):
        line = (touched.movedim(axis, 0).reshape(size, -1).sum(1) > 0).nonzero()
        extents.append(int(line[-1] - line[0]) + 1)
    return tuple(extents)
