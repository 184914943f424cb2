"""The walls of the house: the contracts in pyproject.toml hold, and each of them is broken by an import against it."""

import os
import re
import shutil
import subprocess
import sys

import pytest

BROKEN = {  # contract -> file of the house, and an import that must not stand there
    "Three buildings, imports one way": ("covlib/losses.py", "import covbook.runs"),
    "Layers of covlib": ("covlib/nets.py", "from covlib.papers.dcgan import method"),
    "No paper imports another": ("covlib/papers/cyclegan/nets.py", "from covlib.papers.dcgan import nets"),
    "No chapter imports the command line, nor the building of pages": ("book/covbook/plots/style.py",
                                                                       "import covbook.cli"),
    "No circles": ("book/covbook/tables.py", "import covbook.report"),
}


def lint_imports(folder) -> tuple[int, str]:
    """Exit status and what was printed, run over the three buildings below ``folder``."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"],
        cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(folder / "book")])})
    return done.returncode, done.stdout + done.stderr


def test_walls_hold(root):
    status, said = lint_imports(root)
    assert status == 0, said


@pytest.fixture(scope="module")
def house(root, tmp_path_factory):
    """A copy of the three buildings' modules."""
    copy = tmp_path_factory.mktemp("house")
    other = shutil.ignore_patterns("__pycache__", "*.json", "*.md")
    for building in ("covlib", "book/covbook", "benchmarks"):
        shutil.copytree(root / building, copy / building, ignore=other)
    shutil.copyfile(root / "pyproject.toml", copy / "pyproject.toml")
    return copy


@pytest.mark.parametrize("contract", BROKEN)
def test_an_import_against_a_wall_is_found(house, contract):
    file, line = BROKEN[contract]
    path = house / file
    before = path.read_text(encoding="utf-8")
    path.write_text(f"{before}\n{line}\n", encoding="utf-8")
    try:
        status, said = lint_imports(house)
    finally:
        path.write_text(before, encoding="utf-8")
    assert status == 1 and re.search(rf"^{re.escape(contract)} BROKEN", said, re.MULTILINE), said


def test_every_contract_is_tried(root):
    import tomllib

    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert {contract["name"] for contract in contracts} == set(BROKEN)
