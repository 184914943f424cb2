"""Pictures that can be handled where they are shown: a slice viewer and a before/after slider, without a kernel.

Both are one piece of HTML with pictures, style and script inside, as in ``quiz``: they work in the rendered
book, in JupyterLab, and in a page saved to disk, by mouse, touch and keyboard, and fetch nothing::

    viewers.slices(case)                                     # all three planes of a volume in HU, with its masks
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
from covlib.data.hu import window as windowed
from covlib.errors import DataError

LUNG_WINDOW = (-600.0, 1500.0)
PLANES = ("axial", "coronal", "sagittal")
SIZE, MOST = 160, 36  # pixels of a slice's larger side; slices a plane has at most
WIDE = 420  # CSS pixels of a before/after slider, less on a narrow page
OUTLINES = {"lung": (0, 114, 178), "infection 1": (230, 159, 0), "infection 2": (213, 94, 0)}  # Okabe and Ito


@dataclass(frozen=True)
class Viewer:
    """A viewer that a notebook shows: ``_repr_html_`` is all of it. ``what`` says in words what it shows."""

    page: str
    what: str

    def _repr_html_(self) -> str:
        return self.page

    def __repr__(self) -> str:
        return f"{self.what}; it is shown where HTML is shown"


# ---- slices ----------------------------------------------------------------------------------------------------------


def slices(case) -> Viewer:
    """A viewer of a volume: choose plane and slice by slider, arrow keys or wheel; masks can be switched off.

    Args:
        case: a ``Case``, or an object with ``hu`` (Z, Y, X) in HU and ``spacing`` (z, y, x) in mm; ``lung`` and
            ``infection`` are outlined where they are there.

    Returns:
        A Viewer of about 5 kB a slice, at most ``MOST`` slices a plane.

    Raises:
        DataError: no volume.
    """
    hu = as_array(case.hu, "slices")
    if hu.ndim != 3 or min(hu.shape) < 1:
        raise DataError(f"slices: a volume (Z, Y, X) is wanted, got shape {hu.shape}")
    masks, stacks = _masks(case), {}
    for axis, plane in enumerate(PLANES):
        chosen = range(0, hu.shape[axis], -(-hu.shape[axis] // MOST))
        drawn = lambda masks, axis=axis, chosen=chosen: [_jpeg(_drawn(case, hu, axis, k, masks), 80) for k in chosen]
        stacks[plane] = {"plain": drawn({}), "outlined": drawn(masks) if masks else [], "at": list(chosen),
                         "of": hu.shape[axis]}
    words, first = f"slice viewer of a CT volume, {' x '.join(map(str, hu.shape))} voxels", stacks[PLANES[0]]["plain"]
    note = "Window: level {:g}, width {:g} HU.".format(*LUNG_WINDOW).replace("-", "\N{MINUS SIGN}")
    planes = "".join(f'<option value="{plane}">{plane}</option>' for plane in PLANES)
    return assemble("slices", words, {"stacks": stacks}, _PAGES["slices"], _SCRIPTS["slices"],
                    raw={"PLANES": planes, "MASKS": "" if masks else " hidden"}, NOTE=note,
                    FIRST=first[len(first) // 2], SIZE=str(2 * SIZE))


def _masks(case) -> dict[str, np.ndarray]:
    found = {}
    if getattr(case, "lung", None) is not None:
        found["lung"] = np.asarray(case.lung) > 0
    infection = getattr(case, "infection", None)
    if infection is not None:
        found |= {f"infection {k}": np.asarray(infection) == k for k in (1, 2)}
    return {name: mask for name, mask in found.items() if mask.any()}


def _drawn(case, hu, axis: int, k: int, masks: dict) -> np.ndarray:
    """One slice as a picture of square pixels, head up in coronal and sagittal planes."""
    rows, columns = [spacing for a, spacing in enumerate(case.spacing) if a != axis]
    grey = windowed(np.take(hu, k, axis), *LUNG_WINDOW)
    colour = np.repeat(np.clip((grey + 1) * 127.5, 0, 255).round().astype(np.uint8)[..., None], 3, -1)
    height, width = grey.shape[0] * rows, grey.shape[1] * columns
    scale = SIZE / max(height, width)
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = np.array(Image.fromarray(colour).resize(shape, Image.Resampling.BICUBIC))
    for name, mask in masks.items():
        flat = Image.fromarray(np.take(mask, k, axis).astype(np.uint8) * 255)
        inside = np.array(flat.resize(shape, Image.Resampling.BILINEAR)) > 127
        padded = np.pad(inside, 1)
        core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        picture[inside & ~core] = OUTLINES[name]
    return picture[::-1] if axis else picture


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

_PAGES = {"slices": """<section id="%NAME%" aria-label="%WORDS%">
<div class="row"><label>Plane <select class="plane">%PLANES%</select></label>
<label%MASKS%><input type="checkbox" class="masks" checked> outlines</label></div>
<div class="picture" style="width:%SIZE%px"><img alt="%WORDS%, a slice from its middle" src="%FIRST%"></div>
<label class="wide">Slice <output class="where"></output>
<input type="range" class="slice" min="0" max="0" value="0" step="1"></label>
<p><small>Arrow keys move by one step, Page Up and Page Down by several; so does the wheel over the picture.
%NOTE%</small></p>
</section>
""", "slider": """<section id="%NAME%" aria-label="%WORDS%">
<div class="picture" style="width:%SIZE%px"><img alt="%FIRSTNAME%" src="%BEFORE%">
<div class="over"><img alt="%SECONDNAME%" src="%AFTER%"></div><div class="line"></div></div>
<label class="wide" style="width:%SIZE%px">%FIRSTNAME% (left of the line), %SECONDNAME% (right of it)
<input type="range" class="share" min="0" max="100" value="50" step="1"></label>
<p><small>Drag over the picture, or use the arrow keys. %NOTE%</small></p>
</section>
"""}

_SCRIPTS = {"slices": """(function () {
  const box = document.getElementById("%NAME%"), stacks = %DATA%.stacks;
  if (!box || box.dataset.ready) return;
  box.dataset.ready = "1";
  const plane = box.querySelector(".plane"), masks = box.querySelector(".masks"), slice = box.querySelector(".slice");
  const picture = box.querySelector("img"), where = box.querySelector(".where");
  function draw() {
    const stack = stacks[plane.value], k = Number(slice.value);
    const kind = masks.checked && stack.outlined.length ? "outlined" : "plain";
    picture.src = stack[kind][k];
    const words = plane.value + " " + (stack.at[k] + 1) + " of " + stack.of;
    where.textContent = words;
    picture.alt = words + (kind === "outlined" ? ", lung and lesions outlined" : "");
    slice.setAttribute("aria-valuetext", words);
  }
  function choose() {
    const n = stacks[plane.value].plain.length;
    slice.max = n - 1;
    slice.value = Math.floor(n / 2);
    draw();
  }
  plane.addEventListener("change", choose);
  masks.addEventListener("change", draw);
  slice.addEventListener("input", draw);
  box.querySelector(".picture").addEventListener("wheel", (e) => {
    if (!e.deltaY) return;
    slice.value = Number(slice.value) + Math.sign(e.deltaY);
    draw();
    e.preventDefault();
  }, { passive: false });
  box.addEventListener("keydown", (e) => e.stopPropagation());
  choose();
})();""", "slider": """(function () {
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
