"""The command line: every way of getting it wrong, and what a run leaves, with a small notebook of the tests' own."""

import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import measure as bench
from covbook.cli import main
from covbook.datasets import sources
from covbook.runner import chapters
from covbook.sphinx import status
from covlib.errors import ConfigError

PARAMETERS = """profile = "cpu"
data = "phantom"
seed = 0
device = "auto"
out = "runs/90_tiny"
checkpoint = None
resume = True
overrides = {}"""

WORK = """import os, pathlib, warnings
from covlib.errors import DataError
warnings.warn("nobody should see this")
do = overrides.get("do", "write")
if do == "fail":
    raise ValueError("the third cell broke")
if do == "refuse":
    raise DataError("x.png: is a text file; give an image")
if do == "die":
    os.kill(os.getpid(), 9)
if do == "talk":
    print("many words " * 100_000)
pathlib.Path(out, "result.txt").write_text(f"{seed} {overrides}")
os.environ["PYTHONHASHSEED"]"""


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> Path:
    """A chapter that takes no time, in an empty current folder."""
    v4 = nbformat.v4
    cells = [v4.new_markdown_cell("# A tiny chapter"), v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
             v4.new_markdown_cell("## Its work"), v4.new_code_cell(WORK)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = tmp_path / "90_tiny.ipynb"
    nbformat.write(v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    monkeypatch.chdir(tmp_path)
    return path


def refused(capsys, *argv: str) -> str:
    """The one line that ``covlib ARGV`` prints to standard error when it refuses."""
    assert main(list(map(str, argv))) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("covlib: error: ") and shown.count("\n") == 1, shown
    return shown


# ---- without running anything ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("argv", "words"), [(["--help"], "usage: covlib"), (["sweep", "--list"], "cosingan-table4")])
def test_what_only_tells_imports_nothing_heavy(argv, words):
    heavy = ["torch", "numpy", "scipy", "pandas", "matplotlib", "sklearn", "skimage", "monai", "umap", "torchmetrics",
             "papermill", "nbformat", "yaml", "lightning_fabric", "pooch"]
    code = (f"import sys, covbook.cli\ntry:\n    covbook.cli.main({argv})\nexcept SystemExit:\n    pass\n"
            f"print('LOADED', [m for m in {heavy} if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert words in done.stdout
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_every_command_with_a_profile_names_them_all(capsys):
    for name in ("run", "train", "sweep"):
        with pytest.raises(SystemExit):
            main([name, "--help"])
        told = " ".join(capsys.readouterr().out.split())
        assert "--profile PROFILE smoke, cpu (default), long, gpu, paper --" in told, name


def test_console_script_is_installed():
    script = Path(sys.executable).with_name("covlib")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("covlib ")


@pytest.mark.parametrize("argv", [[], ["data"], ["results"], ["nonsense"], ["run"], ["run", "01", "--profile"],
                                  ["run", "01", "--seed", "many"], ["data", "phantom"]])
def test_usage_errors_are_one_line(capsys, argv):
    assert "--help" in refused(capsys, *argv)


@pytest.mark.parametrize(("argv", "words"), [
    (["--profile", "smok"], ["profile", "smok", "smoke, cpu, long, gpu, paper"]),
    (["-p", "sed", "3"], ["'sed'", "did you mean 'seed'", "profile, data, seed, device, out"]),
    (["-p", "seed", "three"], ["seed", "whole number"]),
    (["-p", "resume", "3"], ["resume", "true or false"]),
    (["--seed", "-1"], ["seed", "-1"]),
    (["--seed", "1", "-p", "seed", "2"], ["seed", "twice"]),
    (["-p", "overrides", "{oops"], ["JSON"]),
    (["--set", "steps"], ["--set", "FIELD=VALUE"]),
    (["--data", "nowhere"], ["data", "nowhere", "phantom"]),
    (["--data", "covid_ct"], ["did you mean 'covid-ct'"]),
    (["--device", "cuda:77"], ["device", "cuda:77"]),
    (["--device", "toaster"], ["device", "toaster"]),
    (["--checkpoint", "gone.safetensors"], ["checkpoint", "gone.safetensors"]),
    (["--out", "90_tiny.ipynb"], ["out", "is a file"]),
    (["--out", "90_tiny.ipynb/deeper"], ["out"]),
])
def test_bad_values_are_refused_before_anything_is_written(capsys, tiny, argv, words):
    line = refused(capsys, "run", tiny, *argv)
    assert all(word in line for word in words), line
    assert os.listdir(tiny.parent) == [tiny.name]


def test_source_that_was_not_downloaded(capsys, tiny, monkeypatch):
    monkeypatch.setenv("COVLIB_DATA", str(tiny.parent / "cache"))
    assert "covlib data get covid-ct" in refused(capsys, "run", tiny, "--data", "covid-ct")
    assert os.listdir(tiny.parent) == [tiny.name]


@pytest.mark.parametrize(("chapter", "setting", "words"), [
    ("05", "enet_steps=many", "enet_steps: must be a whole number"),  # of the study, not of the paper's own module
    ("05", "patches=9", "'patches' is not a setting"), ("08", "second=9", "did you mean 'seconds'")])
def test_settings_of_a_chapter_are_known_before_it_starts(capsys, tmp_path, monkeypatch, chapter, setting, words):
    monkeypatch.chdir(tmp_path)
    assert words in refused(capsys, "run", chapter, "--set", setting, "--out", "here")
    assert os.listdir(tmp_path) == []


def test_recorded_weights_that_do_not_fit_are_refused_before_anything_is_written(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "there are: profile cpu" in refused(capsys, "run", "03", "--checkpoint", "recorded", "--set", "epochs=5")
    assert "seed 77; there are" in refused(capsys, "run", "03", "--checkpoint", "recorded", "--seed", "77")
    assert "data nowhere" not in refused(capsys, "run", "03", "--checkpoint", "recorded", "--data", "nowhere")
    assert os.listdir(tmp_path) == []
    assert main(["results", "weights"]) == 0
    assert "03_dcgan profile cpu, virtual patients" in " ".join(capsys.readouterr().out.split())


def test_unknown_setting_of_a_paper_is_refused_before_anything_is_written(capsys, tmp_path, monkeypatch):
    if not any(chapter.name == "03_dcgan" for chapter in chapters.chapters()):
        pytest.skip("chapter 03 is not in the table of contents")
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, "run", "03", "--set", "stepz=3", "--out", "here")
    assert "stepz" in line and "valid are" in line
    assert os.listdir(tmp_path) == []


def test_unknown_chapter_and_no_notebook(capsys, tmp_path):
    assert "99_nothing" in refused(capsys, "run", "99_nothing")
    assert "does not exist" in refused(capsys, "run", tmp_path / "no.ipynb")
    (tmp_path / "text.ipynb").write_text("hello")
    assert "not a Jupyter notebook" in refused(capsys, "run", tmp_path / "text.ipynb")
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), tmp_path / "bare.ipynb")
    assert "parameters" in refused(capsys, "run", tmp_path / "bare.ipynb")


def _obey_permissions() -> None:
    """Take from root the right to read and write everything (Linux: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH)."""
    if os.geteuid() == 0:
        for capability in (1, 2):
            ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)


