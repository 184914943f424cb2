"""What the images that no network made are called: "real" is never said of virtual patients.

Figures, tables and printed lines are written with "real"; on virtual patients every such word is said as "virtual". The
word belongs to the run in this process: ``covbook.runs.start`` sets it.
"""

import re

CHAPTERS = ("02", "03", "04", "05", "06", "07", "08")  # put synthetic images beside others; 01 says both words
_REAL = re.compile(r"(?<![A-Za-z_]\()\b([Rr])eal\b")  # not D(real), the name of a belief
_virtual = False


def call_them(chapter: str, kind: str) -> None:
    """From now on, the images of a run of ``chapter`` on data of ``kind`` ("phantom", "source", "folder")."""
    global _virtual
    _virtual = kind == "phantom" and chapter[:2] in CHAPTERS


def said(text):
    """``text`` with the right word for images that no network made; what is no text is given back as it is."""
    return of_virtual(text) if _virtual and isinstance(text, str) else text


def of_virtual(text: str) -> str:
    """``text`` with "virtual" for "real": of a recorded run or study on virtual patients, whatever this run is on."""
    return _REAL.sub(lambda found: "Virtual" if found[1] == "R" else "virtual", text)


def relabel(figure) -> None:
    """The texts of a matplotlib figure, those of its axes too, in place."""
    if not _virtual:
        return
    from matplotlib.text import Text

    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = [label.get_text() for label in axis.get_ticklabels()]
            if any(said(label) != label for label in labels):
                axis.set_ticks(axis.get_ticklocs(), [said(label) for label in labels])
    for text in figure.findobj(Text):
        if (new := said(text.get_text())) != text.get_text():
            text.set_text(new)
