"""A volume in the page as at a workstation: three planes, scrolled, windowed by dragging, without a kernel::

    workstation.viewer(case)                           # a Case in HU, its masks outlined
    workstation.viewer(case, mark="SYNTHETIC")         # the word stands in the pictures, saved ones too

The voxels travel as one picture, a sheet of all axial slices in 8 bits (WebP), which the page cuts into any plane and
shows in any window. That is coarser than a scan: at most ``SIDE`` voxels a side, HU in steps of ``STEP``, and what the
compression loses, about 15 HU at sharp edges. One piece of HTML, as in ``viewers``; nothing is fetched.
"""

import base64
import gzip
import math

import numpy as np
import torch
import torch.nn.functional as F

from covbook.interactive.viewers import LUNG_WINDOW, Viewer, assemble, data_url
from covbook.plots.style import as_array
from covlib.errors import DataError

SIDE = 128  # voxels a side at most
LOW, STEP = -1024, 8  # HU of black in the sheet, and of one of its 256 steps
QUALITY = 85  # of the sheet
PLANES = ("axial", "coronal", "sagittal")
OUTLINED = {"lung": 1, "infection 1": 2, "infection 2": 3}  # bits of a label
PRESETS = {"lung": LUNG_WINDOW, "soft tissue": (40.0, 400.0), "bone": (400.0, 1500.0), "wide": (0.0, 2000.0)}


