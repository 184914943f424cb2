"""The book's own Sphinx extension: what jupyter-book, its theme and its extensions leave to be put right in a page.

* Each parameter of a docstring is a field of its own, and a function names the chapter that introduces it.
* The glossary's definitions are written to ``_static/terms.js``, where ``covlib.js`` finds them for its hover texts.
* Pages carry each script once, and none of thebe, which would run cells on a server.
* What Sphinx and its extensions do over and over for the same result is done once: a third of the build's time. Pages
  are read and written by several processes, which takes another third on two cores and changes no byte of them.
* Numbers in prose are said from where they come, by the roles of ``covbook.sphinx.roles``.
* Numbers in tables do not break between a value's parts: "0.72 ± 0.03", "[0.66, 0.75]", "89 %"; and what recorded
  outputs and ledgers write with the keyboard's signs is set with the right ones: "+-", "512x512", "10^6", "Frechet".
"""

import gc
import inspect
import json
import os
import re
from functools import cache
from pathlib import Path

GLOSSARY = "book/glossary"
INTRODUCED = "introduced.json"  # function -> chapter, written beside the sources by covbook.sphinx.pages
SILENT = ("sphinx_jupyterbook_latex", "sphinx_multitoc_numbering")
STYLES = ("pybtex.backends", *(f"pybtex.style.{part}" for part in ("formatting", "labels", "names", "sorting")))


