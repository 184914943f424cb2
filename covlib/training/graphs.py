"""A training step recorded once and played again: a CUDA graph of everything that one step does on the GPU.

A step of a GAN is a few thousand small operations, and starting each costs the host more time than the GPU needs to do
it. Recorded, they start together. What a step does must not change from one step to the next then, neither its
operations nor the memory they work on: ``Method.repeats`` says so. What does change lies in fixed places: the batch is
copied there, learning rates are tensors, and random generators are seeded by the host before every step as ever, so
that the same numbers are drawn as without a graph.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from covlib.errors import TrainingError

WARM_UP = 3  # steps before the recording: libraries choose their kernels, optimisers make their moments


class RecordedStep:
    """``work(batch) -> losses`` on a GPU: called as it is at first, then recorded, then played.

    Args:
        work: dict of tensors -> one tensor; does all of a step. generators: on the device, drawn from by ``work``.
        ready: whether the recording may be made now.
    """

    def __init__(self, work: Callable[[dict[str, Tensor]], Tensor], generators: Iterable[torch.Generator],
                 ready: Callable[[], bool]):
        self.work, self.generators, self.ready = work, list(generators), ready
        self.stream, self.left = torch.cuda.Stream(), WARM_UP
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: dict[str, Tensor]) -> Tensor:
        if self.graph is None:
            if self.left > 0 or not self.ready():
                self.left -= 1
                return self.plainly(batch)
            self.graph = self.record(batch)
        for name, value in batch.items():
            self.batch[name].copy_(value, non_blocking=True)
        self.graph.replay()
        return self.losses.clone()

    def plainly(self, batch: dict[str, Tensor]) -> Tensor:
        """A step without a graph, on the stream that will record."""
        here = torch.cuda.current_stream()
        self.stream.wait_stream(here)
        with torch.cuda.stream(self.stream):
            losses = self.work(batch)
        here.wait_stream(self.stream)
        return losses

    def record(self, batch: dict[str, Tensor]) -> torch.cuda.CUDAGraph:
        """Write down what a step does; nothing is computed yet.

        Raises:
            TrainingError: the step cannot be recorded, since it waits for the GPU, say.
        """
        self.batch = {name: value.clone() for name, value in batch.items()}
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        try:
            # "thread_local": other threads of the caller's may go on.
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                self.losses = self.work(self.batch)
        except RuntimeError as error:
            raise TrainingError(f"graph: a step could not be recorded ({str(error).splitlines()[0][:160]}); use "
                                "graph=False") from error
        return graph


# ---- torch.compile ---------------------------------------------------------------------------------------------------

PASSES = ("forward", "features", "render")  # the ways through a network that methods take


def compile_passes(net: nn.Module, mode: bool | str = True) -> None:
    """Compile every way through ``net``, in place; ``plain_passes`` undoes it. ``mode``: True, or torch.compile's."""
    import torch._dynamo.config
    import torch._functorch.config

    torch._functorch.config.donated_buffer = False  # two optimisers may learn from one pass (retain_graph)
    torch._dynamo.config.recompile_limit = 64  # networks share their code: each of them is compiled, frozen and not
    for name in PASSES:
        if hasattr(net, name):
            way = getattr(type(net), name).__get__(net)
            setattr(net, name, torch.compile(way, mode=None if mode is True else mode, dynamic=False))


def plain_passes(net: nn.Module) -> nn.Module:
    """``net`` as it was before ``compile_passes``."""
    for name in PASSES:
        net.__dict__.pop(name, None)
    return net
