"""The study runner, on a study that really trains: resume, sharing, locks, collecting, the table, bad input."""

import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from documents import comparable
from tiny_study import STUDY

from covbook import locks, project, reported, studies
from covbook.cli import main
from covbook.runner import jobs
from covbook.runner import studies as sweeping
from covbook.runner.studies import sweep
from covbook.studies import Arm, Study
from covlib.errors import ConfigError, DataError

HELPERS = Path(__file__).parents[2] / "helpers"
GOOD = ("plain", "noisy", "fast")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(sweeping, "MODULES", ["tiny_study"])
    yield
    torch.set_num_threads(before)


@pytest.fixture
def said():
    return []


def run(out, said, **options):
    settings = {"profile": "smoke", "arms": GOOD, "device": "cpu", "overrides": {"steps": 6}, **options}
    return sweep(STUDY, out=out, say=said.append, **settings)


def results(out) -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(out.glob("*.json"))}


# ---- running ---------------------------------------------------------------------------------------------------------


def test_a_sweep_runs_what_is_not_there_yet(tmp_path, said):
    first = run(tmp_path, said, arms=["plain"])
    assert first.done == ["plain-seed0"] and not first.there and "done in" in said[-1]
    stamp = (tmp_path / "plain-seed0.json").stat().st_mtime_ns
    second = run(tmp_path, said, arms=["fast", "plain"], seeds=[0, 1])
    assert second.there == ["plain-seed0"] and second.done == ["fast-seed0", "plain-seed1", "fast-seed1"]
    assert (tmp_path / "plain-seed0.json").stat().st_mtime_ns == stamp
    assert not list(tmp_path.rglob("*.lock")) and not list(tmp_path.glob(".*partial*"))
    found = results(tmp_path)
    assert set(found) == {"plain-seed0", "plain-seed1", "fast-seed0", "fast-seed1"}
    assert found["plain-seed0"]["metrics"]["mean"] != found["plain-seed1"]["metrics"]["mean"]


def test_an_arm_s_file_says_how_it_was_got(tmp_path, said):
    run(tmp_path, said, arms=["noisy"], seeds=[3])
    document = results(tmp_path)["noisy-seed3"]
    project.validate(document, "study", "noisy", DataError)
    assert document["config"] == {"steps": 6, "batch_size": 8} and document["overrides"] == {"steps": 6}
    assert document["settings"] == {"noise": True} and document["seed"] == 3 and document["device"] == "cpu"
    assert document["data"] == {"kind": "phantom", "name": "phantom", "fingerprint": sweeping.fingerprint("phantom")}
    assert document["versions"]["torch"] == torch.__version__.split("+")[0]
    assert document["metrics"]["undefined"] is None and document["times"]["seconds"] > 0
    assert str(tmp_path) not in json.dumps(document)
    assert (tmp_path / "work" / "noisy-seed3").is_dir()


def test_arms_repeat_and_do_not_depend_on_their_order(tmp_path, said):
    run(tmp_path / "a", said, arms=["plain", "noisy"])
    torch.rand(5)
    run(tmp_path / "b", said, arms=["noisy"])
    run(tmp_path / "b", said, arms=["plain"])
    a, b = results(tmp_path / "a"), results(tmp_path / "b")
    assert {k: comparable(v) for k, v in a.items()} == {k: comparable(v) for k, v in b.items()}


def test_what_an_arm_draws_globally_depends_on_its_seed_alone(tmp_path):
    draw = lambda arm, *, profile, data, seed, device, out: {"drawn": torch.rand(1).item()}
    study = Study("draws", "90_tiny", "Draws", lambda profile: [Arm("a"), Arm("b")], draw)
    sweep(study, profile="smoke", seeds=[0, 1], out=tmp_path, device="cpu")
    found = {name: document["metrics"]["drawn"] for name, document in results(tmp_path).items()}
    assert found["a-seed0"] == found["b-seed0"] != found["a-seed1"] == found["b-seed1"]


