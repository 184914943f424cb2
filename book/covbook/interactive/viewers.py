"""Pictures that can be handled where they are shown: a before/after slider, and what viewers have in common.

A viewer is one piece of HTML with pictures, style and script inside, as in ``quiz``: it works in the rendered
book, in JupyterLab, and in a page saved to disk, by mouse, touch and keyboard, and fetches nothing::

    viewers.before_after(noisy, denoised, names=("noisy", "denoised"))
"""

import base64
import hashlib
import html
import io
import json
from dataclasses import dataclass

import numpy as np
from PIL import Image

from covbook.naming import said
from covbook.plots.style import as_array, as_images
from covlib.errors import DataError

LUNG_WINDOW = (-600.0, 1500.0)
WIDE = 420  # CSS pixels of a before/after slider, less on a narrow page


@dataclass(frozen=True)
class Viewer:
    """A viewer that a notebook shows: ``_repr_html_`` is all of it. ``what`` says in words what it shows."""

    page: str
    what: str

    def _repr_html_(self) -> str:
        return self.page

    def __repr__(self) -> str:
        return f"{self.what}; it is shown where HTML is shown"


# ---- before and after ------------------------------------------------------------------------------------------------


def before_after(before, after, *, names: tuple[str, str] = ("before", "after"), note: str = "") -> Viewer:
    """Two pictures of one size, one over the other, and a handle that uncovers the second.

    Args:
        before, after: (H, W) or (1, H, W) grey, or (3, H, W) colour, in [-1, 1].
        names: what they are called, in the texts. note: shown below.

    Example:
        >>> from covbook.interactive import viewers
        >>> from covlib import phantom
        >>> from covlib.data import hu
        >>> case = phantom.generate(3, seed=0, shape=(32, 96, 96))
        >>> sharp, soft = (hu.window(case.hu[16], *w) for w in ((-600, 1500), (40, 400)))
        >>> viewers.before_after(sharp, soft, names=("lung window", "soft-tissue window"))
        before/after slider: lung window, soft-tissue window; it is shown where HTML is shown

    Raises:
        DataError: sizes that differ, or pictures that hold NaN.
    """
    pair = [as_images(np.asarray(as_array(p, "before_after"))[None], "before_after")[0] for p in (before, after)]
    if pair[0].shape != pair[1].shape:
        raise DataError(f"before_after: pictures of sizes {pair[0].shape} and {pair[1].shape}; one size is wanted")
    grey = [eight_bits(p) for p in pair]
    small = max(1, round(WIDE / grey[0].shape[1]))  # whole enlargements keep pixels square and honest
    grey = [np.repeat(np.repeat(p, small, 0), small, 1) for p in grey] if small > 1 else grey
    names, note = (said(names[0]), said(names[1])), said(note)
    words = f"before/after slider: {names[0]}, {names[1]}"
    return assemble("slider", words, {"names": list(names)}, _PAGES["slider"], _SCRIPTS["slider"], NOTE=note,
                    BEFORE=_jpeg(grey[0], 90), AFTER=_jpeg(grey[1], 90), SIZE=str(WIDE), FIRSTNAME=names[0],
                    SECONDNAME=names[1])


# ---- pages -----------------------------------------------------------------------------------------------------------


def eight_bits(picture) -> np.ndarray:
    """A picture in [-1, 1] as whole numbers from 0 (black) to 255 (white)."""
    return np.clip((picture + 1) / 2 * 255, 0, 255).round().astype(np.uint8)


