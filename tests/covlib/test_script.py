"""A reader's first script: covlib alone, arrays in, a distance out, trained in one process and used in another."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "book" / "first_script.py"


def run(what: str, folder: Path) -> str:
    known = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}  # covbook isn't there
    done = subprocess.run([sys.executable, SCRIPT, what], cwd=folder, env=known, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_one_process_trains_and_another_loads_synthesises_and_judges(tmp_path):
    run("train", tmp_path)
    first, second = run("judge", tmp_path), run("judge", tmp_path)
    assert first == second  # one file, one set of images, one number
    assert float(re.search(r"value=([\d.]+)", first)[1]) > 0 and "n_real=24, n_fake=24" in first


def test_the_script_is_short_and_needs_covlib_alone():
    text = SCRIPT.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 25
    imports = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
               for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)}
    assert {name.split(".")[0] for name in imports} == {"sys", "numpy", "torch", "covlib"}
