"""The roles ``{number}`` and ``{says}`` of the book's pages: numbers in prose, said from their source (covbook.prose).

A page of the committed book speaks of the recorded run whose outputs it shows, and a name that is not known ends the
build. Where a book is built of other runs (``covlib book --runs``), their metrics.json lie beside the sources, each
page speaks of its own run, and a measurement that such a run does not have is a dash.
"""

import json
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxRole

from covbook import prose
from covlib.errors import CovlibError

OWN_RUNS = "own_runs"  # folder beside the sources: CHAPTER.json, where pages show other runs than the recorded ones


class Said(SphinxRole):
    """One of the two roles, by its name."""

    def run(self) -> tuple[list, list]:
        page = self.env.docname.rsplit("/", 1)[-1]
        own = Path(self.env.app.srcdir) / OWN_RUNS / f"{page}.json"
        run = json.loads(own.read_text(encoding="utf-8")) if own.is_file() else None
        try:
            said = prose.say(self.name, " ".join(self.text.split()), prose.scope(page, run), strict=run is None)
        except CovlibError as error:
            message = self.inliner.reporter.error(f"{{{self.name}}}: {error}", line=self.lineno)
            return [self.inliner.problematic(self.rawtext, self.rawtext, message)], [message]
        return [nodes.inline(self.rawtext, said, classes=["covlib-said", f"covlib-{self.name}"])], []


def setup(app) -> None:
    for name in ("number", "says"):
        app.add_role(name, Said())
