"""A chapter swept over settings on Dask: killed workers, finished runs, failing cells, the table, bad input."""

import csv
import json
import os
import signal
import threading
import time
from datetime import datetime
from pathlib import Path

import pytest
from nbformat import v4, write

from covbook.cli import main
from covbook.runner import chapters, sweeps
from covlib.errors import ConfigError

PARAMETERS = """profile = "cpu"
data = "phantom"
seed = 0
device = "auto"
out = "runs/91_swept"
checkpoint = None
resume = True
overrides = {}"""
START = """import os, time, dataclasses
from pathlib import Path
from covbook import runs
from covlib import config

@dataclasses.dataclass(frozen=True)
class Config(config.Config):
    ratio: float = 0.5
    do: str = ""

run = runs.start("91_swept", profile=profile, data=data, seed=seed, device=device, out=out, checkpoint=checkpoint,
                 resume=resume, overrides=overrides, config_cls=Config)"""
WORK = """c = run.config
if c.do == "fail":
    raise ValueError("told to")
if c.do == "wait" and not (run.out / "parent").exists():
    (run.out / "parent.new").write_text(str(os.getppid()))
    (run.out / "parent.new").rename(run.out / "parent")
    time.sleep(120)
run.metric("score", c.ratio + 0.1 * seed, how="made up for the test")
run.finish()"""


@pytest.fixture
def chapter(tmp_path, monkeypatch) -> chapters.Chapter:
    monkeypatch.chdir(tmp_path)
    cells = [v4.new_markdown_cell("# Swept"), v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
             v4.new_code_cell(START), v4.new_code_cell(WORK)]
    notebook = v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    write(notebook, tmp_path / "91_swept.ipynb")
    return chapters.find("91_swept.ipynb")


def jobs(chapter, parameters, overrides=(), **options):
    return sweeps.grid(chapter, parameters, dict(overrides),
                       **{"profile": "smoke", "data": "phantom", "device": "cpu", "out": Path("out"), **options})


# ---- the grid --------------------------------------------------------------------------------------------------------


def test_every_combination_has_a_folder_of_its_own(chapter):
    found = jobs(chapter, {"seed": "0,1,2"}, {"ratio": "0,0.1"})
    assert [job.name for job in found] == [f"seed={s}-ratio={r}" for s in (0, 1, 2) for r in (0, 0.1)]
    assert found[3].settings["seed"] == 1 and found[3].settings["overrides"] == {"ratio": 0.1}
    assert Path(found[3].settings["out"]) == Path("out/seed=1-ratio=0.1").resolve()
    assert not Path("out").exists()


@pytest.mark.parametrize("text, kind, values", [
    ("0,0.1,none", None, [0, 0.1, None]), ("[16, 32]", None, [[16, 32]]), ("a, b", None, ["a", "b"]),
    ("12,13", str, ["12", "13"]), ("true", None, [True]),
])
def test_values(text, kind, values):
    assert sweeps.read_values(text, kind) == values


