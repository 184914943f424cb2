"""Network parts that at least two methods use, the questions one asks of a network, and how it answers in eval mode."""

from collections.abc import Callable
from contextlib import contextmanager
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from covlib.errors import ConfigError


def init_normal(module: nn.Module, std: float = 0.02) -> nn.Module:
    """Initialise in place as DCGAN does, and return ``module``.

    Weights of convolutions and linear layers N(0, std), of BatchNorm and affine InstanceNorm N(1, std), biases 0
    (Radford, Metz & Chintala 2016, section 4; the norms' N(1, std) as in the reference code of pix2pix and CycleGAN).
    """
    for part in module.modules():
        if isinstance(part, nn.modules.conv._ConvNd | nn.Linear):
            nn.init.normal_(part.weight, 0.0, std)
        elif isinstance(part, nn.modules.batchnorm._NormBase) and part.weight is not None:
            nn.init.normal_(part.weight, 1.0, std)
        else:
            continue
        if part.bias is not None:
            nn.init.zeros_(part.bias)
    return module


class InstanceNorm2d(nn.InstanceNorm2d):
    """InstanceNorm, without running statistics, whose gradient is right for a batch of one too: images (N, C, H, W).

    Of a batch of one, ``F.instance_norm`` of PyTorch 2.15 on a CPU takes a gradient that comes with the channels
    innermost (``channels_last``) for one that lies the usual way, and passes on a wrong one. There it is the BatchNorm
    of that batch, which gives the same numbers bit for bit and reads both layouts.
    """

    def forward(self, input: Tensor) -> Tensor:
        return _normalise_one(self, input) if input.ndim == 4 and len(input) == 1 else super().forward(input)


class InstanceNorm3d(nn.InstanceNorm3d):
    """As ``InstanceNorm2d``, for volumes (N, C, Z, Y, X)."""

    def forward(self, input: Tensor) -> Tensor:
        return _normalise_one(self, input) if input.ndim == 5 and len(input) == 1 else super().forward(input)


def _normalise_one(norm: nn.Module, input: Tensor) -> Tensor:
    return F.batch_norm(input.contiguous(), None, None, norm.weight, norm.bias, True, 0.0, norm.eps)


def innermost(tensor: Tensor) -> Tensor:
    """Images and volumes, and weights of convolutions, with the channels innermost in memory; others as they are."""
    layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(tensor.ndim)
    return tensor.contiguous(memory_format=layout) if layout else tensor