def viewer(case, *, mark: str = "") -> Viewer:
    """A viewer of a volume in three planes: scroll by wheel, sliders or keys, window by dragging, point to cut anew.

    Args:
        case: a ``Case``, or an object with ``hu`` (Z, Y, X) in HU and ``spacing`` (z, y, x) in mm; ``lung`` and
            ``infection`` are outlined where they are there.
        mark: stands in each picture ("SYNTHETIC"); "" for none.

    Returns:
        A Viewer of some 150 kB for 100 slices.

    Raises:
        DataError: no volume, or voxels that are not finite.
    """
    hu = as_array(case.hu, "volume")
    if hu.ndim != 3 or min(hu.shape) < 1:
        raise DataError(f"volume: (Z, Y, X) is wanted, got shape {hu.shape}")
    if not np.isfinite(hu).all():
        raise DataError("volume: some voxels are NaN or infinite; every voxel must be a finite number")
    shape = tuple(min(n, SIDE) for n in hu.shape)
    small = _resized(hu.astype(np.float32), shape)
    labels = _labels(case, hu.shape)
    chosen = [np.minimum((np.arange(n) + 0.5) * m / n, m - 1).astype(int) for n, m in zip(shape, hu.shape)]
    sheet, columns = _sheet(np.clip(np.rint((small - LOW) / STEP), 0, 255).astype(np.uint8))
    of = " x ".join(map(str, hu.shape))
    words = f"viewer of a CT volume in three planes, {of} voxels"
    level, width = LUNG_WINDOW
    middle = np.clip((small[shape[0] // 2] - level) / width + 0.5, 0, 1) * 255
    data = {"shape": shape, "of": hu.shape, "columns": columns, "low": LOW, "step": STEP, "mark": mark,
            "millimetres": [n * float(s) for n, s in zip(hu.shape, case.spacing)], "presets": PRESETS,
            "labels": base64.b64encode(gzip.compress(labels[np.ix_(*chosen)].tobytes(), 9, mtime=0)).decode(),
            "outlines": {str(bit): colour for bit, colour in zip(OUTLINED.values(), COLOURS)} if labels.any() else {},
            "sheet": data_url(sheet, "webp", quality=QUALITY, method=6)}
    presets = "".join(f'<option value="{name}">{name}</option>' for name in PRESETS)
    raw = {"PRESETS": presets, "PLANES": "".join(map(_plane, PLANES)), "MASKS": "" if labels.any() else " hidden"}
    return assemble("slices", words, data, _PAGE, _SCRIPT, raw=raw,
                    FIRST=data_url(middle.round().astype(np.uint8), "jpeg", quality=80))


COLOURS = ((0, 114, 178), (230, 159, 0), (213, 94, 0))  # of lung, GGO, consolidation; Okabe and Ito


def _resized(hu: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A volume at a smaller grid, each voxel the mean of those that it stands for."""
    return F.adaptive_avg_pool3d(torch.from_numpy(hu)[None, None], shape)[0, 0].numpy()


def _labels(case, shape: tuple[int, ...]) -> np.ndarray:
    """0, 1 lung, 2 and 3 the kinds of infection, (Z, Y, X)."""
    found = np.zeros(shape, np.uint8)
    if getattr(case, "lung", None) is not None:
        found[np.asarray(case.lung) > 0] = OUTLINED["lung"]
    if getattr(case, "infection", None) is not None:
        infection = np.asarray(case.infection)
        for kind in (1, 2):
            found[infection == kind] = OUTLINED[f"infection {kind}"]
    return found


def _sheet(slices: np.ndarray) -> tuple[np.ndarray, int]:
    """All slices (Z, Y, X) in one picture, row by row, and how many stand in a row."""
    n, height, width = slices.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    padded = np.zeros((rows * columns, height, width), np.uint8)
    padded[:n] = slices
    return padded.reshape(rows, columns, height, width).transpose(0, 2, 1, 3).reshape(rows * height, -1), columns


def _plane(name: str) -> str:
    canvas = f'<canvas role="img" tabindex="-1" aria-label="{name} slice"></canvas>'
    slider = f'<input type="range" class="slice" data-plane="{name}" min="0" aria-label="{name} slice">'
    return (f'<figure class="{name}">{canvas}<figcaption><label>{name.capitalize()} <output></output>{slider}</label>'
            "</figcaption></figure>")


_PAGE = """<style>
#%NAME% .planes{display:grid;grid-template-columns:1fr 1fr;gap:.6em;margin:.6em 0}
#%NAME% .planes .axial{grid-column:span 2}
@media (min-width:600px){#%NAME% .planes{grid-template-columns:3fr 2fr}
#%NAME% .planes .axial{grid-column:auto;grid-row:span 2}}
#%NAME% .planes figure{margin:0}
#%NAME% canvas{display:block;width:100%;height:auto;background:#000;cursor:crosshair;touch-action:pan-y}
#%NAME% canvas:focus{touch-action:none}
#%NAME% .planes figcaption,#%NAME% label{color:inherit}
#%NAME% .bar{display:flex;flex-wrap:wrap;gap:.4em 1.2em;align-items:center}
#%NAME% .bar label{display:inline-flex;align-items:center;gap:.4em}
#%NAME% .bar input[type=range]{width:8em;margin:.2em 0}
#%NAME% .bar label>output{min-width:5.2em;text-align:right}
#%NAME% [hidden]{display:none}
</style><section id="%NAME%" aria-label="%WORDS%">
<img class="still" alt="%WORDS%, an axial slice from its middle" src="%FIRST%">
<div class="tools" hidden>
<div class="bar"><label>Window
<select class="preset">%PRESETS%<option value="" disabled>your own</option></select></label>
<label>Level <output></output><input type="range" class="level" min="-1000" max="1000" step="10"
aria-label="Level of the window, HU"></label>
<label>Width <output></output><input type="range" class="width" min="50" max="2500" step="10"
aria-label="Width of the window, HU"></label></div>
<div class="planes">%PLANES%</div>
<div class="bar"><label%MASKS%><input type="checkbox" class="masks" checked> outlines</label>
<label><input type="checkbox" class="lines" checked> where the other planes lie</label>
<button type="button" class="save">Save the pictures</button></div>
<p><small>Drag over a picture: to the right for a wider window, up for a higher level (on a touch screen tap it first).
The wheel scrolls; a click leads the other planes there. With a slider in focus, arrow keys move by one step, Page Up
and Page Down by several. <span class="where" role="status"></span></small></p>
</div></section>
"""

_SCRIPT = """(async function () {
  const box = document.getElementById("%NAME%"), data = %DATA%;
  if (!box || box.dataset.ready) return;
  box.dataset.ready = "1";
  const [depth, height, width] = data.shape, find = (what) => box.querySelector(what);

  async function voxels() {
    const sheet = new Image();
    sheet.src = data.sheet;
    await sheet.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [sheet.width, sheet.height];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(sheet, 0, 0);
    const found = new Int16Array(depth * height * width);
    for (let z = 0, k = 0; z < depth; z++) {
      const left = (z % data.columns) * width, top = Math.floor(z / data.columns) * height;
      const slice = context.getImageData(left, top, width, height).data;
      for (let p = 0; p < height * width; p++) found[k++] = data.low + data.step * slice[4 * p];
    }
    return found;
  }

  async function unpacked(text) {
    if (!window.DecompressionStream) return null;
    const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  const [hu, labels] = await Promise.all([voxels(), unpacked(data.labels)]);
  // Of each plane: the axis it is cut along, those of its rows and columns, and the way from there to a voxel. Head up.
  const planes = { axial: [0, 1, 2], coronal: [1, 0, 2], sagittal: [2, 0, 1] };
  const stride = [height * width, width, 1], at = data.shape.map((n) => n >> 1), views = {};
  const up = (axis, k) => (axis === 0 ? depth - 1 - k : k);

  for (const [name, [axis, rows, columns]] of Object.entries(planes)) {
    const canvas = find("." + name + " canvas"), small = document.createElement("canvas");
    const sides = data.millimetres, large = Math.max(sides[1], sides[2], sides[0]);
    [small.width, small.height] = [data.shape[columns], data.shape[rows]];
    [canvas.width, canvas.height] = [columns, rows].map((k) => Math.max(1, Math.round(512 * sides[k] / large)));
    const slider = find(`[data-plane="${name}"]`), inner = small.getContext("2d");
    slider.max = data.shape[axis] - 1;
    views[name] = { name, axis, rows, columns, canvas, small, slider, inner,
                    pixels: inner.createImageData(small.width, small.height), flipped: rows === 0 };
  }
  const level = find(".level"), wide = find(".width"), preset = find(".preset");
  const masks = find(".masks"), lines = find(".lines"), where = find(".where");
  const number = (axis) => Math.floor((at[axis] + 0.5) * data.of[axis] / data.shape[axis]) + 1;
  const words = (name, axis) => `${name} ${number(axis)} of ${data.of[axis]}`;

  function draw(view) {
    const { name, axis, rows, columns, canvas, small, inner, pixels, flipped } = view;
    const tall = data.shape[rows], across = data.shape[columns], [l, w] = [Number(level.value), Number(wide.value)];
    const label = (r, c) => (r < 0 || c < 0 || r >= tall || c >= across ? 0
      : labels[at[axis] * stride[axis] + (flipped ? up(0, r) : r) * stride[rows] + c * stride[columns]]);
    const outlined = labels && masks.checked;
    for (let r = 0, p = 0; r < tall; r++)
      for (let c = 0; c < across; c++, p += 4) {
        const k = at[axis] * stride[axis] + (flipped ? up(0, r) : r) * stride[rows] + c * stride[columns];
        const grey = 255 * ((hu[k] - l) / w + 0.5);
        let colour = [grey, grey, grey];
        if (outlined && labels[k]) {
          const mine = labels[k];
          if ([label(r - 1, c), label(r + 1, c), label(r, c - 1), label(r, c + 1)].some((other) => other < mine))
            colour = data.outlines[mine];
        }
        pixels.data.set([...colour, 255], p);
      }
    inner.putImageData(pixels, 0, 0);
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
    if (lines.checked) {
      const x = (at[columns] + 0.5) / across * canvas.width;
      const y = ((flipped ? up(0, at[rows]) : at[rows]) + 0.5) / tall * canvas.height;
      context.strokeStyle = "rgba(230, 159, 0, 0.6)";
      context.beginPath();
      context.moveTo(x, 0); context.lineTo(x, canvas.height);
      context.moveTo(0, y); context.lineTo(canvas.width, y);
      context.stroke();
    }
    if (data.mark) marked(context);
    const said = words(name, axis);
    canvas.setAttribute("aria-label", said + (outlined ? ", lung and lesions outlined" : "")
      + (data.mark ? `, ${data.mark.toLowerCase()}` : ""));
    view.slider.value = at[axis];
    view.slider.setAttribute("aria-valuetext", said);
    view.slider.previousElementSibling.textContent = said.slice(name.length + 1);
  }

  function marked(context) {
    const { width: wide, height: high } = context.canvas, letters = 16;
    context.font = `bold ${letters}px sans-serif`;
    const room = context.measureText(data.mark).width + letters;
    context.fillStyle = "rgba(0, 0, 0, 0.75)";
    context.fillRect(wide - room, high - 1.6 * letters, room, 1.6 * letters);
    context.fillStyle = "#fff";
    context.fillText(data.mark, wide - room + letters / 2, high - 0.45 * letters);
  }

  function drawAll() {
    for (const [input, name] of [[level, "level"], [wide, "width"]]) {
      input.previousElementSibling.textContent = `${input.value.replace("-", "\\u2212")} HU`;
      input.setAttribute("aria-valuetext", `${input.value} HU`);
    }
    const own = Object.entries(data.presets).find(([, pair]) => String(pair) === `${level.value},${wide.value}`);
    preset.value = own ? own[0] : "";
    Object.values(views).forEach(draw);
  }

  let asked = false;
  function soon() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; drawAll(); });
  }

  const inside = (axis, k) => Math.max(0, Math.min(data.shape[axis] - 1, k));

  function wire({ axis, rows, columns, canvas, slider, flipped, name }) {
    slider.addEventListener("input", () => { at[axis] = Number(slider.value); soon(); });
    canvas.addEventListener("wheel", (event) => {
      if (!event.deltaY) return;
      at[axis] = inside(axis, at[axis] + Math.sign(event.deltaY));
      soon();
      event.preventDefault();
    }, { passive: false });
    let from = null, moved = false;
    canvas.addEventListener("pointerdown", (event) => {
      from = [event.clientX, event.clientY, Number(level.value), Number(wide.value)];
      moved = false;
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!from || !event.buttons) return;
      const [right, higher] = [event.clientX - from[0], from[1] - event.clientY];
      if (!moved && Math.hypot(right, higher) < 4) return;
      moved = true;
      level.value = from[2] + 4 * higher;
      wide.value = from[3] + 8 * right;
      soon();
    });
    canvas.addEventListener("pointercancel", () => { from = null; });
    canvas.addEventListener("pointerup", (event) => {
      if (from && !moved) {
        const place = canvas.getBoundingClientRect();
        const c = Math.floor((event.clientX - place.left) / place.width * data.shape[columns]);
        const r = Math.floor((event.clientY - place.top) / place.height * data.shape[rows]);
        at[columns] = inside(columns, c);
        at[rows] = inside(rows, flipped ? up(0, r) : r);
        const value = hu[at[0] * stride[0] + at[1] * stride[1] + at[2]];
        where.textContent = `There: about ${String(value).replace("-", "\\u2212")} HU.`;
        soon();
      }
      from = null;
    });
  }

  Object.values(views).forEach(wire);
  for (const one of [level, wide]) one.addEventListener("input", soon);
  for (const one of [masks, lines]) one.addEventListener("change", soon);
  preset.addEventListener("change", () => {
    [level.value, wide.value] = data.presets[preset.value];
    soon();
  });
  find(".save").addEventListener("click", () => {
    const all = Object.values(views).map((view) => view.canvas), sheet = document.createElement("canvas");
    sheet.width = all.reduce((sum, canvas) => sum + canvas.width, 0);
    sheet.height = Math.max(...all.map((canvas) => canvas.height));
    let left = 0;
    for (const canvas of all) {
      sheet.getContext("2d").drawImage(canvas, left, 0);
      left += canvas.width;
    }
    sheet.toBlob((blob) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = (data.mark ? data.mark.toLowerCase().replaceAll(" ", "-") + "-" : "") + "volume.png";
      link.click();
      URL.revokeObjectURL(link.href);
    });
  });
  box.addEventListener("keydown", (event) => event.stopPropagation());
  [level.value, wide.value] = data.presets.lung;
  drawAll();
  find(".still").hidden = true;
  find(".tools").hidden = false;
})();"""
