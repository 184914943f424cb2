"""Pseudonyms in place of source names in what ``covlib export`` and ``translate`` hand on; who is who stands in a key
file beside it.

Names of files and patients are often numbers of a hospital. A pseudonym is drawn at random and follows from nothing, so
that without the key nobody gets from it to the name; with the same key file a later set gets the same ones.
"""

import csv
import os
import secrets
from dataclasses import replace
from pathlib import Path

from covlib.errors import DataError

TOLD = ("Patients, sources and files have pseudonyms. The key lies beside the exporting machine's copy, not in this "
        "set; do not pass it on.")  # in a datasheet
COLUMNS = ("kind", "pseudonym", "name")
KINDS = ("patient", "source", "file")


class Key:
    """Pseudonyms by kind and name; ``save`` writes those that are new to the key file.

    Args:
        path: of the key file, read where it is there.

    Raises:
        DataError: a file that is no key.
    """

    def __init__(self, path: Path):
        self.path, self.known = Path(path), {}
        if self.path.exists():
            try:
                with self.path.open(newline="", encoding="utf-8") as file:
                    table = csv.DictReader(file)
                    if tuple(table.fieldnames or ()) != COLUMNS:
                        raise ValueError("other columns")
                    self.known = {(row["kind"], row["name"]): row["pseudonym"] for row in table}
            except (OSError, ValueError, csv.Error) as error:
                raise DataError(f"{self.path}: is no key of pseudonyms ({error}); {', '.join(COLUMNS)} are wanted, or "
                                "another place for the set") from None
        self._taken = set(self.known.values())

    def of(self, kind: str, name: str) -> str:
        """The pseudonym of a name of ``KINDS``; "" of "" (nothing was known)."""
        if not name:
            return ""
        if (kind, name) not in self.known:
            made = f"{kind}-{secrets.token_hex(4)}"
            while made in self._taken:
                made = f"{kind}-{secrets.token_hex(4)}"
            self._taken.add(made)
            self.known[kind, name] = made
        return self.known[kind, name]

    def save(self) -> None:
        """Write the key, readable for its owner alone. DataError where that cannot be."""
        partial = self.path.with_name(f".{self.path.name}.partial")
        try:
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", newline="",
                           encoding="utf-8") as file:
                table = csv.writer(file, lineterminator="\n")
                table.writerow(COLUMNS)
                table.writerows(sorted((kind, made, name) for (kind, name), made in self.known.items()))
            os.replace(partial, self.path)
        except OSError as error:
            raise DataError(f"{self.path}: the key cannot be written ({error.strerror}); give another place for the "
                            "set") from None


def key_file(to: Path) -> Path:
    """Where the key of a set lies: beside its folder, never in it."""
    to = Path(to).absolute()
    return to.with_name(f"{to.name}-key.csv")


def hide(pictures: list, key: Key) -> list:
    """``takehome.Picture`` s with pseudonyms for patient, source and their own name, which may be made of the source's;
    their order is that of the pseudonyms, so that it tells nothing either."""
    hidden = [replace(p, patient=key.of("patient", p.patient), source=key.of("source", p.source),
                      name=key.of("file", p.name), run_file=key.of("file", p.name)) for p in pictures]
    return sorted(hidden, key=lambda p: p.name)
