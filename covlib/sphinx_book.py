"""The book's own Sphinx extension: what jupyter-book, its theme and its extensions leave to be put right in a page."""

import re


def setup(app) -> dict:
    """Called by Sphinx; see ``_config.yml`` and ``covlib.book``."""
    app.connect("html-page-context", _mend_page, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _mend_page(app, name: str, template: str, context: dict, doctree) -> None:
    context["script_files"] = _scripts(context["script_files"])
    if "body" in context:
        # docutils' lists of citations claim a role whose children they do not have (axe: aria-required-children)
        context["body"] = re.sub(r'<div role="list" class="(citation|footnote)-list">', r'<div class="\1-list">',
                                 context["body"])


def _scripts(files: list) -> list:
    """The page's scripts, each once, without those of thebe: it runs cells on a server, and the book has none."""
    kept, seen = [], set()
    for file in files:
        body = getattr(file, "attributes", {}).get("body") or ""
        key = (str(getattr(file, "filename", file) or ""), body)
        if key not in seen and "thebe" not in key[0] + body:
            kept.append(file)
        seen.add(key)
    return kept