def test_an_arm_that_was_finished_meanwhile_is_not_run_again(tmp_path, monkeypatch, said):
    run(tmp_path / "a", said, arms=["plain"])

    @contextmanager
    def late(path):
        with locks.lock(path) as mine:
            shutil.copy(tmp_path / "a" / "plain-seed0.json", tmp_path / "b")  # between the look and the lock
            yield mine

    (tmp_path / "b").mkdir()
    monkeypatch.setattr(jobs, "lock", late)
    outcome = run(tmp_path / "b", said, arms=["plain"])
    assert outcome.there == ["plain-seed0"] and not outcome.done and not list((tmp_path / "b" / "work").iterdir())


def test_the_lock_of_an_arm_whose_process_was_killed_at_its_very_end_goes(tmp_path, said):
    run(tmp_path, said, arms=["plain"])
    left = tmp_path / "work" / "plain-seed0.lock"
    left.write_text("")  # the result was written, and the process killed before it let go
    assert run(tmp_path, said, arms=["plain"]).there == ["plain-seed0"] and not left.exists()


def test_an_arm_that_diverges_does_not_stop_the_others(tmp_path, said):
    outcome = run(tmp_path, said, arms=["diverges", "plain"], seeds=[0, 1])
    assert set(outcome.failed) == {"diverges-seed0", "diverges-seed1"} and len(outcome.done) == 2
    assert any(text.startswith("[2/4] diverges-seed0: failed: ") for text in said)
    assert set(results(tmp_path)) == {"plain-seed0", "plain-seed1"} and not list(tmp_path.rglob("*.lock"))


@pytest.mark.slow
def test_arms_run_on_dask_too_and_leave_what_they_leave_here(tmp_path, said):
    arms = {"arms": ["diverges", "plain", "noisy"]}
    outcome = run(tmp_path / "dask", said, workers=2, **arms)
    assert sorted(outcome.done) == ["noisy-seed0", "plain-seed0"] and list(outcome.failed) == ["diverges-seed0"]
    assert "diverged" in outcome.failed["diverges-seed0"] or "finite" in outcome.failed["diverges-seed0"]
    assert "3 runs on 2 workers" in said and sum(": running on " in text for text in said) == 3
    run(tmp_path / "here", said, **arms)
    here, dask = results(tmp_path / "here"), results(tmp_path / "dask")
    assert {k: comparable(v) for k, v in here.items()} == {k: comparable(v) for k, v in dask.items()}
    assert run(tmp_path / "dask", said, workers=2, arms=["plain", "noisy"]).there == ["plain-seed0", "noisy-seed0"]


def test_the_data_s_fingerprint_is_that_of_its_content(tmp_path):
    (tmp_path / "x" / "deep").mkdir(parents=True)
    (tmp_path / "x" / "deep" / "a.png").write_bytes(b"1")
    first = sweeping.fingerprint(tmp_path / "x")
    (tmp_path / "x").rename(tmp_path / "y")
    assert sweeping.fingerprint(tmp_path / "y") == first
    (tmp_path / "y" / "deep" / "a.png").write_bytes(b"2")
    assert sweeping.fingerprint(tmp_path / "y") != first


# ---- several processes, killed processes -----------------------------------------------------------------------------


def start(out, *arms, seeds=(0,)):
    command = [sys.executable, str(HELPERS / "tiny_study.py"), str(out), *arms, "--seeds", *map(str, seeds)]
    places = [HELPERS, project.ROOT, project.ROOT / "book"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=environment)


