"""The page's tools at a desk: in JupyterLab, ipywidgets over the network that the kernel holds.

``Live`` shows these in place of the still picture where a cell runs in JupyterLab with ipywidgets installed. They ask
the same exported function of tensors as the page's script, so that a picture at the desk is the page's.
"""

import html
import io
import os
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError

from covlib.data.hu import window
from covlib.files.marks import NOTICE
from covlib.metrics import image
from covlib.seeding import rng

SIDE = 224  # pixels of a shown picture, about
SAMPLES = 4  # a walk leads between so many
Tool = Callable[[], Any]


def there() -> bool:
    """Whether this cell runs in a session of JupyterLab (its server names the notebook; papermill does not) that can
    show widgets."""
    return bool(os.environ.get("JPY_SESSION_NAME")) and find_spec("ipywidgets") is not None


class Pictures:
    """Pictures side by side, each under its name, and a line of text below; every picture is marked as synthetic."""

    def __init__(self, names: Sequence[str]):
        import ipywidgets

        self.images = {name: ipywidgets.Image(format="png", layout={"width": f"{SIDE}px"}) for name in names}
        self.text = ipywidgets.HTML()
        boxes = [ipywidgets.VBox([ipywidgets.HTML(html.escape(name)), shown]) for name, shown in self.images.items()]
        self.box = ipywidgets.VBox([ipywidgets.HBox(boxes, layout={"flex_flow": "row wrap"}), self.text])

    def show(self, text: str = "", **pictures: np.ndarray) -> None:
        """``pictures``: name ("_" for a space) -> 8-bit (H, W) or (H, W, 3)."""
        for name, picture in pictures.items():
            self.images[name.replace("_", " ")].value = png(picture)
        self.text.value = html.escape(text)


def png(picture: np.ndarray) -> bytes:
    """An 8-bit picture, enlarged by a whole number, with the notice that it is synthetic among its texts."""
    from PIL.PngImagePlugin import PngInfo

    times, told, kept = max(1, round(SIDE / picture.shape[0])), PngInfo(), io.BytesIO()
    told.add_text("Synthetic", NOTICE)
    Image.fromarray(np.repeat(np.repeat(picture, times, 0), times, 1)).save(kept, "png", pnginfo=told)
    return kept.getvalue()


def grey(picture: np.ndarray) -> np.ndarray:
    """(H, W) in [-1, 1] as 8 bits."""
    return np.rint((np.clip(picture, -1, 1) + 1) * 127.5).astype(np.uint8)


def change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """What was added (orange) or taken (blue), on white: 8-bit (H, W, 3); full colour at half the grey range."""
    share = np.clip(np.abs(after - before), 0, 1)[..., None]
    ink = np.where((after > before)[..., None], (213, 94, 0), (0, 114, 178))
    return np.rint(255 * (1 - share) + ink * share).astype(np.uint8)


def _tool(question: str, *parts):
    import ipywidgets

    return ipywidgets.VBox([ipywidgets.HTML(f"<strong>{html.escape(question)}</strong>"), *parts])


def _on_change(work: Callable[[], None], *controls) -> None:
    for control in controls:
        control.observe(lambda _: work(), names="value")
    work()


# ---- one tool for each kind ------------------------------------------------------------------------------------------


def walk(question: str, draw: Callable, believe: Callable | None, latent: int, seed: int):
    """Two sliders between four samples, "new" for four others, and D's belief.

    Args:
        draw: noise (1, latent) -> (H, W). believe: (H, W) -> a number in [0, 1]; None where D is not there.
    """
    import ipywidgets

    shown, corners = Pictures(["synthetic"]), {"seed": seed}
    across, down = (ipywidgets.FloatSlider(0.0, min=0, max=1, step=0.02, description=name, continuous_update=False)
                    for name in ("across", "down"))
    new = ipywidgets.Button(description="New samples")

    def step() -> None:
        z = rng(corners["seed"], "walk").standard_normal((SAMPLES, 1, latent)).astype(np.float32)
        a, b = across.value, down.value
        way = (1 - b) * ((1 - a) * z[0] + a * z[1]) + b * ((1 - a) * z[2] + a * z[3])
        size = np.sqrt(((1 - a) ** 2 + a**2) * ((1 - b) ** 2 + b**2))  # so that it stays standard normal
        made = draw((way / size).astype(np.float32))
        shown.show("" if believe is None else f"The discriminator's belief that it is real: {believe(made):.2f}",
                   synthetic=grey(made))

    def renew(_) -> None:
        corners["seed"] += 1
        step()

    new.on_click(renew)
    _on_change(step, across, down)
    return _tool(question, shown.box, ipywidgets.HBox([across, down, new]))


