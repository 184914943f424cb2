"""The library's own code in a notebook, so that what a chapter shows cannot drift from what it runs."""

import html
import inspect
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from covbook.project import ROOT
from covlib.errors import ConfigError


@dataclass(frozen=True)
class Source:
    """A piece of the library's source: a foldable block in a notebook or the book, plain text in a terminal.

    Attributes:
        name: "covlib.metrics.image.psnr"; file: path in the repository, "covlib/metrics/image.py".
        code: the source, dedented, ending in a line break. unfolded: whether the block starts open.
    """

    name: str
    file: str
    code: str
    unfolded: bool = True

    def _repr_html_(self) -> str:
        from pygments import highlight
        from pygments.formatters import HtmlFormatter
        from pygments.lexers import PythonLexer

        block = highlight(self.code, PythonLexer(), HtmlFormatter(nowrap=True))
        summary = f"<summary><code>{html.escape(self.name)}</code> in <code>{html.escape(self.file)}</code></summary>"
        return (
            f'<details class="covlib-source"{" open" if self.unfolded else ""}>{summary}\n'
            f'<div class="highlight-python"><div class="highlight"><pre>{block}</pre></div></div></details>'
        )

    def _repr_markdown_(self) -> str:
        return f"`{self.name}` in `{self.file}`\n\n```python\n{self.code}```\n"

    def __str__(self) -> str:
        return f"# {self.name} in {self.file}\n{self.code}"

    __repr__ = __str__


def source(thing: Any, *, doc: bool = True, unfolded: bool = True) -> Source:
    """The source of a function, class, method or module of covlib, to end a cell with.

    Args:
        thing: a function, a class, a method or a module of covlib.
        doc: False leaves out the docstring, for code whose text the chapter has just told.
        unfolded: whether the block starts open.

    Raises:
        ConfigError: ``thing`` has no source in covlib.
    """
    thing = inspect.unwrap(thing) if callable(thing) else thing
    try:
        path = Path(inspect.getsourcefile(thing) or "").resolve().relative_to(ROOT)
        code = textwrap.dedent(inspect.getsource(thing))
        if path.parts[0] not in ("covlib", "covbook") and path.parts[:2] != ("book", "covbook"):  # .venv may be there
            raise ValueError
    except (TypeError, OSError, ValueError):
        raise ConfigError(f"source: {thing!r} is no function, class, method or module of covlib") from None
    if not doc:
        code = _without_docstring(code)
    name = thing.__name__ if inspect.ismodule(thing) else f"{thing.__module__}.{thing.__qualname__}"
    return Source(name, path.as_posix(), code.rstrip() + "\n", unfolded)


def _without_docstring(code: str) -> str:
    import ast

    tree = ast.parse(code)
    body = getattr(tree.body[0], "body", tree.body)  # of a function or class, else of the module
    first = body[0]
    constant = first.value if isinstance(first, ast.Expr) else None
    if not (isinstance(constant, ast.Constant) and isinstance(constant.value, str)):
        return code
    lines = code.splitlines()
    end = first.end_lineno
    while len(body) > 1 and end < body[1].lineno - 1 and not lines[end].strip():
        end += 1
    return "\n".join(lines[: first.lineno - 1] + lines[end:])
