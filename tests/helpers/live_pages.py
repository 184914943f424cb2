"""A page with a network that runs in it, as the book's build makes it from a notebook; opened from its file."""

import json
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from covbook.interactive import live
from covbook.sphinx import live as staging
from covlib.training.checkpoints import save_weights

PAGE = """<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8"><title>A page</title>
<meta name="viewport" content="width=device-width, initial-scale=1"></head>
<body><main><h1>A page</h1>{}</main><script src="live/live.js"></script></body></html>"""


def notebook(shown: live.Live) -> dict:
    bundle = json.loads(json.dumps(shown._repr_mimebundle_()))
    return {"cells": [{"cell_type": "code", "outputs": [{"output_type": "execute_result", "data": bundle}]},
                      {"cell_type": "markdown", "source": "text"}]}


def staged(folder: Path, shown: live.Live, networks: dict) -> tuple[list[str], str]:
    """What a build makes of a book with one such notebook and the weights of ``networks``: the names of what runs in
    its page, and the page's HTML, which is written to ``extra/_static/page.html`` too."""
    chapter = shown.payload["name"].partition("-")[0]
    (folder / "book").mkdir(parents=True)
    (folder / "extra" / "_static").mkdir(parents=True)
    path = folder / "book" / f"{chapter}.ipynb"
    path.write_text(json.dumps(notebook(shown)))
    save_weights(folder / "runs" / chapter / "checkpoints" / "weights.safetensors", networks)
    made = staging.stage(folder, folder / "runs")
    left = json.loads(path.read_text())["cells"][0]["outputs"][0]["data"]
    assert live.MIME not in left
    page = "".join(left["text/html"])
    (folder / "extra" / "_static" / "page.html").write_text(PAGE.format(page))
    return made, page


@contextmanager
def opened(browser, file: Path):
    """A tab that shows the file, without a network; at its end nothing was asked for elsewhere and no script failed."""
    with _shown(browser, file.as_uri(), "file:", offline=True) as tab:
        yield tab


@contextmanager
def served(browser, file: Path):
    """``opened``, but over HTTP: Python's own server shows the file's folder on this machine's loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(file.parent))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        with _shown(browser, address + file.name, address, offline=False) as tab:
            yield tab
        server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextmanager
def _shown(browser, url: str, own: str, offline: bool):
    context = browser.new_context(viewport={"width": 1000, "height": 900}, offline=offline, reduced_motion="reduce",
                                  accept_downloads=True)
    tab = context.new_page()
    tab.wrong, tab.asked = [], []
    tab.on("pageerror", lambda error: tab.wrong.append(str(error)))
    tab.on("request", lambda request: tab.asked.append(request.url))
    tab.goto(url)
    yield tab
    assert tab.wrong == []
    assert [url for url in tab.asked if not url.startswith((own, "blob:", "data:"))] == []
    context.close()


def loaded(tab):
    """The page's section after its network was loaded."""
    section = tab.locator("section[data-live]")
    section.locator(".covlib-live-load").click()
    section.locator(".covlib-live-tools").wait_for(timeout=60_000)
    return section


def loaded_on(tab, width: int, theme: str = "light"):
    """``loaded``, on a screen of ``width`` pixels."""
    tab.set_viewport_size({"width": width, "height": 844})
    tab.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
    return loaded(tab)


def answers(tab, name: str, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the network ``name`` makes of its inputs in the page, flat."""
    ask = """async ([name, given]) => {
        const feeds = Object.entries(given).map(([key, one]) =>
            [key, { data: new Float32Array(one.data), dims: one.dims }]);
        const found = await (await covlibLive.open(name)).run(Object.fromEntries(feeds));
        return Object.fromEntries(Object.entries(found).map(([key, value]) => [key, [...value.data]]));
    }"""
    feeds = {key: {"data": value.ravel().tolist(), "dims": list(value.shape)} for key, value in given.items()}
    return {key: np.array(value) for key, value in tab.evaluate(ask, [name, feeds]).items()}


def says(section, words: str) -> str:
    """The status of a section, once it holds ``words``."""
    said = section.locator("[role=status]")
    said.page.wait_for_function("([said, words]) => said.innerText.includes(words)", arg=[said.element_handle(), words])
    return said.inner_text()
