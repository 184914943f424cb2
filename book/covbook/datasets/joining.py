"""Several data sets as one task: ``covlib data join SET:CLASS,CLASS SET:CLASS --to DIR``.

Zunair and Ben Hamza take normal and pneumonia images from one set and those of COVID-19 from another::

    covlib data join rsna-pneumonia:normal,pneumonia covid-chestxray:covid --to joined

DIR then holds a folder a class with links to the files where they lie (copies where the system has no links), and
metadata.csv with file, patient, label and source, by which every reader of the library knows class and patient. Class
and source are one and the same there: a network may learn the source and be taken to know the disease.
"""

import csv
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from covbook.datasets.sources import located, registry
from covlib.errors import ConfigError, DataError
from covlib.files import layouts
from covlib.files.index import Item, canonical

TABLE = "metadata.csv"


@dataclass(frozen=True)
class Joined:
    """What was joined: the folder, images by class, and the sources of each class."""

    folder: Path
    counts: dict[str, int]
    sources: dict[str, tuple[str, ...]]

    def __str__(self) -> str:
        lines = [f"{self.folder}: {', '.join(f'{n:,} {name}' for name, n in self.counts.items())}"]
        covid = self.counts.get("covid")
        lines += [f"skew, {name} over covid: {n / covid:.2f}" for name, n in self.counts.items()
                  if covid and name != "covid"]
        apart = [name for name, sources in self.sources.items() if not set(sources) & {
            s for other, of in self.sources.items() if other != name for s in of}]
        if apart:
            lines.append(f"caution: no other class comes from where {', '.join(apart)} comes from, so that a network "
                         "can tell it by its source")
        return "\n".join(lines)


def join(parts: list[str], to) -> Joined:
    """Lay images of several data sets into one folder, a class each, as links.

    Args:
        parts: "DATA:class,class" each; DATA as ``covlib run --data`` takes it. to: a new or empty folder.

    Raises:
        ConfigError: a part without classes. DataError: a set, a class or a file that is not there, volumes, or a folder
            in use.
    """
    chosen = [_part(part) for part in parts]
    folder = Path(to).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: is there already and holds something; give a new folder")
    rows, counts, sources = [], {}, {}
    try:
        for name, items in chosen:
            for k, item in enumerate(items):
                file = f"{item.label}/{name}-{k:06d}{''.join(item.path.suffixes[-1:]).lower()}"
                _link(item.path, folder / file)
                rows.append([file, f"{name}-{item.patient or item.name}", item.label, name])
                counts[item.label] = counts.get(item.label, 0) + 1
                sources[item.label] = tuple(dict.fromkeys((*sources.get(item.label, ()), name)))
        with (folder / TABLE).open("w", newline="", encoding="utf-8") as table:
            csv.writer(table, lineterminator="\n").writerows([["file", "patient", "label", "source"], *rows])
    except OSError as problem:
        raise DataError(f"{folder}: cannot be written ({problem.strerror or problem})") from None
    return Joined(folder, counts, sources)


def _part(part: str) -> tuple[str, list[Item]]:
    """The short name and the chosen images of "DATA:class,class"."""
    place, _, classes = part.rpartition(":")
    wanted = [canonical(name) for name in classes.split(",") if name]
    if not place or not wanted:
        raise ConfigError(f"join: {part!r} must look like DATA:class,class, such as rsna-pneumonia:normal,pneumonia")
    found = layouts.find(located(place))
    if found.volumes:
        raise DataError(f"{place}: holds volumes; images of several classes are wanted")
    if missing := [name for name in wanted if name not in found.classes()]:
        raise DataError(f"{place}: has no class {missing[0]!r}; there are {', '.join(found.classes()) or 'none'}")
    name = place if place in registry() else Path(place.partition("::")[0]).name
    return name, [item for item in found.items if item.label in wanted]


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.symlink(source.resolve(), target)
    except OSError:  # Windows without the right to make links
        shutil.copyfile(source, target)