def _root_obeys_permissions() -> bool:
    """Whether that works here."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0)
        return subprocess.run(["ls", name], preexec_fn=_obey_permissions, capture_output=True).returncode != 0


@pytest.mark.parametrize("option", ["--data", "--checkpoint", "--out"])
def test_no_permission(tiny, option):
    if not _root_obeys_permissions():
        pytest.skip("this user may read everything")
    locked = tiny.parent / "locked"
    locked.mkdir()
    locked.chmod(0)
    done = subprocess.run([sys.executable, "-m", "covbook.cli", "run", tiny, "--out", "out", option, locked], text=True,
                          capture_output=True, preexec_fn=_obey_permissions)
    locked.chmod(0o755)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"covlib: error: {option[2:]}") and "locked" in done.stderr
    assert sorted(os.listdir()) == [tiny.name, "locked"] and os.listdir(locked) == []


def test_chapters_lists_the_table_of_contents(capsys):
    assert main(["chapters"]) == 0
    shown = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert shown == [Path(entry).name for entry in chapters.table_of_contents() if Path(entry).name[:2].isdigit()]


def test_find_by_number_and_word():
    for chapter in chapters.chapters():
        number, _, word = chapter.name.partition("_")
        assert {chapters.find(name).name for name in (chapter.name, number, number.lstrip("0"), word)} == {chapter.name}


def test_data_list(capsys):
    assert main(["data", "list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in sources.registry())
    assert main(["data", "list", "covid-ct"]) == 0
    assert "licence" in capsys.readouterr().out
    assert "not registered" in refused(capsys, "data", "list", "covid")


def test_data_check_says_what_is_wrong(capsys, tmp_path):
    (tmp_path / "covid").mkdir()
    (tmp_path / "normal").mkdir()
    for name in ("covid/a.png", "normal/b.png"):
        (tmp_path / name).write_text("not an image")
    assert main(["data", "check", str(tmp_path)]) in (1, 2)
    shown = capsys.readouterr()
    assert "a.png" in shown.out + shown.err
    assert "nowhere" in refused(capsys, "data", "check", tmp_path / "nowhere")


def test_data_phantom_is_read_back(capsys, tmp_path):
    folder = tmp_path / "made"
    assert main(["data", "phantom", str(folder), "-n", "2", "--shape", "12,48,48"]) == 0
    assert main(["data", "check", str(folder)]) == 0
    assert "2" in capsys.readouterr().out
    assert "not empty" in refused(capsys, "data", "phantom", folder)
    assert "--shape" in refused(capsys, "data", "phantom", tmp_path / "x", "--shape", "a,b")


def test_results(capsys, tmp_path):
    assert main(["results", "show"]) == 0
    assert capsys.readouterr().out.strip()
    assert "99_nothing" in refused(capsys, "results", "show", "99_nothing")
    assert "metrics.json" in refused(capsys, "results", "show", tmp_path)
    assert "metrics.json" in refused(capsys, "results", "record", tmp_path)


def test_bench(capfd, tmp_path):
    calls = []
    row = bench.timed("count", lambda: calls.append(1), repeats=4, warm_up=2)
    assert len(calls) == 6 and row["repeats"] == 4 and 0 <= row["median_s"] and set(bench.ROW) == set(row)
    assert "bench" in refused(capfd, "bench", "nonsense")
    file = tmp_path / "rows.json"
    assert main(["bench", "cli", "--json", str(file)]) == 0
    assert "covlib --help" in capfd.readouterr().out
    document = json.loads(file.read_text())
    assert {row["name"] for row in document["rows"]} == {"covlib --help", "covlib chapters"}
    assert document["machine"]["versions"]["covlib"]


# ---- values ----------------------------------------------------------------------------------------------------------


@given(st.one_of(st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False),
                 st.dictionaries(st.text(), st.integers(), max_size=3)))
def test_values_survive_being_typed(value):
    text = json.dumps(value) if isinstance(value, dict) else str(value)
    assert chapters.parse_value(text) == value


@pytest.mark.parametrize(("text", "value"), [("1e-3", 0.001), ("TRUE", True), ("null", None), ("[1, 2]", [1, 2]),
                                             ("scans/a b", "scans/a b"), ("007", 7), ("", "")])
def test_typed_values(text, value):
    assert chapters.parse_value(text) == value


def test_parameter_that_is_a_text_stays_one(tiny, capsys):
    (tiny.parent / "123").mkdir()
    assert "checkpoint" in refused(capsys, "run", tiny, "-p", "data", "123", "--checkpoint", "gone")


# ---- running a chapter -----------------------------------------------------------------------------------------------


def test_run_leaves_an_executed_notebook(capfd, tiny):
    environment = dict(os.environ)
    argv = ["run", str(tiny), "--out", "my {odd} folder", "--seed", "5", "--set", "steps=7", "-p", "resume", "false"]
    assert main(argv) == 0
    shown = capfd.readouterr()
    assert "done" in shown.out
    assert shown.err == ""
    out = tiny.parent / "my {odd} folder"
    assert sorted(os.listdir(out)) == ["90_tiny.ipynb", "result.txt"]
    assert (out / "result.txt").read_text() == "5 {'steps': 7}"
    notebook = nbformat.read(out / "90_tiny.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert "papermill" not in notebook.metadata and str(tiny.parent) not in str(notebook.cells)
    assert notebook.cells[-1].outputs[-1].data["text/plain"] == "'0'"
    assert not any(output.get("name") == "stderr" for output in notebook.cells[-1].outputs)
    assert environment == dict(os.environ)


def test_a_bar_counts_the_cells(tiny):
    environment = {name: value for name, value in os.environ.items() if name != "TQDM_DISABLE"}
    done = subprocess.run([sys.executable, "-m", "covbook.cli", "run", tiny, "--out", "out"], capture_output=True,
                          text=True, cwd=tiny.parent, env=environment)
    assert done.returncode == 0 and "Executing: 100%" in done.stderr


def test_failing_cell_ends_with_its_traceback(capsys, tiny):
    assert main(["run", str(tiny), "--set", "do=fail", "--out", "out"]) == 1
    shown = capsys.readouterr().err
    assert 'raise ValueError("the third cell broke")' in shown and "Traceback" in shown
    assert shown.splitlines()[-1].startswith("covlib: 90_tiny: code cell 3 failed with ValueError")
    assert os.listdir("out") == ["90_tiny.ipynb"]


def test_refusing_cell_ends_with_one_line_and_leaves_nothing(capsys, tiny):
    assert refused(capsys, "run", tiny, "--set", "do=refuse", "--out", "out") == (
        "covlib: error: x.png: is a text file; give an image\n")
    assert os.listdir(tiny.parent) == [tiny.name]


def test_dead_kernel_is_reported(capsys, tiny):
    assert main(["run", str(tiny), "--set", "do=die", "--out", "out"]) == 1
    assert "the kernel died" in capsys.readouterr().err.splitlines()[-1]


def test_disk_that_takes_no_more(tiny):
    """A limit on file size stands in for a full disk: the notebook's output does not fit."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    done = subprocess.run([sys.executable, "-m", "covbook.cli", "run", tiny, "--set", "do=talk", "--out", "out"],
                          capture_output=True, text=True, preexec_fn=limit, cwd=tiny.parent)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("covlib: error: out: cannot write to ")
    assert not any(name.endswith(".ipynb") for name in os.listdir("out"))