def setup(app) -> dict:
    """Called by Sphinx; see ``covbook.sphinx.build``."""
    from covbook.sphinx import roles

    roles.setup(app)
    gc.set_threshold(100_000, 20, 100)  # the usual (700, 10, 10) walks through a million live nodes again and again
    _remember_styles()
    app.parallel = max(app.parallel, min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1))
    app.connect("env-before-read-docs", _side_by_side)
    app.connect("autodoc-process-docstring", _docstring, priority=900)  # after napoleon
    app.connect("html-page-context", _titles_alone)
    app.connect("html-page-context", _mend_page, priority=900)
    app.connect("build-finished", _write_terms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


# ---- docstrings ------------------------------------------------------------------------------------------------------


@cache
def _introduced(app) -> dict:
    from covbook.sphinx import apidoc

    kept = Path(app.srcdir) / INTRODUCED if app is not None else None
    if kept is None or not kept.is_file():
        return apidoc.introduced()
    return {name: apidoc.Use(*use) for name, use in json.loads(kept.read_text(encoding="utf-8")).items()}


def _docstring(app, what: str, name: str, thing, options, lines: list[str]) -> None:
    text = one_a_field(lines, _names(thing))
    use = _introduced(app).get(name) if what in ("function", "class", "exception") else None
    if use is not None:
        text += ["", f"*{'Introduced' if use.direct else 'Used'} in* :doc:`/book/{use.chapter}`.", ""]
    lines[:] = text


def _names(thing) -> set[str]:
    """Names of the parameters of a function or class."""
    try:
        return set(inspect.signature(thing).parameters)
    except (TypeError, ValueError):  # modules, properties, what C wrote
        return set()


def one_a_field(lines: list[str], names: set[str]) -> list[str]:
    """``lines`` in which each of the parameters ``names`` is a field; docstrings put short ones into one line."""
    if not names:
        return list(lines)
    border = re.compile(rf"[.;] (?=(?:{'|'.join(map(re.escape, names))}): )")
    found: list[str] = []
    k = 0
    while k < len(lines):
        field, end = re.match(r":(param|ivar) \w+: ", lines[k]), k + 1
        while field and end < len(lines) and lines[end].startswith("   "):
            end += 1
        first, *more = border.split(" ".join(line.strip() for line in lines[k:end])) if field else [""]
        found += [f"{first}."] if more else lines[k:end]
        for part in more:
            line = f":{field and field[1]} {part.rstrip('.')}."
            if line not in found:  # "a, b: x. c: y" gives c twice
                found.append(line)
        k = end
    return found


# ---- pages side by side --------------------------------------------------------------------------------------------


def _side_by_side(app, env, docnames: list[str]) -> None:
    """Make ready for pages that are read by several processes: each takes a stack of them, and gives back what it read.

    What the library's pages describe is imported once, before. The list is dealt so that no stack has all long pages.
    jupyter-book's own extensions that say nothing of parallel work hold nothing between two pages where HTML is built.
    """
    import importlib

    if app.parallel < 2:
        return
    for name in SILENT:
        extension = app.extensions.get(name)
        if extension is not None and extension.parallel_read_safe is None:
            extension.parallel_read_safe = True
    for name in sorted({function.rpartition(".")[0] for function in _introduced(app)}):
        importlib.import_module(name)
    stacks = 2 * app.parallel
    docnames[:] = [name for k in range(stacks) for name in docnames[k::stacks]]


# ---- what need not be done again and again ---------------------------------------------------------------------------


def _remember_styles() -> None:
    """Register pybtex's plugins: it reads the metadata of all installed packages for each that it does not know."""
    from importlib.metadata import entry_points

    from pybtex.plugin import register_plugin

    for group in STYLES:
        for point in entry_points(group=group):
            register_plugin(group, point.name, point.load(), force=True)


def _titles_alone(app, name: str, template: str, context: dict, doctree) -> None:
    """Let the sidebar be made of titles; Sphinx copies all pages' contents, each function too, to throw them away."""
    whole = context["toctree"]

    def toctree(**options) -> str:
        if not options.get("titles_only"):
            return whole(**options)
        contents, app.env.tocs = app.env.tocs, _titles(app.env)
        try:
            return whole(**options)
        finally:
            app.env.tocs = contents

    context["toctree"] = toctree


@cache
def _titles(env) -> dict:
    """Contents of each page (``env.tocs``) with nothing below its title but the pages that follow from it."""
    from docutils import nodes
    from sphinx import addnodes

    found = {name: toc.deepcopy() for name, toc in env.tocs.items()}
    for toc in found.values():
        for item in toc.children:
            if isinstance(item, nodes.list_item) and len(item) > 1:
                if pages := list(item.findall(addnodes.toctree)):
                    item[1][:] = pages
                else:
                    item.pop(1)
    return found


# ---- pages -----------------------------------------------------------------------------------------------------------


def _mend_page(app, name: str, template: str, context: dict, doctree) -> None:
    context["script_files"] = _scripts(context["script_files"])
    if "body" in context:
        # docutils' lists of citations claim a role whose children they do not have (axe: aria-required-children)
        body = re.sub(r'<div role="list" class="(citation|footnote)-list">', r'<div class="\1-list">', context["body"])
        # Sphinx lays signatures of several lines out as lists of definitions without terms (axe: definition-list)
        body = re.sub(r'<dl>(\s*<dd><em class="sig-param">)', r'<dl role="none">\1', body)
        body = body.replace('<dd><em class="sig-param">', '<dd role="none"><em class="sig-param">')
        # an address that stands for itself may break anywhere
        body = re.sub(r'<a class="reference external(?=" href="[^"]*">https?:)', r"\g<0> covlib-address", body)
        # an option does not break behind its dashes
        body = re.sub(r'<span class="pre">(?=--?\w[^<]{0,22}</span>)', '<span class="pre covlib-option">', body)
        context["body"] = glued(body)


def glued(body: str) -> str:
    """``body`` with table cells set as print sets them (``_signs``), their lines apart (``_lines``), and with spaces
    that do not break in numbers: in "a ± b (n)", "[a, b]", "a %", "a of b", and behind the icon of a verdict."""
    number = r"[-+\u2212]?\d[\d.,]*"

    def cell(found: re.Match) -> str:
        text = _signs(found[2])
        text = re.sub(rf"({number}) ± (?={number})", "\\1\u00a0±\u00a0", text)
        text = re.sub(rf"(±\u00a0{number}) (?=\(\d+\))", "\\1\u00a0", text)
        text = re.sub(rf"\[({number}), ({number})\]", "[\\1,\u00a0\\2]", text)
        text = re.sub(r"(\d) (?=(?:%|dB|HU|px|s|ms|min|h|MB|GB)(?![\w]))", "\\1\u00a0", text)
        text = re.sub(r"([✓✗✔≈✘⊘○]) (?=\w|<strong>)", "\\1\u00a0", text)
        return found[1] + _lines(re.sub(r"(\d) of (?=\d)", "\\1\u00a0of\u00a0", text)) + found[3]

    body = body.replace("Frechet distance", "Fréchet distance")
    return re.sub(r"(<td[^>]*>)(.*?)(</td>)", cell, body, flags=re.DOTALL)


def _signs(cell: str) -> str:
    """A cell's text, but not its tags nor its code, with ±, a true minus, × between sizes, and powers raised."""
    def set_text(text: str) -> str:
        text = re.sub(r"\+-(?= ?\d)", "±", text)
        text = re.sub(r"(?<![\w.])1e-0?(\d+)(?!\w)", r"10^-\1", text)
        text = re.sub(r"(?<![\w.])(\d(?:\.\d+)?)e-0?(\d+)(?!\w)", "\\1\u00a0×\u00a010^-\\2", text)
        text = re.sub(r"(?<![\w.,)\]^-])-(?=\d)", "\N{MINUS SIGN}", text)
        text = re.sub(r"(?<![\w.])(?!0x)\d+(?: ?x ?\d+)+(?!\w)", lambda size: size[0].replace("x", "×"), text)
        text = re.sub(r"(?<=[\w)]) x (?=[\d(])", " × ", text)
        return re.sub(r"(?<=[\w)])\^(?:\(([^()]*)\)|(-?\d+(?:\.\d+)?))", _power, text)

    def _power(p: re.Match) -> str:
        return "<sup>" + (p[1] or p[2]).replace("-", "\N{MINUS SIGN}") + "</sup>"

    parts = re.split(r"(<code.*?</code>|<[^>]*>)", cell, flags=re.DOTALL)
    return "".join(part if k % 2 else set_text(part) for k, part in enumerate(parts))


def _lines(cell: str) -> str:
    """A cell of several lines, each in an element of its own (covlib.css), where no element runs across them."""
    lines = re.split(r"<br ?/?>", cell)
    whole = all(len(re.findall(r"<\w", line)) == line.count("</") for line in lines)
    return "".join(f'<span class="covlib-line">{line}</span>' for line in lines) if len(lines) > 1 and whole else cell


def _scripts(files: list) -> list:
    kept, seen = [], set()
    for file in files:
        body = getattr(file, "attributes", {}).get("body") or ""
        key = (str(getattr(file, "filename", file) or ""), body)
        if key not in seen and "thebe" not in key[0] + body:
            kept.append(file)
        seen.add(key)
    return kept


def _write_terms(app, problem) -> None:
    if problem is None and GLOSSARY in app.env.found_docs:
        terms = json.dumps(definitions(app.env.get_doctree(GLOSSARY)), ensure_ascii=False, sort_keys=True)
        path = Path(app.outdir) / "_static" / "terms.js"
        path.write_text("window.covlibTerms = " + terms.replace("</", "<\\/") + ";\n", encoding="utf-8")


def plain_formula(tex: str) -> str:
    """A short formula as text: ``\\mu_\\text{water}`` becomes "μ_water"."""
    words = re.sub(r"\\(?:text|mathrm)\{([^}]*)\}", r"\1", tex)
    words = re.sub(r"\\[,;!]", " ", words)
    signs = {"mu": "μ", "int": "∫", "cdot": "·", "sigma": "σ", "sqrt": "√"}
    words = re.sub(r"\\([a-z]+)\s?", lambda m: signs.get(m[1], m[1] + " "), words)
    return re.sub(r"[{}\\]", "", " ".join(words.split()))


def definitions(doctree) -> dict[str, str]:
    """Identifier of each term in a glossary -> its definition as plain text, citations left out."""
    from docutils import nodes
    from sphinx import addnodes

    found = {}
    for item in doctree.findall(nodes.definition_list_item):
        definition = next(iter(item.findall(nodes.definition)), None)
        if definition is None:
            continue
        copy = definition.deepcopy()
        for cited in [node for node in copy.findall(addnodes.pending_xref) if node.get("refdomain") == "cite"]:
            cited.parent.remove(cited)
        for formula in list(copy.findall(nodes.math)):
            formula.parent.replace(formula, nodes.Text(plain_formula(formula.astext())))
        words = re.sub(r"\s+", " ", copy.astext()).strip()
        words = re.sub(r" (?=[.,;:])", "", words)
        for term in item.findall(nodes.term):
            found |= {name: words for name in term["ids"]}
    return found
