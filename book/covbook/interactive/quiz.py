"""A reader test that needs no server: one piece of HTML with its pictures, its questions and its arithmetic inside.

Mangalagiri et al. (Section IV-B) showed three people 20 pairs of a real and a generated slice. ``quiz_html`` shows such
pairs to whoever reads the page, in the rendered book and in JupyterLab alike. Answers stay in the reader's browser; at
the end the score stands there with Wilson's 95 % interval.
"""

import html
import json
from dataclasses import dataclass

import numpy as np

from covbook.interactive.viewers import Viewer, data_url, eight_bits
from covbook.plots.style import as_images
from covlib.errors import DataError
from covlib.seeding import derive, rng

Z95 = 1.959964  # 97.5th percentile of the normal distribution


@dataclass(frozen=True, repr=False)
class Quiz(Viewer):
    """A quiz that a notebook shows. ``truth``: side of the synthetic one, by pair."""

    truth: tuple[str, ...]


def quiz_html(pairs, seed: int = 0, *, what: str = "slice", note: str = "") -> Quiz:
    """A quiz of pairs, each side random by ``seed``: "which of the two is synthetic?".

    Args:
        pairs: list of (real, synthetic), each a picture (H, W) or (1, H, W) in [-1, 1], all of one size.
        what: what one picture shows, for the texts. note: shown below the title (window, whose pictures).

    Returns:
        A Quiz: buttons that work by mouse and keyboard, a live region that says what came of it; no network, no store.

    Raises:
        DataError: no pairs, pictures of different sizes, or pictures that hold NaN.
    """
    if not len(pairs):
        raise DataError("quiz: no pairs; at least one (real, synthetic) is wanted")
    shapes = {np.shape(p)[-2:] for pair in pairs for p in pair}
    if len(shapes) != 1 or any(len(pair) != 2 for pair in pairs):
        raise DataError(f"quiz: pictures of sizes {sorted(shapes)}; pairs of (real, synthetic) of one size are wanted")
    left = rng(seed, "quiz").random(len(pairs)) < 0.5
    truth = tuple("left" if k else "right" for k in left)
    items = []
    for (real, synthetic), synthetic_left in zip(pairs, left):
        shown = (synthetic, real) if synthetic_left else (real, synthetic)
        items.append([_picture(p) for p in shown])
    name = f"quiz{derive(seed, 'quiz', len(pairs)) % 10**8:08d}"
    page = _PAGE.replace("NAME", name).replace("WHAT", html.escape(what)).replace("NOTE", html.escape(note))
    page = page.replace("COUNT", str(len(pairs))).replace("FIRST_LEFT", items[0][0]).replace("FIRST_RIGHT", items[0][1])
    script = _SCRIPT.replace("NAME", name).replace("WHAT", json.dumps(what)).replace("Z95", repr(Z95))
    data = {"pictures": items, "truth": ["lr"[side == "right"] for side in truth]}
    return Quiz(page + "<script>" + script.replace("DATA", json.dumps(data)) + "</script>",
                f"a quiz of {len(truth)} pairs", truth)


def _picture(picture) -> str:
    """A picture in [-1, 1] as a data URL."""
    return data_url(eight_bits(as_images(np.asarray(picture)[None] if np.ndim(picture) == 2 else picture, "quiz")[0]),
                    "png")