def test_published_notebook_keeps_its_defaults(tiny):
    assert main(["run", str(tiny), "--seed", "4", "--set", "steps=9", "--out", "out"]) == 0
    chapter = chapters.find(str(tiny))
    chapters.publish(Path("out/90_tiny.ipynb"), chapter)
    notebook = nbformat.read(tiny, as_version=4)
    nbformat.validate(notebook)
    assert chapters.parameters(notebook)["seed"] == 0
    tags = [tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])]
    assert chapters.RECORDED_TAG in tags and chapters.INJECTED_TAG not in tags
    note = next(cell for cell in notebook.cells if chapters.RECORDED_TAG in cell.metadata.get("tags", []))
    assert note.cell_type == "markdown" and "seed=4" in note.source and "'steps': 9" in note.source
    assert notebook.cells[-1].outputs
    assert main(["run", str(tiny), "--out", "again"]) == 0  # a later run drops the note
    again = nbformat.read("again/90_tiny.ipynb", as_version=4)
    assert not any(chapters.RECORDED_TAG in cell.metadata.get("tags", []) for cell in again.cells)


def test_publishing_keeps_text_that_was_edited_since_the_run(tiny):
    notebook = nbformat.read(tiny, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell("# As it was run"))
    nbformat.write(notebook, tiny)
    assert main(["run", str(tiny), "--out", "out"]) == 0
    notebook = nbformat.read(tiny, as_version=4)
    notebook.cells[0].source = "# As it was edited"
    nbformat.write(notebook, tiny)
    chapters.publish(Path("out/90_tiny.ipynb"), chapters.find(str(tiny)))
    published = nbformat.read(tiny, as_version=4)
    assert published.cells[0].source == "# As it was edited" and published.cells[-1].outputs