@pytest.mark.parametrize("words, text", [
    (["-p", "sede", "0,1"], "parameter 'sede' is not one of this chapter's (did you mean 'seed'?)"),
    (["-p", "seed", "0,,1"], "holds an empty value"), (["-p", "seed", "0,0"], "seed is given the same value twice"),
    (["-p", "seed", "0,one"], "parameter seed: must be a whole number, got 'one'"),
    (["-p", "out", "a,b"], "-p out: give it as --out"), (["--set", "ratio"], "must look like FIELD=VALUE,VALUE"),
    (["--profile", "big"], "'big' is not a profile"), (["--arms", "a"], "--arms is for studies"),
    (["--set", "do=a?,a!"], "two combinations have the same folder"), (["--workers", "0"], "--workers at least 1"),
    (["--data", "nowhere"], "data: 'nowhere' does not exist; give"),
    (["--seeds", "1", "2", "-p", "seed", "3"], "-p seed: given twice"),
])
def test_what_does_not_fit_is_one_line_and_nothing_is_written(chapter, words, text, capsys, tmp_path):
    assert main(["sweep", "91_swept.ipynb", *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and text in lines[0]
    assert os.listdir(tmp_path) == ["91_swept.ipynb"]


def test_chapters_go_by_number_and_studies_by_name(capsys):
    assert main(["sweep", "global_local-table3", "-p", "seed", "0"]) == 2
    assert "-p is for chapters" in capsys.readouterr().err
    assert main(["sweep", "47", "-p", "seed", "0"]) == 2
    assert "chapter: there is no '47'" in capsys.readouterr().err


def test_no_scheduler_there(chapter, monkeypatch):
    monkeypatch.setattr("covbook.runner.jobs.ANSWERS", 1)
    with pytest.raises(ConfigError, match="no Dask scheduler answers at tcp://127.0.0.1:9"):
        sweeps.run(chapter, jobs(chapter, {"seed": "0"}), Path("out"), scheduler="tcp://127.0.0.1:9")
    with pytest.raises(ConfigError, match="no Dask scheduler answers at nonsense"):
        sweeps.run(chapter, jobs(chapter, {"seed": "0"}), Path("out"), scheduler="nonsense://x")


# ---- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_worker_is_killed_a_cell_fails_and_the_rest_is_done_and_collected(chapter, capsys):
    said, given = [], jobs(chapter, {"seed": "0,1"}, {"do": "go,wait,fail"})
    given = [job for job in given if job.settings["seed"] == 0 or job.settings["overrides"]["do"] == "go"]
    marker = Path("out/seed=0-do=wait/parent")

    def kill():
        while not marker.exists():
            time.sleep(0.05)
        os.kill(int(marker.read_text()), signal.SIGKILL)  # the worker that runs the notebook's kernel

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    outcome = sweeps.run(chapter, given, Path("out"), workers=2, say=said.append)
    killer.join(10)
    assert sorted(outcome.done) == ["seed=0-do=go", "seed=0-do=wait", "seed=1-do=go"]
    assert outcome.failed == {"seed=0-do=fail": "code cell 4: ValueError: told to"}
    assert any(line.startswith("seed=0-do=wait: running on") and line.endswith("again") for line in said)
    assert not list(Path("out").rglob("*.lock")) and sum("done in" in line for line in said) == 3

    times = {path: path.stat().st_mtime_ns for path in Path("out").glob("*/metrics.json")}
    words = ["sweep", "91_swept.ipynb", "--profile", "smoke", "--device", "cpu", "--out", "out", "-p", "seed", "0,1",
             "--set", "do=go"]
    assert main(words) == 0  # nothing to do: finished runs are skipped
    shown = capsys.readouterr().out
    assert "0 done, 2 there already" in shown and {p: p.stat().st_mtime_ns for p in times} == times
    row = next(csv.DictReader(Path("out/table.csv").open()))
    assert (row["do"], row["metric"], row["runs"]) == ("go", "score", "2")
    assert [float(row[k]) for k in ("value", "low", "high")] == pytest.approx([0.55, 0.5, 0.6])
    with pytest.raises(ConfigError, match="holds a sweep of another profile \\(smoke there, cpu wanted\\)"):
        sweeps.run(chapter, jobs(chapter, {"seed": "0"}, profile="cpu"), Path("out"))


@pytest.mark.slow
def test_one_run_at_a_time_on_one_gpu(chapter, monkeypatch):
    """Two workers, one of which offers a GPU (as far as Dask knows): both runs go to it, one after the other."""
    from distributed import Nanny, Scheduler, SpecCluster

    nannies = {k: {"cls": Nanny, "options": {"nthreads": 2, "dashboard": False, "silence_logs": 50, "resources": r}}
               for k, r in enumerate(({}, {"GPU": 1}))}
    place = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard": False}}
    said = []
    with SpecCluster(workers=nannies, scheduler=place, silence_logs=50) as cluster:
        outcome = sweeps.run(chapter, jobs(chapter, {"seed": "0,1"}), Path("out"), say=said.append,
                             scheduler=cluster.scheduler_address)
    assert len(outcome.done) == 2 and "2 runs on 2 workers, one a GPU" in said
    running = [line.split(" on ")[1] for line in said if ": running on" in line]
    assert len(running) == 2 and len(set(running)) == 1
    first, second = sorted(((json.loads(p.read_text())["times"]["started"], p) for p in
                            Path("out").glob("*/metrics.json")), key=lambda pair: pair[1].stat().st_mtime)
    over = first[1].with_name("91_swept.ipynb").stat().st_mtime  # when the first run's notebook got its name
    assert datetime.fromisoformat(second[0]).timestamp() + 1 > over  # its start is kept in whole seconds
