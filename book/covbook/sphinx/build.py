"""Building the HTML book: from the committed notebooks, or from copies that ``covlib run`` has executed.

jupyter-book is given a staged copy of the book's files only, so that it neither walks through the virtual environment
nor writes into the repository. Nothing is executed: a chapter that failed has stopped its run before we come here.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from covbook.project import ROOT
from covbook.runner import chapters
from covbook.sphinx import live, pages
from covbook.sphinx.roles import OWN_RUNS
from covlib.errors import ConfigError

MATHJAX_NOTICE = """MathJax 3.2.2, unchanged, as the Python package sphinx-mathjax-offline ships it.
Copyright The MathJax Consortium. Licensed under the Apache License, version 2.0:
https://www.apache.org/licenses/LICENSE-2.0. Source: https://github.com/mathjax/MathJax-src
"""

def main(runs: Path | None, out: Path, quiet: bool = False) -> Path:
    """Stage and build; prints and returns the path of index.html.

    Args:
        runs: folder with executed chapters, ``runs/CHAPTER/CHAPTER.ipynb``; None for the committed ones.
        out: where to stage (``out/src``) and build (``out/html``).

    Raises:
        ConfigError: an executed chapter is missing, or the build gave an error or a warning.
    """
    source = stage(runs, out)
    index = build(source, out, quiet)
    print(f"The book: {index}", flush=True)
    return index


def stage(runs: Path | None, out: Path) -> Path:
    """Copy the book's files to ``out/src``, executed chapters in place of the committed ones; returns that folder."""
    import yaml

    executed = {chapter: chapter.path for chapter in chapters.chapters()}
    if runs is not None:
        executed = {chapter: runs / chapter.name / f"{chapter.name}.ipynb" for chapter in executed}
    missing = [str(path) for path in executed.values() if not path.is_file()]
    if missing:
        raise ConfigError(f"book: {missing[0]} does not exist; run the chapter first")
    source = out / "src"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "book", source / "book", ignore=shutil.ignore_patterns("runs", ".*", "__pycache__"))
    shutil.copytree(ROOT / "book" / "_static", source / "_static")  # where jupyter-book looks for styles
    shutil.copytree(ROOT / "data", source / "data")
    results = ROOT / "data" / "results"  # tables in notebooks link to the recorded runs: shipped as they are
    for path in results.rglob("*.json"):
        shipped = source / "extra" / "data" / "results" / path.relative_to(results)
        shipped.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, shipped)
    shutil.copyfile(ROOT / "_toc.yml", source / "_toc.yml")
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    config["sphinx"]["config"]["html_extra_path"] = ["extra"]
    config["sphinx"]["config"]["mathjax_path"] = ship_mathjax(source / "extra" / "_static")
    config["sphinx"]["extra_extensions"] = [*config["sphinx"].get("extra_extensions", []), "covbook.sphinx.extension"]
    if config["repository"]["url"]:
        add_launch_buttons(config)
        how_to = source / "book" / "how_to.md"
        text = how_to.read_text(encoding="utf-8").replace("REPOSITORY_ADDRESS", config["repository"]["url"])
        how_to.write_text(text, encoding="utf-8")
    (source / "_config.yml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    for chapter, path in executed.items():
        shutil.copyfile(path, source / "book" / chapter.path.name)
        measured = path.with_name("metrics.json")
        if runs is not None and measured.is_file():
            (source / OWN_RUNS).mkdir(exist_ok=True)
            shutil.copyfile(measured, source / OWN_RUNS / f"{chapter.name}.json")
    live.stage(source, runs)
    pages.write(source)
    return source


def add_launch_buttons(config: dict) -> None:
    """Buttons to the repository, to Colab and to Binder: they need its public address, and are left out without one."""
    config["html"]["use_repository_button"] = True
    config["launch_buttons"]["binderhub_url"] = "https://mybinder.org"
    if "github.com/" in config["repository"]["url"]:  # Colab opens no others: a warning would end the build
        config["launch_buttons"]["colab_url"] = "https://colab.research.google.com"


def ship_mathjax(static: Path) -> str:
    """Copy what pages need of MathJax to ``static/mathjax``, so that formulas are set without a network.

    ``static`` is merged with the site's own (html_extra_path): jupyter-book would load every script in the book's
    _static on every page.

    Returns:
        The script's path relative to ``static``.

    Raises:
        ConfigError: the package that holds MathJax is not installed.
    """
    spec = importlib.util.find_spec("sphinx-mathjax-offline")  # the name of the module too
    if spec is None or spec.origin is None:
        raise ConfigError("book: the package sphinx-mathjax-offline is not installed; pip install 'covlib[book]'")
    there, here = Path(spec.origin).parent / "static" / "mathjax", static / "mathjax"
    for part in ("tex-chtml-full.js", "output/chtml/fonts", "a11y", "sre"):  # the last two: the menu of a formula
        if (there / part).is_dir():
            shutil.copytree(there / part, here / part)
        else:
            here.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(there / part, here / part)
    (here / "README.txt").write_text(MATHJAX_NOTICE, encoding="utf-8")
    return "mathjax/tex-chtml-full.js"


def build(source: Path, out: Path, quiet: bool = False) -> Path:
    """Run jupyter-book over ``source`` with warnings as errors; returns the path of index.html."""
    target = out / "html"
    shutil.rmtree(target, ignore_errors=True)
    work = source.parent / "work"
    shutil.rmtree(work, ignore_errors=True)  # Sphinx's own cache would keep pages whose warnings it no longer repeats
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(source),
               "--path-output", str(work), "-n", "-W", "--keep-going", *(["-q"] if quiet else [])]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]  # the pages describe this very copy of covlib
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)})
    if done.returncode:
        lines = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).splitlines()
        wrong = [line for line in lines if "WARNING" in line or "ERROR" in line or "rror:" in line]
        print("\n".join(lines[-40:]), file=sys.stderr)
        raise ConfigError(f"book: the build failed: {wrong[0].strip() if wrong else 'see above'}")
    shutil.move(work / "_build" / "html", target)
    return (target / "index.html").resolve()
