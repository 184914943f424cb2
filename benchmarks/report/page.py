"""What the book's page on speed shows: the kept results of ``covlib bench`` as figures and tables. Nothing is measured.

``python -m benchmarks --page`` writes it to ``book/_generated``, where it is committed, so that the book builds without
this package; a test compares.
"""

from pathlib import Path

from benchmarks import measure
from benchmarks.report import results
from benchmarks.report import speed as plots
from covbook.sphinx.status import GENERATED
from covlib.atomic import write_atomically


def make() -> tuple[str, dict[str, bytes]]:
    """The page's text, and the pictures it names: file name -> PNG."""
    documents, parts, pictures = results.load(), [], {}
    for k, (name, (_, rows)) in enumerate(results.by_machine(documents).items()):
        figures = {"ratios": plots.ratios(results.pairs(rows)), "growth": plots.growth(measure.lines(rows))}
        for kind, figure in figures.items():
            if figure is not None:
                pictures[f"speed_{kind}_{k}.png"] = figure._repr_png_()
                parts.append(f"```{{figure}} _generated/speed_{kind}_{k}.png\n:alt: {plots.ALT[kind]}\n\n{name}. "
                             f"{plots.CAPTION[kind]}\n```\n")
    return "\n".join([*parts, results.page(documents, fold=True)]), pictures


def write(folder: Path = GENERATED) -> list[Path]:
    """Write the page and its pictures where they differ from what is there; returns what was written."""
    text, pictures = make()
    wanted = {"speed.md": text.encode(), **pictures}
    for old in set(folder.glob("speed_*.png")) - {folder / name for name in wanted}:
        old.unlink()
    changed = [folder / name for name, content in wanted.items()
               if not (folder / name).is_file() or (folder / name).read_bytes() != content]
    return [write_atomically(path, wanted[path.name]) for path in changed]
