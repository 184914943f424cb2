"""A film of trainings: a slider over what the generators made of the same noise, or conditions, step after step.

Under each picture stands how often the discriminators were right just then (``covlib.training.health``). Several
trainings run side by side, each through its own steps::

    film({"projected (ours)": result, "the paper's discriminator": twin_result})   # what ``fit`` returned
"""

import html
import re
from math import isnan
from pathlib import Path

import numpy as np
from PIL import Image

from covbook.interactive.viewers import Viewer, assemble, data_url
from covbook.naming import said
from covlib.errors import DataError
from covlib.training.health import REAL, SYNTHETIC

STRIP = 4  # images shown of a sample grid: its first row
GAP = 2  # pixels between the images of a grid (covlib.training.log.save_grid)


def film(trainings: dict, *, note: str = "") -> Viewer | str:
    """A viewer of the sample grids of one or several trainings; a sentence where none were kept.

    Args:
        trainings: name -> ``FitResult``, whose ``samples`` and ``log`` are read. note: shown below.

    Raises:
        DataError: a sample's file that holds no picture, or whose name has no step.
    """
    reels = {name: _reel(result) for name, result in trainings.items() if result is not None and result.samples}
    if not reels:
        return "no pictures were kept while it was trained"
    frames = max(len(reel) for reel in reels.values())
    words = f"film of {len(reels)} training{'s' * (len(reels) > 1)}, {frames} pictures each"
    data = {"reels": [{"name": name, "frames": reel} for name, reel in reels.items()], "n": frames}
    rows = "".join(f'<figure><img alt="{html.escape(name)}, at the end" class="frame" src="{reel[-1]["picture"]}">'
                   f"<figcaption>{html.escape(name)}: {reel[-1]['words']}</figcaption></figure>"
                   for name, reel in reels.items())
    return assemble("film", words, data, _PAGE, _SCRIPT, raw={"ROWS": rows}, NOTE=note, LAST=str(frames - 1))


def _reel(result) -> list[dict]:
    """Frames {"picture": data URL, "words": step and D's health}, all of one size."""
    pictures = [_strip(path) for path in result.samples]
    height = max(p.shape[0] for p in pictures)
    width = max(p.shape[1] for p in pictures)
    return [{"picture": data_url(np.array(Image.fromarray(p).resize((width, height), Image.Resampling.NEAREST)), "jpeg",
                                 quality=80), "words": words}
            for p, words in zip(pictures, [_words(result, _step(path)) for path in result.samples])]


def _step(path: Path) -> int:
    found = re.fullmatch(r"step-(\d+)", path.stem)
    if not found:
        raise DataError(f"{path}: has no step in its name; step-0000100.png, as fit writes it, is wanted")
    return int(found[1])


def _strip(path: Path) -> np.ndarray:
    """The first images of a grid, (H, W) or (H, W, 3) of 8 bits; the grid's cells follow from its white lines."""
    try:
        grid = np.asarray(Image.open(path))
    except OSError as error:
        raise DataError(f"{path}: is no picture ({error})") from None
    flat = grid if grid.ndim == 2 else grid.min(-1)
    lines = np.flatnonzero((flat == 255).all(1))
    below = lines[lines > GAP]
    row = grid[GAP : below[0] if len(below) else None]
    columns = np.flatnonzero((flat == 255).all(0))
    ends = [int(c) for c in columns if c > GAP and c - 1 not in columns]
    return row[:, GAP : ends[STRIP - 1] if len(ends) >= STRIP else None]


def _words(result, step: int) -> str:
    """What is said of a step: how often each discriminator that played then was right, in the log's nearest row."""
    log = result.log
    rows = [k for k, at in enumerate(log["step"]) if at <= step] or [0]
    parts = [f"step {step:,} of {result.steps:,}"]
    for name in (column.removesuffix(REAL) for column in log if column.endswith(REAL)):
        real, synthetic = (log[name + end][rows[-1]] for end in (REAL, SYNTHETIC))
        if not isnan(real):
            parts.append(f"{name} right about {100 * real:.0f} % of real, {100 * synthetic:.0f} % of synthetic images")
    return said("; ".join(parts))


_PAGE = """<section id="%NAME%" aria-label="%WORDS%">
<div class="rows">%ROWS%</div>
<label class="wide">Training <output class="where"></output>
<input type="range" class="share" min="0" max="%LAST%" value="%LAST%" step="1"></label>
<p><button type="button" class="play">Play</button></p>
<p><small>Drag the slider, or use the arrow keys: the same noise or condition, as drawn while the networks learnt.
%NOTE%</small></p>
</section>
"""

_SCRIPT = """(function () {
  const box = document.getElementById("%NAME%"), film = %DATA%;
  if (!box || box.dataset.ready) return;
  box.dataset.ready = "1";
  const share = box.querySelector(".share"), where = box.querySelector(".where"), play = box.querySelector(".play");
  const rows = Array.from(box.querySelectorAll("figure"));
  const still = window.matchMedia && window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  let timer = null;
  function draw() {
    const k = Number(share.value);
    const words = "picture " + (k + 1) + " of " + film.n;
    rows.forEach((row, i) => {
      const reel = film.reels[i], frame = reel.frames[Math.min(reel.frames.length - 1,
        Math.round(k * (reel.frames.length - 1) / Math.max(1, film.n - 1)))];
      const picture = row.querySelector("img");
      picture.src = frame.picture;
      picture.alt = reel.name + ", " + frame.words;
      row.querySelector("figcaption").textContent = reel.name + ": " + frame.words;
    });
    where.textContent = words;
    share.setAttribute("aria-valuetext", words);
  }
  function stop() { clearInterval(timer); timer = null; play.textContent = "Play"; }
  share.addEventListener("input", () => { stop(); draw(); });
  play.addEventListener("click", () => {
    if (timer) { stop(); return; }
    share.value = 0; draw(); play.textContent = "Stop";
    timer = setInterval(() => {
      if (Number(share.value) >= film.n - 1) { stop(); return; }
      share.value = Number(share.value) + 1; draw();
    }, still ? 1500 : 500);
  });
  box.addEventListener("keydown", (e) => e.stopPropagation());
  draw();
})();"""
