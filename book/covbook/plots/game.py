"""How often discriminators were right while they were trained: one panel for each network."""

import numpy as np

from covbook.plots import style
from covbook.plots.curves import numbers, smooth
from covlib.errors import DataError

PANEL = 1.55  # inches
COLOURS = (style.BLUE, style.VERMILION)


def right_curves(logs: dict[str, dict], *, weight: float = 0.9):
    """Share of images, by the mean of their logits, that each discriminator was right about, over training.

    The band is where the game is played (``covlib.training.health``): below it D guesses, above it G never came near.
    Several discriminators of one network are told apart by the lines' style.

    Args:
        logs: name of a network -> ``FitResult.log``. weight: of the moving average.

    Raises:
        DataError: no log, or one in which no discriminator was judged.
    """
    from covlib.training.health import AUC, CHANCE, PERFECT, REAL, SYNTHETIC  # brings PyTorch, which figures do without

    judges = {name: [column.removesuffix(AUC) for column in sorted(log) if column.endswith(AUC)]
              for name, log in logs.items()}
    if not logs or not all(judges.values()):
        raise DataError("right_curves: a log without a discriminator's answers; give FitResult.log of a GAN")
    width, top = style.WIDTH - 0.75 - 1.5, 0.62
    figure = style.new_figure(top + len(logs) * (PANEL + 0.45) + 0.5)
    entries = {"real": {"color": COLOURS[0]}, "synthetic": {"color": COLOURS[1]}}
    style.legend(figure, 0.75, 0.22, {f"right about {k} images": v for k, v in entries.items()})
    last = max(float(log["step"][-1]) for log in logs.values())
    for k, (name, log) in enumerate(logs.items()):
        axes = style.chart_axes(figure, 0.75, top + k * (PANEL + 0.45), width, PANEL)
        axes.axhspan(CHANCE, PERFECT, color=style.PALE, alpha=0.6, linewidth=0)
        axes.axhline(0.5, color=style.GREY, linewidth=0.9, linestyle=(0, (5, 3)))
        steps = np.asarray(log["step"], float)
        for judge, dashes in zip(judges[name], ("solid", (0, (4, 2)), (0, (1, 1.5)))):
            for kind, colour in zip((REAL, SYNTHETIC), COLOURS):
                values = numbers(log[judge + kind])
                good = np.isfinite(values)
                axes.plot(steps[good], smooth(values[good], weight), color=colour, linestyle=dashes, linewidth=1.6,
                          label=judge)
        axes.set(xlim=(-0.03 * last, 1.03 * last), ylim=(-0.03, 1.03))  # one scale: a shorter training is shorter
        axes.set_yticks((0, 0.5, 1), ("0 %", "50 %", "100 %"))
        more = "" if len(judges[name]) == 1 else "\n" + "\n".join(
            f"{judge}: {line}" for judge, line in zip(judges[name], ("full", "dashed", "dotted")))
        style.inch_text(figure, 0.75 + width + 0.1, top + k * (PANEL + 0.45) + PANEL / 2, style.wrap(name, 14) + more,
                        size=style.SMALL, va="center")
    axes.set_xlabel("step")
    band = f"Grey band: {100 * CHANCE:.0f} to {100 * PERFECT:.0f} %."
    style.footnote(figure, f"Moving averages, weight {weight:g}. {band}")
    return figure
