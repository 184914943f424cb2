"""Pages and pictures that follow from what else is in the repository, made while the book is built.

``write`` puts them into the staged copy of the book: the gallery and the map of the first page, the ledgers and the
scoreboard (``covbook.sphinx.ledgers``), a page for each data set, and the library's pages. None is committed, so none
can go stale.
"""

import base64
import html
import json
import re
from pathlib import Path

from covbook.runner import chapters
from covbook.sphinx import apidoc, ledgers
from covbook.sphinx.extension import INTRODUCED
from covbook.sphinx.status import PLAN
from covbook.tables import Table

LANDING = "which_is_which"  # ends the name of the glued picture that stands for its chapter on the first page
ALT = "Eight chest images under letters A to H, those of virtual patients and synthetic ones mixed."
WIDE, PHONE = "paper_map.svg", "paper_map_phone.svg"

MAP = """```{{raw}} html
<figure class="covlib-map">
<picture>
<source media="(max-width: 700px)" srcset="../_static/{phone}">
<img src="../_static/{wide}" alt="{alt}">
</picture>
<figcaption>What goes in, what comes out, and how each paper measures it.</figcaption>
</figure>
```
"""


def write(source: Path) -> None:
    """Write everything below the staged folder ``source`` (with ``book/``, ``_static/``)."""
    generated = source / "book" / "_generated"
    generated.mkdir(exist_ok=True)
    executed = {name: source / "book" / f"{name}.ipynb" for name, _, _ in PLAN}
    (generated / "gallery.md").write_text(gallery(executed, source / "book" / "_generated"), encoding="utf-8")
    (generated / "paper_map.md").write_text(_map(source / "_static"), encoding="utf-8")
    ledgers.write(source / "book")
    modules = apidoc.library()
    where = apidoc.introduced(modules)
    (generated / "api_index.md").write_text(apidoc.index(modules, where), encoding="utf-8")
    kept = {name: [use.chapter, use.direct] for name, use in where.items()}
    (source / INTRODUCED).write_text(json.dumps(kept), encoding="utf-8")
    for folder, made in (("datasets", dataset_pages()), ("api", apidoc.pages(modules))):
        (source / "book" / folder).mkdir()
        for name, text in made.items():
            (source / "book" / folder / f"{name}.md").write_text(text, encoding="utf-8")


# ---- the first page --------------------------------------------------------------------------------------------------


def gallery(executed: dict[str, Path], pictures: Path) -> str:
    """A card for each paper's chapter, with its picture taken from the notebook's outputs.

    Args:
        executed: chapter -> notebook.
        pictures: folder to write ``landing_CHAPTER.png`` to.
    """
    cards = []
    for name, about, paper in PLAN:
        if not paper:
            continue
        paper = paper.split(" {cite")[0]
        picture = landing_picture(chapters.read_notebook(executed[name]))
        image = ""
        if picture is not None:
            (pictures / f"landing_{name}.png").write_bytes(picture)
            image = f":img-top: /book/_generated/landing_{name}.png\n:img-alt: {ALT}\n"
        cards.append(f":::{{grid-item-card}} {name[:2]} {about}\n:link: {name}\n:link-type: doc\n"
                     f":link-alt: chapter {name[:2]}, {about}\n{image}\n{paper}\n:::\n")
    return "::::{grid} 1 2 2 3\n:gutter: 2\n:class-container: covlib-gallery\n\n" + "\n".join(cards) + "::::\n"


def landing_picture(notebook: dict) -> bytes | None:
    """The picture (PNG) that stands for a chapter, the unlabelled "which is which?" at its top; None without one."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if output.get("metadata", {}).get("scrapbook", {}).get("name", "").endswith(LANDING):
                return base64.b64decode("".join(output["data"]["application/papermill.record/image/png"]))
    return None


def _map(static: Path) -> str:
    """Draw the map of the papers into ``static`` in both shapes; returns the Markdown that shows it."""
    import matplotlib

    from covbook.diagrams import paper_map
    from covbook.diagrams.paper_map import PAPERS, ROWS

    with matplotlib.rc_context({"svg.hashsalt": "covlib"}):
        for name, phone in ((WIDE, False), (PHONE, True)):
            paper_map(phone=phone).savefig(static / name, metadata={"Date": None})
    lines = [f"{p.authors} ({p.name}): " + "; ".join(f"{row}: {getattr(p, row)}" for row in ROWS) for p in PAPERS]
    alt = "Map of the five papers. " + ". ".join(lines) + "."
    return MAP.format(phone=PHONE, wide=WIDE, alt=html.escape(alt, quote=True))


# ---- data sets -------------------------------------------------------------------------------------------------------


def dataset_pages() -> dict[str, str]:
    """A page for each registered data set: name -> Markdown."""
    from covbook.datasets import sources

    return {name: _dataset_page(source) for name, source in sources.registry().items()}


def _dataset_page(source) -> str:
    from covbook.datasets.sources import size_text

    licence, what, cite = source.licence, source.what, source.citation
    named = f"[{licence['name']}]({licence['url']})" if licence.get("url") else licence["name"]
    used = [f"[{name[:2]}](../{name}.ipynb)" for name in source.chapters]
    doi = f" [doi:{cite['doi']}](https://doi.org/{cite['doi']})" if cite.get("doi") else ""
    rows = [["holds", f"{what['modality']}: {what['counts']}"], ["masks", what["masks"]], ["labels", what["labels"]],
            ["size", size_text(source)], ["licence", f"**{named}**"], ["home page", f"<{source.homepage}>"],
            ["used in chapters", ", ".join(used)], ["read as", f"layout `{source.layout}`"]]
    parts = [f"# {source.title}", str(Table(["what", "in short"], rows)).rstrip(), "## What its licence says",
             licence["note"], "## How to get it", _how(source)]
    if source.notes:
        parts += ["## What to know before you use it", "\n".join(f"* {note}" for note in source.notes)]
    parts += ["## How to cite it", f"{cite['text']}{doi} {{cite}}`{cite['key']}`",
              "```{bibliography}\n:filter: docname in docnames\n```"]
    return "\n\n".join(parts) + "\n"


def _step(step: str) -> str:
    """One step as Markdown: commands and paths as code, which typographic quotes would spoil, addresses as links."""
    if re.match(r"(covlib|kaggle|mkdir|pip|unzip) ", step):
        return f"`{step}`"
    step = re.sub(r"'([^' ]*FOLDER[^' ]*)'|((?<= )~/\S+\w)|(chmod .*)", lambda code: f"`{code[1] or code[0]}`", step)
    return re.sub(r"https://\S+\w", r"<\g<0>>", step)


def _how(source) -> str:
    if source.access != "download":
        steps = "\n".join(f"1. {_step(step.replace('{folder}', 'FOLDER'))}" for step in source.steps)
        return (f"It cannot be fetched for you, since it asks for an account or an address. "
                f"`covlib data get {source.name}` prints these steps:\n\n{steps}")
    table = Table(["file", "from", "checksum"], [[f"`{file.filename}`", f"<{file.url}>", f"`{file.known_hash}`"
                                                  if file.known_hash else "none published"] for file in source.files])
    return (f"```bash\ncovlib data get {source.name}      # downloads (and resumes), checks, unpacks\n"
            f"covlib run {source.chapters[-1]} --data {source.name}\n```\n\n{table}")
