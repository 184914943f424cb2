"""Tables of the chapters that hang on recordings alone, made anew without running the chapter.

A page is recorded once; the tables of studies and of recorded runs on it would grow old with each later recording.
``covlib book --refresh`` writes them anew; a test compares.
"""

import ast
import json
from importlib import import_module
from pathlib import Path

from covbook import project
from covlib import atomic

# Functions whose last call in a cell needs the recordings, constants and imports of the notebook, and no run.
TABLES = ("chapter.study_table", "ladder.table", "report.measurements_table", "show.recorded_table", "studies.table")


def refresh() -> list[Path]:
    """Write the outdated tables of all chapters; returns the notebooks that changed."""
    return [atomic.write_atomically(path, text) for path in sorted((project.ROOT / "book").glob("0*.ipynb"))
            if (text := renewed(path)) != path.read_text(encoding="utf-8")]


def renewed(path: Path) -> str:
    """A notebook as text, each table of TABLES in its outputs as the recordings now have it. A cell that was never run
    is left alone."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    found = [(cell, call) for cell in cells if cell["outputs"] and (call := _last_call(cell))]
    names = _imported(cells) if found else {}
    for cell, call in found:
        made = eval(compile(ast.Expression(call), path.name, "eval"), names)  # our own notebook's line, as a run has it
        shown = {"text/html": made._repr_html_(), "text/markdown": made._repr_markdown_(),
                 "text/plain": repr(made).rstrip("\n")}
        cell["outputs"] = [{"data": {kind: text.splitlines(keepends=True) for kind, text in shown.items()},
                            "execution_count": cell["execution_count"], "metadata": {},
                            "output_type": "execute_result"}]
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _last_call(cell: dict) -> ast.Call | None:
    """The call at the end of a cell, if it is one of TABLES."""
    body = ast.parse("".join(cell["source"])).body
    last = body[-1].value if body and isinstance(body[-1], ast.Expr) else None
    return last if isinstance(last, ast.Call) and ast.unparse(last.func) in TABLES else None


def _imported(cells: list[dict]) -> dict:
    """What the import lines of a notebook name."""
    names: dict = {}
    for node in (node for cell in cells for node in ast.parse("".join(cell["source"])).body):
        if isinstance(node, ast.Import):
            names |= {a.asname or a.name.split(".")[0]: import_module(a.name) for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {a.asname or a.name: _member(node.module, a.name) for a in node.names}
    return names


def _member(module: str, name: str):
    found = import_module(module)
    return getattr(found, name) if hasattr(found, name) else import_module(f"{module}.{name}")
