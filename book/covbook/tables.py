"""Small tables and boxes that a notebook, a terminal and a rendered book all show well."""

import html
import re
from dataclasses import dataclass, field, replace

from covbook.naming import said


@dataclass
class Table:
    """A table with an optional title above and note below. Cells may hold **bold** and [text](link) as in Markdown.

    IPython shows the HTML; ``str()`` gives the Markdown. ``right`` names the columns that hold numbers. A ``sortable``
    table gets buttons in its head in the rendered book (book/_static/sortable.js); numbers are sorted as numbers. Of a
    table without rows only title and note are shown, if there is a note. The last ``folded`` rows are shown in HTML
    behind a click on ``fold_title``. ``ids`` gives each row an id that links can name.
    """

    columns: list[str]
    rows: list[list[str]]
    title: str = ""
    note: str = ""
    right: tuple[str, ...] = field(default_factory=tuple)
    sortable: bool = False
    folded: int = 0
    fold_title: str = "more"
    ids: tuple[str, ...] = field(default_factory=tuple)

    def of_this_run(self) -> "Table":
        """The table with the right word for images that no network made (``covbook.naming``): for tables of a run's own
        numbers, not for those that hold a paper's."""
        rows = [[said(cell) for cell in row] for row in self.rows]
        return replace(self, columns=[said(c) for c in self.columns], rows=rows, title=said(self.title),
                       note=said(self.note), right=tuple(said(c) for c in self.right))

    def _repr_markdown_(self) -> str:
        clean = lambda cell: str(cell).replace("|", "\\|").replace("\n", "<br>")
        rules = ["---:" if c in self.right else ":---" for c in self.columns]
        lines = ["| " + " | ".join(map(clean, row)) + " |" for row in (self.columns, rules, *self.rows)]
        lines = lines if self.rows or not self.note else []
        return "\n\n".join(part for part in (f"**{self.title}**" if self.title else "", "\n".join(lines),
                                             self.note) if part) + "\n"

    def _repr_html_(self) -> str:
        align = ["right" if c in self.right else "left" for c in self.columns]
        cell = lambda tag, text, a: f'<{tag} style="text-align:{a};vertical-align:top">{_inline(text)}</{tag}>'
        head = "".join(cell("th", c, a) for c, a in zip(self.columns, align))
        keyed = self._keyed if self.sortable else lambda made, text, a: made
        names = [f' id="{name}"' for name in self.ids] or [""] * len(self.rows)
        body = [f"<tr{name}>" + "".join(keyed(cell("td", c, a), c, a) for c, a in zip(row, align)) + "</tr>\n"
                for name, row in zip(names, self.rows, strict=True)]
        kind = "table covlib sortable" if self.sortable else "table covlib"
        grid = lambda rows: (f'<table class="{kind}">\n<thead><tr>{head}</tr></thead>\n'
                             f"<tbody>\n{''.join(rows)}</tbody></table>")
        shown = len(body) - self.folded
        rest = (f'\n<details class="covlib-rest"><summary>{_inline(self.fold_title)}</summary>\n{grid(body[shown:])}'
                "</details>" if self.folded else "")
        caption = f"<p><strong>{_inline(self.title)}</strong></p>\n" if self.title else ""
        note = f"\n<p><small>{_inline(self.note)}</small></p>" if self.note else ""
        if self.note and not self.rows:
            return caption + note.lstrip()
        return caption + grid(body[:shown]) + rest + note

    @staticmethod
    def _keyed(cell: str, text: str, align: str) -> str:
        """A number's cell with the number to sort by; cells without one are sorted last."""
        if align != "right":
            return cell
        plain = str(text).replace("\N{MINUS SIGN}", "-").replace("\N{THIN SPACE}", "").replace(",", "")
        found = re.search(r"-?\d+(\.\d+)?(e-?\d+)?", plain)
        return cell.replace("<td ", f'<td data-sort="{found[0] if found else ""}" ', 1)

    def __str__(self) -> str:
        return self._repr_markdown_()

    __repr__ = __str__


@dataclass
class Box:
    """A titled box: an admonition in the book, a quoted block in plain Markdown."""

    title: str
    table: Table
    kind: str = "note"

    def _repr_markdown_(self) -> str:
        return f"**{self.title}**\n\n{self.table._repr_markdown_()}"

    def _repr_html_(self) -> str:
        return (f'<div class="admonition {self.kind}"><p class="admonition-title">{_inline(self.title)}</p>\n'
                f"{self.table._repr_html_()}\n</div>")

    def __str__(self) -> str:
        return self._repr_markdown_()

    __repr__ = __str__


def _inline(text: str) -> str:
    """Markdown's **bold**, `code` and [text](link), and line breaks, as HTML; everything else is escaped."""
    text = html.escape(str(text), quote=False)
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)
    text = re.sub(r"`(.+?)`", r"<code>\1</code>", text)
    text = re.sub(r"\[([^\]]+)\]\(([^)\s]+)\)", r'<a href="\2">\1</a>', text)
    return text.replace("\n", "<br>")


def align(rows: list[list[str]]) -> str:
    """Rows of texts as columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                     for row in rows)