def norm_layer(kind: str | None, channels: int, dims: int = 2) -> nn.Module:
    """A normalisation by name: "batch", "instance" (no affine part, as in CycleGAN), "none"."""
    kinds = {"batch": (nn.BatchNorm2d, nn.BatchNorm3d), "instance": (InstanceNorm2d, InstanceNorm3d)}
    if kind in (None, "none"):
        return nn.Identity()
    if kind not in kinds:
        raise ConfigError(f"norm {kind!r} is not one of batch, instance, none")
    return kinds[kind][dims - 2](channels)


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), two 3x3 convolutions behind reflection padding (Johnson et al. 2016).

    In and out: (N, channels, H, W), H and W at least 2.
    """

    def __init__(self, channels: int, norm: str | None = "instance"):
        super().__init__()
        bias = norm != "batch"  # BatchNorm's own shift makes the bias redundant
        self.body = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=bias), norm_layer(norm, channels),
            nn.ReLU(True),
            nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=bias), norm_layer(norm, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def resnet_entry(inputs: int, outputs: int) -> list[nn.Module]:
    """c7s1-k: 7x7 convolution behind reflection padding, InstanceNorm, ReLU."""
    return [nn.ReflectionPad2d(3), nn.Conv2d(inputs, outputs, 7), InstanceNorm2d(outputs), nn.ReLU(True)]


def resnet_down(inputs: int, outputs: int) -> list[nn.Module]:
    """dk: 3x3 convolution of stride 2, InstanceNorm, ReLU."""
    return [nn.Conv2d(inputs, outputs, 3, 2, 1), InstanceNorm2d(outputs), nn.ReLU(True)]


def resnet_up(inputs: int, outputs: int) -> list[nn.Module]:
    """uk: 3x3 transposed convolution ("stride 1/2"), InstanceNorm, ReLU."""
    return [nn.ConvTranspose2d(inputs, outputs, 3, 2, 1, output_padding=1), InstanceNorm2d(outputs), nn.ReLU(True)]


def resnet_exit(inputs: int, outputs: int) -> list[nn.Module]:
    """The last layer: 7x7 convolution behind reflection padding, tanh."""
    return [nn.ReflectionPad2d(3), nn.Conv2d(inputs, outputs, 7), nn.Tanh()]


class PatchGAN(nn.Module):
    """Discriminator that judges overlapping patches (Isola et al. 2017, appendix 6.1.2: C64-C128-C256-C512).

    4x4 convolutions: ``n_layers`` of stride 2, one of stride 1, one to a single channel; LeakyReLU 0.2; no norm in the
    first layer. Each output value sees 16, 34, 70, 142 or 286 pixels squared for ``n_layers`` 1, 2, 3, 4, 5.

    Args:
        in_channels: of image and condition together, where they are concatenated.
        width: channels of the first layer; they double, up to eight times this. norm: see ``norm_layer``.
        padding: of every layer; pix2pixHD's program has 2, with which deep ones judge small images too.

    ``forward`` takes (N, in_channels, H, W) and gives logits (N, 1, h, w): 30x30 for 256x256. ``features`` gives what
    every layer puts out, logits last, for feature-matching losses.
    """

    def __init__(self, in_channels: int = 1, width: int = 64, n_layers: int = 3, norm: str | None = "instance",
                 padding: int = 1):
        super().__init__()
        first = nn.Conv2d(in_channels, width, 4, 2, padding)
        layers, channels = [nn.Sequential(first, nn.LeakyReLU(0.2, True))], width
        for i in range(1, n_layers + 1):
            wider, stride = min(width * 2**i, width * 8), 2 if i < n_layers else 1
            layers.append(nn.Sequential(nn.Conv2d(channels, wider, 4, stride, padding, bias=norm != "batch"),
                                        norm_layer(norm, wider), nn.LeakyReLU(0.2, True)))
            channels = wider
        layers.append(nn.Conv2d(channels, 1, 4, 1, padding))
        self.layers = nn.ModuleList(layers)

    def features(self, x: Tensor) -> list[Tensor]:
        outputs = []
        for layer in self.layers:
            x = layer(x)
            outputs.append(x)
        return outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)[-1]


DROPOUT_LAYERS = 3  # of the U-Net's decoder, from its inner end (Isola et al. 2017, appendix 6.1.1)
WIDEST = 8  # times the first layer's channels


class NoiseDropout(nn.Module):
    """Dropout that may go on at test time, as pix2pix's only source of noise.

    In training mode it is ordinary dropout. In eval mode it does nothing, unless ``generators`` holds one
    ``torch.Generator`` (on the CPU) for each sample of the batch: their draws then say what is dropped, so that an
    image does not depend on the batch in which it was made.
    """

    def __init__(self, p: float = 0.5):
        super().__init__()
        self.p = p
        self.generators: list[torch.Generator] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.training or self.generators is None:
            return F.dropout(x, self.p, self.training)
        kept = torch.stack([torch.rand(x.shape[1:], generator=g) >= self.p for g in self.generators])
        return x * kept.to(x.device) / (1 - self.p)


class UNetGenerator(nn.Module):
    """The U-Net of pix2pix: one-hot maps (N, labels, S, S) to images (N, channels, S, S) in [-1, 1].

    S is a multiple of 2 ** levels. Encoder C64-C128-C256-C512-C512-C512-C512-C512, decoder
    CD512-CD512-CD512-C512-C256-C128-C64 and a last layer with tanh, each layer of the decoder fed with its mirror image
    in the encoder too (Isola et al. 2017, appendix 6.1.1, "U-Net"). 4x4 convolutions of stride 2, transposed in the
    decoder; LeakyReLU 0.2 before them in the encoder, ReLU in the decoder; BatchNorm but for the first, the innermost
    and the last (``norm``: another one, see ``norm_layer``).
    """

    def __init__(self, labels: int = 4, channels: int = 1, width: int = 64, levels: int = 8, dropout: float = 0.5,
                 norm: str = "batch"):
        super().__init__()
        widths = [min(width * 2**k, width * WIDEST) for k in range(levels)]
        self.down = nn.ModuleList([nn.Conv2d(labels, width, 4, 2, 1)])
        for k, (a, b) in enumerate(zip(widths, widths[1:]), start=2):
            inner = k == levels
            self.down.append(nn.Sequential(nn.LeakyReLU(0.2), nn.Conv2d(a, b, 4, 2, 1, bias=inner),
                                           *([] if inner else [norm_layer(norm, b)])))
        self.up = nn.ModuleList()
        for k in range(levels - 1, 0, -1):
            a, b = widths[k] * (1 if k == levels - 1 else 2), widths[k - 1]
            noisy = dropout and levels - 1 - k < DROPOUT_LAYERS
            self.up.append(nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), norm_layer(norm, b),
                                         *([NoiseDropout(dropout)] if noisy else [])))
        self.image = nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(2 * width, channels, 4, 2, 1), nn.Tanh())

    def forward(self, condition: Tensor) -> Tensor:
        x, skips = condition, []
        for layer in self.down:
            x = layer(x)
            skips.append(x)
        skips.pop()
        for layer in self.up:
            x = torch.cat([layer(x), skips.pop()], 1)
        return self.image(x)


@contextmanager
def noise_from(generators: list[torch.Generator] | None, net: nn.Module):
    """Dropout of ``net`` draws from ``generators``, one for each sample, also in eval mode; None: it rests there."""
    layers = [m for m in net.modules() if isinstance(m, NoiseDropout)]
    for m in layers:
        m.generators = generators
    try:
        yield
    finally:
        for m in layers:
            m.generators = None


# ---- questions -------------------------------------------------------------------------------------------------------


def count_parameters(module: nn.Module, trainable_only: bool = True) -> int:
    """Number of weights; without those that are frozen, unless asked for."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable_only)


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