_PAGE = """<style>
#NAME{border:1px solid #888;border-radius:8px;padding:.8em 1em;margin:1em 0;max-width:44em;background:#fff;color:#222}
#NAME .pair{display:flex;gap:1em;flex-wrap:wrap}
#NAME button{font:inherit;color:#222;background:#f2f2f2;border:2px solid #666;border-radius:6px;padding:.45em .7em}
#NAME button{cursor:pointer}
#NAME button.choice{flex:1 1 12em;padding:.4em;background:#fff}
#NAME button:focus-visible{outline:3px solid #0072B2;outline-offset:2px}
#NAME button:disabled{cursor:default}
#NAME button.choice.synthetic{border-color:#D55E00;border-width:4px}
#NAME img{display:block;width:100%;margin:0 0 .3em;background:#000;image-rendering:auto}
#NAME [role=status]{min-height:3.2em;margin:.6em 0}
#NAME p{margin:.3em 0}
</style>
<section id="NAME" aria-label="Reader test: which WHAT is synthetic?">
<p><strong>Which of the two is synthetic?</strong> Pair <span class="number">1</span> of COUNT.
Click, or press the left or right arrow key; Enter for the next pair.</p>
<p><small>NOTE</small></p>
<div class="pair">
<button type="button" class="choice" data-side="l"><img alt="left WHAT of pair 1" src="FIRST_LEFT">left</button>
<button type="button" class="choice" data-side="r"><img alt="right WHAT of pair 1" src="FIRST_RIGHT">right</button>
</div>
<div role="status" aria-live="polite">Choose one. Nothing is sent anywhere.</div>
<button type="button" class="next" disabled>Next pair</button>
<button type="button" class="again" hidden>Start again</button>
</section>
"""

_SCRIPT = """(function () {
  const data = DATA, what = WHAT, z = Z95, box = document.getElementById("NAME");
  if (!box || box.dataset.ready) return;
  box.dataset.ready = "1";
  const choices = [...box.querySelectorAll(".choice")], pictures = choices.map((c) => c.querySelector("img"));
  const status = box.querySelector("[role=status]");
  const next = box.querySelector(".next"), again = box.querySelector(".again");
  const n = data.truth.length, percent = (x) => Math.round(100 * x) + " %";
  let pair = 0, right = 0, answered = false;
  function wilson(k, m) {
    const p = k / m, d = 1 + z * z / m, c = (p + z * z / (2 * m)) / d;
    const h = z * Math.sqrt(p * (1 - p) / m + z * z / (4 * m * m)) / d;
    return [Math.max(0, c - h), Math.min(1, c + h)];
  }
  function verdict(low, high) {
    if (low > 0.5) return "Better than guessing: you see a difference.";
    if (high < 0.5) return "Worse than guessing: you see a difference, and take it the wrong way round.";
    return "Guessing is within the interval. That does not show that there is no difference to be seen.";
  }
  function show() {
    answered = false;
    box.querySelector(".number").textContent = pair + 1;
    pictures.forEach((p, i) => {
      p.src = data.pictures[pair][i];
      p.alt = ["left ", "right "][i] + what + " of pair " + (pair + 1);
    });
    choices.forEach((c) => { c.disabled = false; c.classList.remove("synthetic"); });
    next.disabled = true;
  }
  function answer(side) {
    if (answered) return;
    answered = true;
    const good = side === data.truth[pair], done = pair + 1;
    right += good ? 1 : 0;
    choices.forEach((c) => {
      c.disabled = true;
      c.classList.toggle("synthetic", c.dataset.side === data.truth[pair]);
    });
    const [low, high] = wilson(right, done), where = data.truth[pair] === "l" ? "left" : "right";
    let text = (good ? "Right" : "Wrong") + ": the synthetic one is on the " + where + " (thick frame). Score: " +
      right + " of " + done + ", " + percent(right / done) + ", 95 % interval " + percent(low) + " to " +
      percent(high) + ".";
    if (done === n) { text += " " + verdict(low, high); again.hidden = false; again.focus(); }
    else { next.disabled = false; next.focus(); }
    status.textContent = text;
  }
  function forward() { if (answered && pair + 1 < n) { pair += 1; show(); choices[0].focus(); } }
  choices.forEach((c) => c.addEventListener("click", () => answer(c.dataset.side)));
  next.addEventListener("click", forward);
  again.addEventListener("click", () => {
    pair = right = 0; again.hidden = true; status.textContent = "Choose one."; show(); choices[0].focus();
  });
  box.addEventListener("keydown", (e) => {
    if (e.key === "ArrowLeft" || e.key === "ArrowRight") {
      answer(e.key === "ArrowLeft" ? "l" : "r");
      e.preventDefault();
    }
    e.stopPropagation();
  });
})();"""