def let_go(process):
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.slow
def test_a_killed_sweep_loses_only_the_arm_it_was_at(tmp_path, said):
    process = start(tmp_path / "a", "plain", "slow")
    let_go(process)
    for line in process.stdout:
        if line.startswith("step 4"):
            break
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert set(results(tmp_path / "a")) == {"plain-seed0"} and (tmp_path / "a" / "work" / "slow-seed0.lock").is_file()
    outcome = run(tmp_path / "a", said, arms=["plain", "slow"])
    assert outcome.there == ["plain-seed0"] and outcome.done == ["slow-seed0"]
    assert "slow-seed0: running again" in said and not list((tmp_path / "a").rglob("*.lock"))
    run(tmp_path / "b", said, arms=["plain", "slow"])
    a, b = results(tmp_path / "a"), results(tmp_path / "b")
    assert a["slow-seed0"]["metrics"] == b["slow-seed0"]["metrics"]


@pytest.mark.slow
def test_processes_share_a_folder_and_do_no_arm_twice(tmp_path, said):
    other = start(tmp_path, "plain", "slow", seeds=(0, 1))
    assert other.stdout.readline() == "ready\n"
    let_go(other)
    while not (tmp_path / "work" / "plain-seed0.lock").exists() and not (tmp_path / "plain-seed0.json").exists():
        assert other.poll() is None  # it has begun: both are at it now
        time.sleep(0.01)
    run(tmp_path, said, arms=["plain", "slow"], seeds=[0, 1])
    out, err = other.communicate(timeout=120)
    assert other.returncode == 0, err
    everything = ["plain-seed0", "plain-seed1", "slow-seed0", "slow-seed1"]
    lines = [re.sub(r"^\[.*\] ", "", line) for line in [*said, *out.splitlines()]]
    for words in (": running", ": done in"):
        assert sorted(line.split(":")[0] for line in lines if words in line) == everything
    assert any("left to another process" in line or "already there" in line for line in lines)
    assert set(results(tmp_path)) == set(everything) and not list(tmp_path.rglob("*.lock"))


HOLD = """import sys, time
from pathlib import Path
from covbook.locks import lock
with lock(Path(sys.argv[1])) as mine:
    print(mine, flush=True)
    time.sleep(600)"""


