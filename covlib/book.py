"""Building the HTML book: from the committed notebooks, or from copies that ``covlib run`` has executed.

jupyter-book is given a staged copy of the book's files only, so that it neither walks through the virtual environment
nor writes into the repository. Nothing is executed: a chapter that failed has stopped its run before we come here.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from covlib import chapters
from covlib.errors import ConfigError
from covlib.project import ROOT


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
    extra = source / "extra" / "data" / "results"  # tables in notebooks link to the recorded runs: shipped as they are
    extra.mkdir(parents=True)
    for path in sorted((ROOT / "data" / "results").glob("*.json")):
        shutil.copyfile(path, extra / path.name)
    shutil.copyfile(ROOT / "_toc.yml", source / "_toc.yml")
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    config["sphinx"]["config"]["html_extra_path"] = ["extra"]
    (source / "_config.yml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    for chapter, path in executed.items():
        shutil.copyfile(path, source / "book" / chapter.path.name)
    return source


def build(source: Path, out: Path, quiet: bool = False) -> Path:
    """Run jupyter-book over ``source`` with warnings as errors; returns the path of index.html."""
    target = out / "html"
    shutil.rmtree(target, ignore_errors=True)
    work = source.parent / "work"
    shutil.rmtree(work, ignore_errors=True)  # Sphinx's own cache would keep pages whose warnings it no longer repeats
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(source),
               "--path-output", str(work), "-n", "-W", "--keep-going", *(["-q"] if quiet else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        lines = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).splitlines()
        wrong = [line for line in lines if "WARNING" in line or "ERROR" in line or "rror:" in line]
        print("\n".join(lines[-40:]), file=sys.stderr)
        raise ConfigError(f"book: the build failed: {wrong[0].strip() if wrong else 'see above'}")
    shutil.move(work / "_build" / "html", target)
    return (target / "index.html").resolve()
