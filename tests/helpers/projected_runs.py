"""What the tests of every method with a projected discriminator need: two short trainings, compared and looked at."""

import torch
from safetensors import safe_open

from covlib.training.fit import FitResult, fit
from covlib.training.health import is_health


def first_weights(method) -> dict[str, list[torch.Tensor]]:
    """Network -> its weights when a training step first met it; filled while ``method`` trains."""
    met, inner = {}, method.training_step

    def training_step(batch, step):
        for name, net in method.networks.items():
            met.setdefault(name, [p.detach().clone() for p in net.parameters()])
        return inner(batch, step)

    method.training_step = training_step
    return met


def trained_twice(build, data, out) -> FitResult:
    """Train two of what ``build()`` gives; return the first one's result.

    They end alike bit for bit; every network has moved; what is written of a discriminator is its heads alone; each
    discriminator's answers are in the log, as finite numbers.
    """
    results, ends = [], []
    for k in range(2):
        method = build()
        met = first_weights(method)
        results.append(fit(method, data, out / str(k), seed=3, device="cpu", progress=False, log_every=1))
        for name, net in method.networks.items():
            assert any(not torch.equal(p, start) for p, start in zip(net.parameters(), met[name])), name
        ends.append({f"{n}.{k}": v for n, net in method.networks.items() for k, v in net.state_dict().items()})
    assert ends[0].keys() == ends[1].keys() and all(torch.equal(ends[0][k], ends[1][k]) for k in ends[0])
    assert results[0].log == results[1].log or str(results[0].log) == str(results[1].log)  # NaN is not itself
    judges = [n for n in method.networks if n.startswith("D") and n[1:2] not in ("E", "F")]
    for name in judges:
        with safe_open(out / "0" / "checkpoints" / f"{name}.safetensors", "pt") as file:
            assert all("heads." in key for key in file.keys())
        answers = torch.tensor(results[0].log[f"{name} AUC"])
        assert answers.isfinite().any() and ((answers.nan_to_num(0.5) >= 0) & (answers.nan_to_num(0.5) <= 1)).all()
        assert any(is_health(column) for column in results[0].log)
    assert judges
    return results[0]
