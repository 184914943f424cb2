"""The library's pages in the book: one for each part of ``covlib``, and an index from function to chapter.

Both are made from the source and the notebooks' code cells by reading them, not by importing or running anything. The
pages hand over to Sphinx's autodoc.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from covbook.project import ROOT
from covbook.runner import chapters

PACKAGES = (ROOT / "covlib", ROOT / "book" / "covbook")
PARTS = {"covlib": "Networks, losses, settings", "covlib.papers": "The papers' methods",
         "covlib.baselines": "What the papers compare with", "covlib.judges": "Judges of synthetic images",
         "covlib.metrics": "Metrics and intervals", "covlib.training": "Training", "covlib.phantom": "Virtual patients",
         "covlib.data": "Scans and images as arrays", "covlib.files": "Files read and written",
         "covbook": "The book's machinery: runs, reports, tables", "covbook.chapters": "What single chapters need",
         "covbook.plots": "Figures", "covbook.diagrams": "Diagrams", "covbook.interactive": "Viewers and quizzes",
         "covbook.runner": "Running chapters, studies and sweeps", "covbook.sphinx": "Building the pages"}
MODULE = """## `{module}`

```{{eval-rst}}
.. automodule:: {module}
   :members:
   :ignore-module-all:
   :member-order: bysource
```
"""


@dataclass
class Module:
    """A module as read from its source: public names with their first line of help, imports, and who uses whom."""

    name: str
    public: dict[str, str] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    uses: dict[str, set[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Use:
    """The chapter that introduces a function: ``direct`` where a code cell names it, else one that calls on it."""

    chapter: str
    direct: bool


# ---- reading ---------------------------------------------------------------------------------------------------------


def library() -> dict[str, Module]:
    """All modules of covlib and covbook, by dotted name, in alphabetical order."""
    found = {}
    for path in (path for package in PACKAGES for path in sorted(package.rglob("*.py"))):
        home = ROOT if path.is_relative_to(PACKAGES[0]) else ROOT / "book"
        parts = path.relative_to(home).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = _read(name, path)
    return found


def _read(name: str, path: Path) -> Module:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    module = Module(name, imports=_imports(tree))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            module.uses[node.name] = set(_chains(node))
            text = ast.get_docstring(node)
            if text and not node.name.startswith("_"):
                module.public[node.name] = text.split("\n\n")[0].replace("\n", " ")
    return module


def _imports(tree: ast.AST) -> dict[str, str]:
    """What each imported name stands for: "np" -> "numpy", "psnr" -> "covlib.metrics.image.psnr"."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {a.asname: a.name for a in node.names if a.asname}
            found |= {a.name.split(".")[0]: a.name.split(".")[0] for a in node.names if not a.asname}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return found


def _chains(tree: ast.AST) -> Iterator[str]:
    """Names and dotted names that are read somewhere below ``tree``: "plots.sample_grid"."""
    for node in ast.walk(tree):
        parts, inner = [], node
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            yield ".".join([inner.id, *reversed(parts)])


def _resolve(chain: str, imports: dict[str, str], modules: dict[str, Module], depth: int = 0) -> str | None:
    """The full name of the covlib function or class that ``chain`` reads, through re-exports; None if there is none."""
    head, _, rest = chain.partition(".")
    full = f"{imports.get(head, head)}.{rest}".rstrip(".")
    parts = full.split(".")
    for k in range(len(parts) - 1, 0, -1):
        module = modules.get(".".join(parts[:k]))
        if module is not None:
            if parts[k] in module.uses:
                return f"{module.name}.{parts[k]}"
            if parts[k] in module.imports and depth < 5:
                return _resolve(".".join(parts[k:]), module.imports, modules, depth + 1)
            return None
    return None


# ---- function -> chapter ---------------------------------------------------------------------------------------------