def hold(path) -> subprocess.Popen:
    """A process that holds the lock until it is killed, or was told that somebody else has it."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "True\n"
    return process


def test_a_lock_is_held_and_released(tmp_path):
    path = tmp_path / "work" / "arm-seed0.lock"
    with locks.lock(path) as mine:
        assert mine and path.is_file()
        with locks.lock(path) as second:
            assert not second
        assert path.is_file()
    assert not path.exists()
    with pytest.raises(ValueError), locks.lock(path):
        raise ValueError
    with locks.lock(path) as mine:
        assert mine


def test_a_killed_process_s_lock_is_free_and_a_stopped_one_s_is_not(tmp_path):
    path = tmp_path / "arm-seed0.lock"
    holder = hold(path)
    try:
        os.utime(path, (0, 0))  # nobody has touched it since 1970: that alone frees nothing
        holder.send_signal(signal.SIGSTOP)
        with locks.lock(path) as mine:
            assert not mine
        assert path.is_file()
    finally:
        holder.kill()
        holder.communicate(timeout=60)
    assert path.is_file()  # left behind, and free
    with locks.lock(path) as mine:
        assert mine
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_the_lock_s_name_that_nobody_holds_is_no_lock(tmp_path):
    path = tmp_path / "arm-seed0.lock"
    path.write_text(json.dumps({"pid": 1, "host": "another-machine"}))
    with locks.lock(path) as mine:
        assert mine
    assert not path.exists()


def test_of_many_that_find_a_lock_left_behind_one_gets_it(tmp_path):
    path, got = tmp_path / "arm-seed0.lock", []
    path.write_text("")
    begin, end = threading.Barrier(8), threading.Barrier(8)

    def contend():
        begin.wait()
        with locks.lock(path) as mine:
            got.append(mine)
            end.wait()

    threads = [threading.Thread(target=contend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * 7 + [True] and not list(tmp_path.iterdir())


def test_two_never_hold_a_lock_while_others_come_and_go(tmp_path):
    """The name goes while the lock is still held: whoever opened the file before must not think that it holds it."""
    path, inside, worst, had = tmp_path / "arm-seed0.lock", [], [], []

    def come_and_go():
        for _ in range(300):
            with locks.lock(path) as mine:
                if mine:
                    inside.append(1)
                    worst.append(len(inside))
                    had.append(1)
                    inside.pop()

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(worst) == 1 and len(had) >= 300 and not path.exists()


# ---- collecting and showing ------------------------------------------------------------------------------------------


@pytest.fixture
def swept(tmp_path, said):
    run(tmp_path / "out", said, seeds=[0, 1, 2], overrides={}, arms=["noisy", "plain"])
    return tmp_path / "out"


def test_collected_results_hold_every_run_and_no_path(swept, tmp_path):
    file = sweeping.collect(STUDY, swept, tmp_path / "results")
    assert file.name == "tiny-phantom-smoke.json" and str(tmp_path) not in file.read_text()
    [document] = studies.load("tiny", tmp_path / "results")
    assert document["title"] == STUDY.title and document["file"] == file.name
    assert [arm["name"] for arm in document["arms"]] == ["plain", "noisy"]  # in the study's order
    assert [[r["seed"] for r in arm["runs"]] for arm in document["arms"]] == [[0, 1, 2]] * 2
    one = results(swept)["noisy-seed1"]
    assert document["arms"][1]["runs"][1]["metrics"] == one["metrics"]
    assert studies.values(document, "noisy", "mean")[1] == one["metrics"]["mean"]
    assert studies.values(document, "noisy", "undefined") == []
    assert studies.load("other", tmp_path / "results") == [] and studies.load(folder=tmp_path / "none") == []


def test_changed_settings_do_not_replace_the_plain_results(swept, tmp_path, said):
    run(tmp_path / "changed", said, arms=["plain"], overrides={"batch_size": 4})
    files = [sweeping.collect(STUDY, out, tmp_path / "results") for out in (swept, tmp_path / "changed")]
    assert len(set(files)) == 2 and files[1].name.startswith("tiny-phantom-smoke-")
    table = studies.table(studies.load(folder=tmp_path / "results"), {"mean": "mean"})
    assert table.columns[0] == "data, profile" and len(table.rows) == 3
    assert {row[0] for row in table.rows} == {"virtual patients, profile smoke",
                                              "virtual patients, profile smoke, settings changed"}


def test_the_table_has_mean_spread_and_the_paper_s_number(swept, tmp_path, monkeypatch):
    sweeping.collect(STUDY, swept, tmp_path / "results")
    documents = studies.load(folder=tmp_path / "results")
    numbers = [{"id": "table_plain_spread", "value": 51.5, "unit": "%"}, {"id": "table_other_mean", "value": 3}]
    (tmp_path / "tiny.yaml").touch()
    monkeypatch.setattr(project, "REPORTED", tmp_path)
    monkeypatch.setattr(reported, "load_reported", lambda name: {"numbers": numbers})
    table = studies.table(documents, {"mean": "Mean", "spread": "Spread"})
    assert table.columns == ["arm", "Mean", "Spread (%)", "Spread (%), paper"]  # the unit once, for ours and theirs
    assert [row[0] for row in table.rows] == ["plain", "noisy"] and [row[3] for row in table.rows] == ["51.5", "–"]
    named = studies.table(documents, {"spread": "Spread (%)"})
    assert named.columns == ["arm", "Spread (%)", "Spread (%), paper"]
    numbers.append({"id": "table_noisy_spread", "value": 0.5})
    mixed = studies.table(documents, {"spread": "Spread"})
    assert mixed.columns == ["arm", "Spread", "Spread, paper"] and [row[2] for row in mixed.rows] == ["51.5 %", "0.5"]
    measured = studies.values(documents[0], "plain", "spread")
    mean, rest = table.rows[0][2].split(" ± ")
    spread, count = rest.split(" ")
    assert count == "(3)"
    assert float(mean) == pytest.approx(100 * statistics.fmean(measured), rel=0.02)
    assert float(spread) == pytest.approx(100 * statistics.stdev(measured), rel=0.3)
    assert "standard deviation over seeds" in table.note and "Run on virtual patients, profile smoke." in table.note
    chosen = studies.table(documents, {"mean": "Mean"}, arms={"noisy": "with noise"})
    assert [row[0] for row in chosen.rows] == ["with noise"]
    alone = {**documents[0], "arms": [{**arm, "runs": arm["runs"][:1]} for arm in documents[0]["arms"]]}
    alone = studies.table(alone, {"mean": "Mean"})
    assert not any("±" in cell for row in alone.rows for cell in row) and alone.note.startswith("One seed")
    lacking = studies.table(documents, {"mean": "Mean", "never": "What nobody measured"})
    assert lacking.columns == ["arm", "Mean"] and lacking.note.endswith("Not measured there: What nobody measured.")
    empty = studies.table("no such study", {"mean": "Mean"})
    assert empty.rows == [] and empty.columns == ["arm", "Mean"] and "covlib sweep no such study" in empty.note


@pytest.mark.parametrize(("measured", "text"), [
    ([], "–"), ([0.5], "0.500 (1)"), ([0.86, 0.88, 0.90], "0.880 ± 0.020 (3)"), ([87.0, 95.0], "91 ± 6 (2)"),
    ([-2.0, -1.0], "−1.5 ± 0.7 (2)"), ([0.3, 0.3], "0.300 ± 0.000 (2)"), ([1200.0, 1800.0], "1,500 ± 424 (2)")])
def test_cells_have_the_digits_that_the_spread_allows(measured, text):
    assert studies._cell(measured) == text


# ---- bad input -------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused_before_anything_runs(tmp_path, said):
    bad = {
        r"arms: there is no 'plan' \(did you mean 'plain'\?\); valid are plain, noisy, fast, slow": {"arms": ["plan"]},
        "arms: none given": {"arms": []},
        r"seeds: \[-1\] given": {"seeds": [-1]},
        r"seeds: \[\] given": {"seeds": []},
        "profile: 'big'": {"profile": "big"},
        "overrides: 'stepps' .*did you mean 'steps'": {"overrides": {"stepps": 1}},
        "data: '/no/such/folder' does not exist": {"data": "/no/such/folder"},
        "device 'abacus'": {"device": "abacus"}}
    for words, options in bad.items():
        with pytest.raises(ConfigError, match=words) as caught:
            run(tmp_path / "out", said, **options)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists() and not said
    with pytest.raises(ConfigError, match="study: there is no 'tinny' \\(did you mean 'tiny'\\?\\); valid are tiny"):
        sweeping.find("tinny")
    with pytest.raises(ConfigError, match="arm: 'a/b' must be letters"):
        Arm("a/b")


def test_a_folder_of_something_else_is_left_alone(swept, tmp_path, said):
    bad = {r"another config \(steps: 4 there, 6 wanted\)": {"overrides": {"steps": 6}},
           r"another profile \(smoke there, cpu wanted\)": {"overrides": {}, "profile": "cpu"}}
    for words, options in bad.items():
        with pytest.raises(ConfigError, match=words):
            run(swept, said, **options)
    other = Study("other", STUDY.chapter, "Another", STUDY.arms, STUDY.run_arm, STUDY.config)
    with pytest.raises(ConfigError, match="another study \\(tiny there, other wanted\\); give another --out"):
        sweep(other, profile="smoke", out=swept, device="cpu")
    with pytest.raises(ConfigError, match="holds arms of tiny, not of other"):
        sweeping.collect(other, swept, tmp_path / "results")
    with pytest.raises(ConfigError, match="holds no finished arm"):
        sweeping.collect(STUDY, tmp_path / "none", tmp_path / "results")
    damaged = swept / "plain-seed0.json"
    damaged.write_text(damaged.read_text()[:100])
    with pytest.raises(DataError, match="plain-seed0.json: not valid JSON"):
        run(swept, said, overrides={})
    document = results_of(swept / "plain-seed1.json") | {"seed": "one"}
    damaged.write_text(json.dumps(document))
    with pytest.raises(DataError, match="plain-seed0.json: field seed"):
        sweeping.collect(STUDY, swept, tmp_path / "results")


def results_of(path: Path) -> dict:
    return json.loads(path.read_text())


def test_a_study_without_settings_takes_none(tmp_path):
    fixed = lambda arm, *, profile, data, seed, device, out: {"seed": seed}
    study = Study("fixed", "90_tiny", "Fixed", lambda profile: [Arm("only")], fixed)
    with pytest.raises(ConfigError, match="--set: study fixed has no settings to change"):
        sweep(study, profile="smoke", out=tmp_path, overrides={"steps": 1}, device="cpu")
    assert sweep(study, profile="smoke", seeds=[4], out=tmp_path, device="cpu").done == ["only-seed4"]
    [document] = results(tmp_path).values()
    assert document["metrics"] == {"seed": 4} and document["config"] is None
    nothing = Study("nothing", "90_tiny", "Nothing", lambda profile: [Arm("only")], lambda arm, **options: {})
    with pytest.raises(ConfigError, match="arm only: gave {}; a dict of metric: number is wanted"):
        sweep(nothing, profile="smoke", out=tmp_path / "nothing", device="cpu")


def test_every_registered_study_can_be_listed(monkeypatch):
    monkeypatch.undo()
    found = sweeping.known()
    for name, study in found.items():
        names = [arm.name for arm in study.arms("cpu")]
        assert study.name == name and names and len(set(names)) == len(names)
        json.dumps([arm.settings for arm in study.arms("cpu")], allow_nan=False)


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_lists_runs_and_collects(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(studies, "FOLDER", tmp_path / "results")
    assert main(["sweep", "--list"]) == 0
    assert "tiny   90_tiny  What the tiny GAN makes  plain, noisy, fast, slow, diverges" in capsys.readouterr().out
    command = ["sweep", "tiny", "--profile", "smoke", "--device", "cpu", "--set", "steps=2"]
    assert main([*command, "--seeds", "0", "1", "--arms", "plain,fast"]) == 0
    shown = capsys.readouterr().out
    assert "tiny: 4 done, 0 there already, 0 left to other processes, 0 failed" in shown
    assert main([*command, "--arms", "diverges,plain"]) == 1
    assert "0 done, 1 there already, 0 left to other processes, 1 failed" in capsys.readouterr().out
    assert main([*command, "--collect"]) == 0
    file = Path(capsys.readouterr().out.strip())
    assert file.parent == tmp_path / "results" and len(studies.load("tiny")[0]["arms"]) == 2
    assert (tmp_path / "runs" / "studies" / "tiny-phantom-smoke" / "plain-seed0.json").is_file()
    for words, argv in {"no STUDY or CHAPTER given": [], "there is no 'tine' (did you mean 'tiny'?)": ["tine"],
                        "--set: 'steps' must look like FIELD=VALUE": ["tiny", "--set", "steps"],
                        "valid are plain, noisy": ["tiny", "--arms", "plane"]}.items():
        assert main(["sweep", *argv]) == 2
        shown = capsys.readouterr().err
        assert words in shown and shown.startswith("covlib: error: ") and shown.count("\n") == 1


def test_the_runner_itself_imports_nothing_heavy():
    code = "import sys, covbook.studies\nprint([m for m in ('torch', 'numpy', 'yaml') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_folder_that_cannot_be_written_is_named(tmp_path, said):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="out: .*file.* cannot be written"):
        run(tmp_path / "file" / "deep", said)


def test_two_studies_of_one_name_are_refused(monkeypatch):
    monkeypatch.setattr(sweeping, "MODULES", ["tiny_study", "tiny_study"])
    with pytest.raises(ConfigError, match="study: 'tiny' is registered twice"):
        sweeping.find("tiny")
