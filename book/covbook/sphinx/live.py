"""Networks that run in the page: taken out of the notebooks' outputs, joined with their weights, written as scripts.

``_static/live`` of the built book then holds one script for each network (``covlibLive.give(name, {...})``), the
runtime (ONNX Runtime Web, vendored gzipped in ``covbook/interactive/live/runtime``) and what draws and listens. A page
opened as a file may load scripts and nothing else, so everything is text: base64 of gzipped bytes.
"""

import base64
import gzip
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from covbook import project
from covbook.interactive import live
from covbook.interactive.live import graphs, vendor

HERE = Path(live.__file__).parent
PAGE = HERE / "page"
PLACE = 'data-live="{}"'
WITHOUT = re.compile(r'(<p class="covlib-live-without">).*?(</p>)', re.DOTALL)
MISSING = "The weights of this network are not kept with the recorded run, so the picture stands for it."
WORKER = "worker.js"  # shipped inside the runtime's script: it runs where it can load nothing


def stage(source: Path, runs: Path | None) -> list[str]:
    """Write what the pages of the staged book need, and leave only place and picture in its notebooks.

    Args:
        source: the staged book (with ``book/``, ``extra/_static``). runs: folder of the executed chapters, whose
            checkpoints hold the weights; None for the recorded ones.

    Returns:
        Names of the networks; one whose weights are not here is left out, and its page keeps the picture.
    """
    target, made, runtime = source / "extra" / "_static" / "live", {}, 0
    for path in sorted((source / "book").glob("*.ipynb")):
        text = path.read_text(encoding="utf-8")
        if live.MIME not in text:
            continue
        notebook, find = json.loads(text), graphs.finder(_checkpoints(path.stem, runs))
        for output in (output for cell in notebook["cells"] for output in cell.get("outputs", [])):
            payload = output.get("data", {}).pop(live.MIME, None)
            if payload is None:
                continue
            if not runtime:
                target.mkdir(parents=True)
                runtime = _give(target, "runtime", _runtime())
            made |= _write_all(payload, find, target)
            page = _told("".join(output["data"]["text/html"]), payload, made, runtime)
            output["data"]["text/html"] = page.splitlines(keepends=True)
        path.write_text(json.dumps(notebook, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    for file in PAGE.iterdir() if runtime else ():
        if file.name != WORKER:
            shutil.copyfile(file, target / file.name)
    return list(made)


def _told(page: str, payload: dict, made: dict[str, int], runtime: int) -> str:
    """A network's place in a page, with what the page's script must know of it: ``made`` has names and sizes."""
    name = payload["name"]
    if name not in made:
        return WITHOUT.sub(rf"\g<1>{MISSING}\g<2>", page)
    along = [f"{name}-{key}" for key in payload.get("more", {})] + [(payload["data"].get("beside") or [""])[0]]
    size = sum(made.get(one, 0) for one in (name, *along))
    place = PLACE.format(name)
    return page.replace(place, f'{place} data-kind="{payload["kind"]}" data-bytes="{size}" data-runtime="{runtime}"')


def _checkpoints(chapter: str, runs: Path | None) -> list[Path]:
    """Files that hold the weights of a chapter's run, or of its recorded runs."""
    if runs is not None:
        return sorted((runs / chapter).rglob("checkpoints/*.safetensors"))
    return sorted(file for folder in project.WEIGHTS.glob(f"{chapter}-*") for file in folder.rglob("*.safetensors"))


def _write_all(payload: dict, find: Callable[[str, int], bytes | None], target: Path) -> dict[str, int]:
    """Write a network's script and those of what it may do without; returns name -> bytes that a reader loads."""
    name, parts = payload["name"], {f"{payload['name']}-{key}": (key, part) for key, part in
                                    payload.pop("more", {}).items()}
    more = {other: _write({"name": other, **part}, find, target) for other, (_, part) in parts.items()}
    payload["more"] = {key: other for other, (key, _) in parts.items() if more[other]}
    size = _write(payload, find, target)
    return {name: size} | {other: more[other] for other in payload["more"].values()} if size else {}


def _write(payload: dict, find: Callable[[str, int], bytes | None], target: Path) -> int:
    """Write a network's script; returns how many bytes a reader loads for it, without the runtime. 0: no weights."""
    graph = gzip.decompress(base64.b64decode(payload["graph"]))
    size = len(graph) + sum(weight["bytes"] for weight in payload["weights"])
    model = graphs.join(graph, payload["weights"], find, half=size > live.LIMIT)
    if model is None or len(model) > live.LIMIT:
        return 0
    told = {key: value for key, value in payload.items() if key not in ("graph", "weights")}
    packed = base64.b64encode(gzip.compress(model, 6, mtime=0)).decode()
    return _give(target, payload["name"], {**told, "model": packed})


def _give(target: Path, name: str, what: dict) -> int:
    content = json.dumps(what, ensure_ascii=True).replace("</", "<\\/")
    return (target / f"{name}.js").write_text(f"covlibLive.give({json.dumps(name)}, {content});\n", encoding="utf-8")


def _runtime() -> dict[str, str]:
    """The runtime's parts and the worker's script, each in base64 of its gzipped bytes."""
    parts = {part: vendor.packed(file) for part, file in vendor.FILES.items()}
    parts["worker"] = gzip.compress((PAGE / WORKER).read_bytes(), 9, mtime=0)
    return {part: base64.b64encode(data).decode() for part, data in parts.items()}