def introduced(modules: dict[str, Module] | None = None) -> dict[str, Use]:
    """Which chapter introduces each function and class of covlib (full name -> Use); those of no chapter are left out.

    First choice is the first chapter, in reading order, whose code names it; then the paper's own chapter; then the
    first chapter that names something which calls on it.
    """
    modules = library() if modules is None else modules
    named = [(chapter.name, _named(chapter, modules)) for chapter in chapters.chapters()]
    found = {}
    for chapter, names in named:
        for name in sorted(names):
            found.setdefault(name, Use(chapter, True))
    calls = _calls(modules)
    for chapter, _ in named:
        name = chapter.partition("_")[2]
        for module in modules.values():
            if f"{module.name}.".startswith((f"covlib.papers.{name}.", f"covbook.chapters.{name}.")):
                for member in module.uses:
                    found.setdefault(f"{module.name}.{member}", Use(chapter, False))
    for chapter, names in named:
        queue = sorted(names)
        seen = set(queue)
        while queue:
            name = queue.pop()
            found.setdefault(name, Use(chapter, False))
            fresh = calls.get(name, set()) - seen
            seen |= fresh
            queue += sorted(fresh)
    return found


def _named(chapter: chapters.Chapter, modules: dict[str, Module]) -> set[str]:
    """Full names of what a chapter's code cells name."""
    cells = chapters.read_notebook(chapter.path)["cells"]
    tree = ast.parse("\n".join(chapters.source(cell) for cell in cells if cell["cell_type"] == "code"))
    imports = _imports(tree)
    found = (_resolve(chain, imports, modules) for chain in _chains(tree) if chain.split(".")[0] in imports)
    return {name for name in found if name is not None}


def _calls(modules: dict[str, Module]) -> dict[str, set[str]]:
    found = {}
    for module in modules.values():
        local = {name: f"{module.name}.{name}" for name in module.uses}
        for name, chains in module.uses.items():
            known, own = {**local, **module.imports}, f"{module.name}.{name}"
            targets = (_resolve(chain, known, modules) for chain in chains if chain.split(".")[0] in known)
            found[own] = {target for target in targets if target is not None and target != own}
    return found


# ---- pages -----------------------------------------------------------------------------------------------------------


def pages(modules: dict[str, Module]) -> dict[str, str]:
    """The pages of the library: file name below ``book/api`` without suffix -> Markdown."""
    parts: dict[str, list[str]] = {}
    for name, module in modules.items():
        if module.public:
            part = ".".join(name.split(".")[:2])
            parts.setdefault(part if part in PARTS else name.split(".")[0], []).append(name)
    found = {}
    for part in sorted(parts, key=list(PARTS).index):
        if part == "covlib.papers":
            for paper in dict.fromkeys(name.split(".")[2] for name in parts[part]):
                own = [name for name in parts[part] if name.split(".")[2] == paper]
                found[f"papers_{paper}"] = _page(f"{part}.{paper}", own)
        else:
            found[part.replace(".", "_")] = _page(f"{part}: {PARTS[part][0].lower()}{PARTS[part][1:]}", parts[part])
    return found


def _page(title: str, names: list[str]) -> str:
    return f"# {title}\n\n" + "\n".join(MODULE.format(module=name) for name in names)


def index(modules: dict[str, Module], where: dict[str, Use]) -> str:
    """The table from function to its page and to the chapter that introduces it (``introduced``), as Markdown."""
    lines = []
    for module in modules.values():
        if not module.public:
            continue
        lines += [f"## `{module.name}`", "", "| name | what it does | chapter |", "| --- | --- | --- |"]
        for name, text in module.public.items():
            use = where.get(f"{module.name}.{name}")
            chapter = "–" if use is None else f"[{use.chapter[:2]}]({use.chapter}.ipynb)" + ("" if use.direct else " *")
            lines.append(f"| {{py:obj}}`{name} <{module.name}.{name}>` | {_plain(text)} | {chapter} |")
        lines.append("")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """The first sentence of a docstring as text that Markdown leaves alone."""
    first = re.split(r"(?<!\bal)(?<!\bEq)(?<!\bFig)\.\s+(?=[A-Z(])", text)[0].rstrip(".:")
    parts = first.split("``")
    if len(parts) % 2 == 0:  # not what it seemed
        parts = [first]
    escape = lambda part: "".join(f"\\{c}" if c in "\\`*_[]{}<>$|#~" else c for c in part)
    return "".join(f"`{part}`".replace("|", "\\|") if k % 2 else escape(part) for k, part in enumerate(parts))
