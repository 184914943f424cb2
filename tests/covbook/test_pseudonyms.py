"""Pseudonyms in an export: no source name in any file of it, the key beside it, the same people the same."""

import csv
import os

import pytest
from exported import everything, make_run, rows_of

from covbook.cli import main
from covbook.pseudonyms import Key, key_file
from covbook.runner import takehome
from covlib.errors import DataError


def key_of(to):
    with key_file(to).open(newline="") as file:
        return {(row["kind"], row["name"]): row["pseudonym"] for row in csv.DictReader(file)}


@pytest.mark.parametrize("form", takehome.FORMATS)
def test_of_own_folders_no_name_goes_out(tmp_path, form):
    run, arrays = make_run(tmp_path / "run", kind="folder")
    to = takehome.export_run(run, tmp_path / "set", form=form)
    whole = everything(to)
    assert b"patient 3" not in whole and b"patient%203" not in whole and b"covid_0001" not in whole
    assert "have pseudonyms" in (to / "DATASHEET.md").read_text()
    key, plain = key_of(to), takehome.export_run(run, tmp_path / "plain", form=form, pseudonymous=False)
    assert b"covid_0002" in everything(plain) and not key_file(plain).exists()
    assert (key_file(to).stat().st_mode & 0o777) == 0o600 and key_file(to).parent == to.parent
    assert {name for kind, name in key if kind == "patient"} == set(arrays["patients"])
    hidden, shown = rows_of(to), rows_of(plain)
    of = {name: made for (kind, name), made in key.items() if kind == "patient"}
    assert sorted((of[r["patient"]], r["label"], r["split"]) for r in shown) == sorted(
        (r["patient"], r["label"], r["split"]) for r in hidden)  # the same people, classes and split


def test_the_same_key_gives_the_same_pseudonyms_and_another_place_others(tmp_path):
    run, _ = make_run(tmp_path / "run", kind="folder")
    first = takehome.export_run(run, tmp_path / "set")
    names = {r["patient"] for r in rows_of(first)}
    os.rename(first, tmp_path / "old")
    assert {r["patient"] for r in rows_of(takehome.export_run(run, tmp_path / "set"))} == names
    assert not {r["patient"] for r in rows_of(takehome.export_run(run, tmp_path / "other"))} & names


def test_the_default_goes_by_the_data_and_can_be_changed(tmp_path):
    public, _ = make_run(tmp_path / "public", kind="source")
    for n, (words, hidden) in enumerate(((["--pseudonyms"], True), ([], False), (["--no-pseudonyms"], False))):
        assert main(["export", str(public), "--to", str(tmp_path / f"set{n}"), *words]) == 0
        assert key_file(tmp_path / f"set{n}").exists() == hidden
        assert (b"patient 3" in everything(tmp_path / f"set{n}")) != hidden


def test_a_file_that_is_no_key_is_left_alone(tmp_path):
    run, _ = make_run(tmp_path / "run", kind="folder")
    key_file(tmp_path / "set").write_text("somebody's own table\n1\n")
    with pytest.raises(DataError, match="set-key.csv: is no key of pseudonyms"):
        takehome.export_run(run, tmp_path / "set")
    assert not (tmp_path / "set").exists() and key_file(tmp_path / "set").read_text().startswith("somebody's")


def test_what_is_not_known_has_no_pseudonym(tmp_path):
    key = Key(tmp_path / "key.csv")
    assert key.of("source", "") == "" and key.of("patient", "a") == key.of("patient", "a") != key.of("patient", "b")