# ---- the house -------------------------------------------------------------------------------------------------------


def test_generated_parts_of_the_book_are_up_to_date():
    for name, text in status.generated().items():
        assert (status.GENERATED / name).read_text(encoding="utf-8") == text, f"{name}: run covlib book --refresh"


def test_requirements_are_pinned_and_agree(root):
    import tomllib

    def names(lines):
        return {line.split("==")[0].strip().lower().replace("_", "-"): line.split("==")[1].strip()
                for line in lines if "==" in line and not line.startswith("#")}

    pinned = names((root / "requirements.txt").read_text().splitlines())
    frozen = names((root / "constraints.txt").read_text().splitlines())
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert {name: frozen.get(name) for name in pinned} == pinned
    for line in project["dependencies"]:
        assert line.split(">=")[0].lower() in pinned, line


def test_make_help_names_every_target(root):
    done = subprocess.run(["make", "help"], cwd=root, capture_output=True, text=True, check=True)
    assert all(f"make {target}" in done.stdout for target in ("book", "html", "test", "lint", "clean"))


def test_missing_executed_chapter_is_named(tmp_path):
    from covbook.sphinx import build as book

    if not chapters.chapters():
        pytest.skip("no chapters in the table of contents")
    with pytest.raises(ConfigError, match="run the chapter first"):
        book.stage(tmp_path / "no_runs", tmp_path / "out")


def test_errors_of_every_part_of_the_library_are_the_users(root):
    assert all(chapters.is_user_error(name) for name in ("CovlibError", "DataError", "ConfigError", "TrainingError",
                                                         "RefusedError", "ManualStepsNeeded"))
    assert not chapters.is_user_error("ValueError") and not chapters.is_user_error("KeyError")