def paint(question: str, draw: Callable, maps: np.ndarray, around: np.ndarray, brushes: Sequence[dict],
          colour: Callable):
    """A round brush that is set by place and size, undo and reset; the lung is drawn anew after each stroke.

    Args:
        draw: map (H, W) -> (H, W). maps, around: (N, H, W), and the slices that surround the lungs, in [-1, 1].
        brushes: "value" and "name" of what can be painted. colour: a map as 8-bit colour.
    """
    import ipywidgets

    size, shown = maps.shape[-1], Pictures(["map", "drawn", "change"])
    patient = ipywidgets.Dropdown(options=[(f"patient {k + 1}", k) for k in range(len(maps))], description="patient")
    label = ipywidgets.Dropdown(options=[(b["name"], b["value"]) for b in brushes], value=brushes[-1]["value"],
                                description="paint")
    slider = partial(ipywidgets.IntSlider, min=0, max=size - 1, continuous_update=False)
    x, y = slider(size // 3, description="from left"), slider(size // 2, description="from top")
    radius = ipywidgets.IntSlider(max(2, size // 16), min=1, max=size // 4, description="radius")
    strokes = [maps[0]]  # the map before the first stroke and after each; a stroke goes on a copy
    first: dict[int, np.ndarray] = {}

    def refresh() -> None:
        k, now = patient.value, strokes[-1]
        lung = maps[k] > 0
        drawn = np.where(lung, draw(now), around[k])
        first.setdefault(k, np.where(lung, draw(maps[k]), around[k]))
        outside = lung & (now == maps[k])
        moved = np.abs(drawn - first[k])[outside].mean() / 2 if outside.any() else 0.0
        shown.show(f"{int((now != maps[k]).sum())} pixels painted. The lung elsewhere moved by {100 * moved:.2f} % of "
                   "the grey range.", map=_with_ring(colour(now), x.value, y.value, radius.value), drawn=grey(drawn),
                   change=change(first[k], drawn))

    def stroke(_) -> None:
        rows, columns = np.ogrid[:size, :size]
        inside = (rows - y.value) ** 2 + (columns - x.value) ** 2 <= radius.value**2
        now = strokes[-1].copy()
        now[inside & (maps[patient.value] > 0)] = label.value
        strokes.append(now)
        refresh()

    def undo(_) -> None:
        strokes[1:] = strokes[1:-1]
        refresh()

    def anew(_) -> None:
        strokes[:] = [maps[patient.value]]
        refresh()

    buttons = []
    for name, work in (("Paint", stroke), ("Undo", undo), ("Reset", anew)):
        buttons.append(ipywidgets.Button(description=name))
        buttons[-1].on_click(work)
    patient.observe(anew, names="value")
    _on_change(refresh, x, y, radius)
    return _tool(question, shown.box, ipywidgets.HBox([patient, label]), ipywidgets.HBox([x, y, radius]),
                 ipywidgets.HBox(buttons))


def _with_ring(picture: np.ndarray, x: int, y: int, radius: int) -> np.ndarray:
    ringed = Image.fromarray(picture)
    ImageDraw.Draw(ringed).ellipse((x - radius, y - radius, x + radius, y + radius), outline=(255, 255, 255))
    return np.asarray(ringed)


def translate(question: str, draw: Callable, images: np.ndarray):
    """A held-out X-ray or the reader's own, what the network makes of it, and the change.

    Args:
        draw: (H, W) -> (H, W). images: (N, H, W) in [-1, 1].
    """
    import ipywidgets

    shown, own = Pictures(["given", "translated", "change"]), {}
    patient = ipywidgets.Dropdown(options=[(f"patient {k + 1}", k) for k in range(len(images))], description="patient")
    drop = ipywidgets.FileUpload(accept="image/*", multiple=False, description="Your own picture")

    def refresh() -> None:
        given = own.get("picture", images[patient.value])
        made = draw(given)
        shown.show(own.get("note", ""), given=grey(given), translated=grey(made), change=change(given, made))

    def read(_) -> None:
        if not drop.value:
            return
        try:
            picture = ImageOps.exif_transpose(Image.open(io.BytesIO(bytes(drop.value[0]["content"])))).convert("L")
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
            own["note"] = f"{drop.value[0]['name']} is no picture that can be read; PNG or JPEG is wanted"
        else:
            small = ImageOps.fit(picture, images.shape[1:][::-1])
            own["picture"] = np.asarray(small, np.float32) / 127.5 - 1
            own["note"] = "Your picture was read by this kernel, and is not kept."
        refresh()

    def another(_) -> None:
        own.clear()
        refresh()

    drop.observe(read, names="value")
    patient.observe(another, names="value")
    refresh()
    return _tool(question, shown.box, ipywidgets.HBox([patient, drop]))


def restore(question: str, restorers: dict[str, Callable], spoil: Callable, hu: np.ndarray, level: int,
            scale: tuple[int, int]):
    """A piece of a scan, spoilt by a slider, restored by the network, with the error and PSNR.

    Args:
        restorers: task -> (spoilt volume, strength -> restored volume), in HU. spoil: (task, volume, strength in
            [0, 1]) -> volume. level: slice that is shown. scale: HU between which PSNR is taken.
    """
    import ipywidgets

    shown = Pictures(["original", "given", "restored", "error"])
    task = ipywidgets.Dropdown(options=list(restorers), description="task")
    strength = ipywidgets.FloatSlider(0.5, min=0, max=1, step=0.1, description="noise", continuous_update=False)

    def psnr(volume: np.ndarray) -> float:
        return image.psnr(*(np.clip(v.astype(np.float64), *scale) for v in (hu, volume)), scale[1] - scale[0])

    def refresh() -> None:
        strength.layout.visibility = "visible" if task.value == "denoise" else "hidden"
        given = spoil(task.value, hu, strength.value)
        made = restorers[task.value](given, strength.value)
        grey_of = lambda volume: window(volume[level].astype(np.float32))
        shown.show(f"PSNR, mean over the piece's slices: given {psnr(given):.1f} dB, restored {psnr(made):.1f} dB",
                   original=grey(grey_of(hu)), given=grey(grey_of(given)), restored=grey(grey_of(made)),
                   error=change(grey_of(hu), grey_of(made)))

    _on_change(refresh, task, strength)
    return _tool(question, shown.box, ipywidgets.HBox([task, strength]))