def layer_shapes(module: nn.Module, *inputs: tuple[int, ...]) -> list[dict]:
    """What every leaf layer puts out, in the order of the forward pass, without computing anything (``meta`` device).

    Args:
        inputs: shapes of the arguments of ``forward``, batch included, such as ``(1, 100)``.

    Returns:
        Rows {"name", "kind", "shape" (of the output), "parameters"}; the network itself stays as it is.
    """
    net, rows = deepcopy(module).to("meta"), []

    def watch(name):
        def hook(layer, args, output):
            shape = tuple(output.shape) if isinstance(output, Tensor) else None
            rows.append({"name": name, "kind": type(layer).__name__, "shape": shape,
                         "parameters": count_parameters(layer, trainable_only=False)})
        return hook

    for name, layer in net.named_modules():
        if not list(layer.children()):
            layer.register_forward_hook(watch(name))
    with torch.no_grad():
        net(*(torch.empty(shape, device="meta") for shape in inputs))
    return rows


# ---- eval mode, and the statistics it rests on -----------------------------------------------------------------------


@contextmanager
def evaluating(networks: dict[str, nn.Module]):
    """All networks in eval mode inside, and in their own mode again afterwards."""
    modes = {name: net.training for name, net in networks.items()}
    for net in networks.values():
        net.eval()
    try:
        yield
    finally:
        for name, net in networks.items():
            net.train(modes[name])


def as_tensor(values) -> Tensor:
    """A NumPy array as a tensor, float64 as float32, which is what networks compute in; a tensor as it is."""
    if isinstance(values, Tensor):
        return values
    found = torch.as_tensor(values)
    return found.float() if found.dtype == torch.float64 else found


@torch.no_grad()
def batched(work: Callable, networks: dict[str, nn.Module], batch: int, *tensors) -> list:
    """What ``work`` gives for one batch after the other, in eval mode and without gradients: a list.

    Args:
        work: called with a batch of each of ``tensors``, on the networks' device.
        networks: are in eval mode meanwhile, and in their own mode again afterwards.
        batch: samples of a batch; the last one may have fewer.
        tensors: (N, ...) each, on any device, or NumPy arrays.
    """
    parted = (as_tensor(t).split(batch) for t in tensors)
    device = next(weight.device for net in networks.values() for weight in net.parameters())
    with evaluating(networks):
        return [work(*(part.to(device) for part in parts)) for parts in zip(*parted)]


@contextmanager
def gathered_statistics(*nets: nn.Module):
    """Inside, without gradients, BatchNorms of ``nets`` take the mean statistics of all batches that pass, each counted
    alike, in place of their running ones; a BatchNorm that no batch passes keeps what it had.

    Running statistics rest on the last few batches, seen by weights that were still moving: in small batches they are
    the worse ones ("PreciseBN", Wu and Johnson 2021, arXiv 2105.07576, section 3).
    """
    modes = [(m, m.training) for net in nets for m in net.modules()]
    norms = [(m, m.momentum, {name: value.clone() for name, value in m.named_buffers()}) for m, _ in modes
             if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None]
    for net in nets:
        net.eval()  # dropout and the like rest
    for m, *_ in norms:
        m.reset_running_stats()
        m.momentum = None  # PyTorch's word for the plain mean
        m.train()
    try:
        with torch.no_grad():
            yield
    finally:
        for m, momentum, before in norms:
            m.momentum = momentum
            if not m.num_batches_tracked:
                m.load_state_dict(before, strict=False)
        for m, mode in modes:
            m.training = mode