def data_url(picture: np.ndarray, kind: str, **how) -> str:
    """A picture (H, W) or (H, W, 3) of 8 bits as a data URL; ``kind``: "png" or "jpeg"; ``how``: as Pillow saves it."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, optimize=True, **how)
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()


def _jpeg(picture: np.ndarray, quality: int) -> str:
    return data_url(picture, "jpeg", quality=quality)


def assemble(kind: str, words: str, data: dict, page: str, script: str, *, raw: dict[str, str] | None = None,
             **texts: str) -> Viewer:
    """Fill a template of HTML and of its script: %NAME% is an identifier that follows from the contents, %WORDS% what
    it shows in words, %DATA% ``data`` as JSON; ``texts`` are escaped, apart from data URLs, ``raw`` is HTML."""
    content, raw = json.dumps(data, ensure_ascii=True).replace("</", "<\\/"), raw or {}
    name = kind + hashlib.sha256((content + "".join([*raw.values(), *texts.values()])).encode()).hexdigest()[:8]
    filled = _STYLE + page
    for key, text in [*raw.items(), *texts.items()]:
        filled = filled.replace(f"%{key}%", text if key in raw or text.startswith("data:") else html.escape(text))
    filled = filled.replace("%NAME%", name).replace("%WORDS%", html.escape(words))
    return Viewer(f"{filled}<script>{script.replace('%NAME%', name).replace('%DATA%', content)}</script>", words)


_STYLE = """<style>
#%NAME%{border:1px solid #888;border-radius:8px;padding:.8em 1em;margin:1em auto;max-width:44em}
#%NAME%{background:#fff;color:#222}
#%NAME% img{display:block;margin:0;background:#000;border-radius:0;padding:0}
#%NAME% input[type=range]{width:100%;margin:.6em 0;accent-color:#0072B2}
#%NAME% .wide{display:block;margin:0 auto;max-width:100%}
#%NAME% select,#%NAME% button{font:inherit;color:#222;background:#f2f2f2;border:2px solid #666;border-radius:6px}
#%NAME% select,#%NAME% button{padding:.3em .6em}
#%NAME% :focus-visible{outline:3px solid #0072B2;outline-offset:2px}
#%NAME% .row{display:flex;gap:1em;flex-wrap:wrap;align-items:center}
#%NAME% .picture{position:relative;max-width:100%;margin:.6em auto;overflow:hidden;touch-action:pan-y}
#%NAME% .picture img{width:100%;height:auto}
#%NAME% .over{position:absolute;inset:0;overflow:hidden}
#%NAME% .line{position:absolute;top:0;bottom:0;width:3px;margin-left:-1px;background:#E69F00;pointer-events:none}
#%NAME% p{margin:.3em 0}
#%NAME% figure{margin:.6em 0}
#%NAME% .frame{width:100%;height:auto;image-rendering:auto}
#%NAME% figcaption{font-size:.85em;color:#222;margin:.2em 0}
</style>
"""

_PAGES = {"slider": """<section id="%NAME%" aria-label="%WORDS%">
<div class="picture" style="width:%SIZE%px"><img alt="%FIRSTNAME%" src="%BEFORE%">
<div class="over"><img alt="%SECONDNAME%" src="%AFTER%"></div><div class="line"></div></div>
<label class="wide" style="width:%SIZE%px">%FIRSTNAME% (left of the line), %SECONDNAME% (right of it)
<input type="range" class="share" min="0" max="100" value="50" step="1"></label>
<p><small>Drag over the picture, or use the arrow keys. %NOTE%</small></p>
</section>
"""}

_SCRIPTS = {"slider": """(function () {
  const box = document.getElementById("%NAME%"), names = %DATA%.names;
  if (!box || box.dataset.ready) return;
  box.dataset.ready = "1";
  const share = box.querySelector(".share"), picture = box.querySelector(".picture");
  const over = box.querySelector(".over"), line = box.querySelector(".line");
  function draw() {
    const x = Number(share.value);
    over.style.clipPath = "inset(0 0 0 " + x + "%)";
    line.style.left = x + "%";
    share.setAttribute("aria-valuetext", x + " % " + names[0] + ", " + (100 - x) + " % " + names[1]);
  }
  function drag(e) {
    const place = picture.getBoundingClientRect();
    share.value = Math.round(100 * (e.clientX - place.left) / place.width);
    draw();
  }
  picture.addEventListener("pointerdown", (e) => {
    picture.setPointerCapture(e.pointerId);
    drag(e);
    e.preventDefault();
  });
  picture.addEventListener("pointermove", (e) => { if (e.buttons) drag(e); });
  share.addEventListener("input", draw);
  box.addEventListener("keydown", (e) => e.stopPropagation());
  draw();
})();"""}
