"""The ledger: the transcription of the paper, verdicts, recorded runs, and the table of the two."""

import copy
import json
import subprocess
import sys
from itertools import pairwise

import pytest
import yaml
from documents import comparable

from covbook import project, prose, report
from covbook.tables import Box, Table
from covlib.errors import DataError

METRIC = {"name": "positive_rate", "value": 0.41, "unit": "", "n": 10, "interval": [0.36, 0.46], "how": "Student t",
          "paper": {"claim": "positive_rate"}}
RUN = {"schema": 1, "chapter": "03_dcgan", "profile": "paper", "seed": 0, "device": "cpu", "config": None,
       "overrides": {},
       "data": {"kind": "source", "name": "covid-ct", "fingerprint": "", "images": 746, "patients": 300, "classes": {},
                "split": None, "notes": []}, "weights": {}, "versions": {"python": "3.11", "covlib": "0"},
       "git_commit": None, "metrics": [METRIC], "notes": [], "figures": [],
       "times": {"started": "now", "wall_seconds": 90.0, "stage_seconds": {}}, "paths": {"out": "/home/someone/out"}}
CLAIM = {"id": "positive_rate", "text": "About 40 %.", "where": "Section IV", "number": "positive_rate",
         "metric": "positive_rate", "scale": 100, "tolerance": 5, "scope": "run", "sources": ["covid-ct"]}
NUMBER = {"id": "positive_rate", "what": "share", "value": 40, "unit": "%", "where": "Section IV", "kind": "result"}


def test_checking_a_document_does_not_compile_grammars_it_needs_not():
    code = "import sys; from covbook import report; report.load_reported('cyclegan'); " \
           "import jsonschema; print([m for m in ('lark', 'rfc3987_syntax') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=project.ROOT)
    assert done.stdout.strip() == "[]"


def run_with(value=0.41, interval=(0.36, 0.46), *, data=None, **changes):
    run = copy.deepcopy(RUN) | changes
    run["metrics"][0] |= {"value": value, "interval": None if interval is None else list(interval)}
    run["data"] |= data or {}
    return run


@pytest.mark.parametrize("data, words", [({"images": 745}, "745 images, where the paper has 746"),
                                         ({"patients": 215}, "215 patients, where the paper has 216"),
                                         ({"images": None}, "0 images, where the paper has 746")])
def test_a_run_that_saw_less_than_the_paper_states_is_never_its_experiment(data, words):
    saw = {"images": 746, "patients": 216}
    assert report.judge(CLAIM, NUMBER, run_with(), saw).word == "reproduced"
    verdict = report.judge(CLAIM, NUMBER, run_with(data=data), saw)
    assert verdict.word == "not attempted" and verdict.reason == f"{words}: not the paper's experiment"
    paper = {"numbers": [NUMBER | {"id": "n", "value": 746}, NUMBER], "claims": [CLAIM], "saw": {"images": "n"}}
    row, = report.compare(paper, run_with(data=data))  # the ledger's own statement is what counts
    assert (row["verdict"].word == "reproduced") == ("patients" in data)


# -- what the paper says ----------------------------------------------------------------------------------------------


def test_the_transcription_holds_the_papers_numbers():
    paper = report.load_reported("dcgan")
    values = {n["id"]: n["value"] for n in paper["numbers"]}
    assert values["positive_rate"] == 40 and values["judge_accuracy"] == 0.89 and values["projection"] == 150528
    assert [values[f"{part}_parameters"] for part in ("generator", "discriminator", "model")] == [30, 5, 35]
    assert (values["covid_images"], values["covid_patients"], values["noncovid_images"]) == (349, 216, 463)
    assert values["discriminator_shape_5"] == [3027, 7, 7] and values["generator_shape_1"] == [3072, 7, 7]
    assert (values["batch_size"], values["learning_rate"], values["beta1"], values["epochs"]) == (16, 2e-4, 0.5, 3000)
    assert (values["sets"], values["set_size"]) == (10, 100)
    assert all(n["where"] for n in paper["numbers"])


def test_the_transcriptions_own_arithmetic():
    """The computation given for the contradictions, from the transcribed shapes alone."""
    values = {n["id"]: n["value"] for n in report.load_reported("dcgan")["numbers"]}
    up = [values[f"generator_shape_{k}"][0] for k in range(1, 6)] + [values["generator_output"][0]]
    c, h, w = values["generator_shape_1"]
    assert c * h * w == values["projection"] == 3 * 224 * 224
    assert all(a == 2 * b for a, b in pairwise(up[:-1]))
    dense = (values["latent"] + 1) * values["projection"]
    convolutions = 16 * sum(a * b for a, b in pairwise(up))
    assert round(dense / 1e6, 1) == 15.2 and round(convolutions / 1e6, 1) == 100.3
    assert dense + convolutions > 3 * 30e6 and convolutions > 20 * 5e6
    # halving all widths k times never brings both counts to what is stated
    for k in range(1, 6):
        widths = [a / 2**k for a in up[:-1]] + [3]
        conv = 16 * sum(a * b for a, b in pairwise(widths))
        generator, discriminator = 101 * widths[0] * 49 + conv, conv + widths[0] * 49
        assert not (abs(generator - 30e6) < 5e6 and abs(discriminator - 5e6) < 0.5e6)


def test_config_fields_named_in_the_ledger_exist_and_agree():
    from covlib.papers.dcgan.method import Config

    settings = Config.for_profile("paper").as_dict()
    stated = {n["field"]: n["value"] for n in report.load_reported("dcgan")["numbers"] if "field" in n}
    assert stated.keys() <= settings.keys()
    assert {name: settings[name] for name in stated} == stated


def test_claims_name_registered_sources():
    from covbook.datasets.sources import registry

    for claim in report.load_reported("dcgan")["claims"]:
        assert set(claim.get("sources", ())) <= set(registry())


@pytest.mark.parametrize("change, words", [
    (lambda p: p["numbers"][0].pop("where"), "field numbers[0]: 'where' is a required property"),
    (lambda p: p["numbers"][1].update(kind="guess"), "field numbers[1].kind"),
    (lambda p: p["claims"][0].update(number="nothing"), "field claims[0].number: 'nothing' is not an id among numbers"),
    (lambda p: p["numbers"].append(dict(p["numbers"][0])), "field numbers: id 'positive_rate' occurs twice"),
    (lambda p: p.update(schema=2), "field schema"),
    (lambda p: p["claims"][0].update(verdict="reproduced"), "field claims[0]"),
])
def test_a_bad_transcription_names_file_and_field(tmp_path, change, words):
    paper = yaml.safe_load((project.REPORTED / "dcgan.yaml").read_text())
    change(paper)
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(paper))
    with pytest.raises(DataError) as error:
        report.load_reported(str(path))
    assert str(error.value).startswith("bad.yaml: ") and words in str(error.value) and "\n" not in str(error.value)


def test_a_transcription_is_read_anew_where_it_changed_and_is_nobodys_to_spoil(tmp_path):
    path = tmp_path / "paper.yaml"
    path.write_text((project.REPORTED / "dcgan.yaml").read_text())
    first = report.load_reported(str(path))
    first["numbers"].clear()
    assert report.load_reported(str(path)) == report.load_reported("dcgan") != first
    paper = yaml.safe_load(path.read_text())
    paper["numbers"][0]["value"] = 12.5
    path.write_text(yaml.safe_dump(paper))
    assert report.load_reported(str(path))["numbers"][0]["value"] == 12.5


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "x.yaml").write_text("a: [1")
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(DataError, match="x.yaml: not valid YAML"):
        report.load_reported(str(tmp_path / "x.yaml"))
    with pytest.raises(DataError, match="no such file of reported numbers; there are .*dcgan"):
        report.load_reported("dcgam")
    with pytest.raises(DataError, match="metrics.json: not valid JSON"):
        report.load_metrics(tmp_path / "metrics.json")
    with pytest.raises(DataError, match="does not exist"):
        report.load_metrics(tmp_path / "none.json")


# -- verdicts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run, word", [
    (run_with(0.41), "reproduced"), (run_with(0.449), "reproduced"), (run_with(0.35, None), "reproduced"),
    (run_with(0.47, (0.38, 0.56)), "within interval"), (run_with(0.71, (0.66, 0.76)), "differs"),
    (run_with(0.71, None), "differs"), (run_with(None, None), "not attempted"),
    (run_with(metrics=[dict(METRIC, name="a", paper=None)]), "not attempted"), (None, "not attempted"),
])
def test_verdicts_of_a_faithful_run(run, word):
    verdict = report.judge(CLAIM, NUMBER, run)
    assert verdict.word == word and verdict.reason and str(verdict).endswith(word)


@pytest.mark.parametrize("value, interval", [(0.40, None), (0.5, (0.3, 0.7)), (0.9, (0.8, 0.95))])
@pytest.mark.parametrize("changes, words", [
    ({"profile": "cpu"}, "covid-ct, profile cpu"), ({"profile": "gpu"}, "profile gpu"),
    ({"profile": "smoke"}, "profile smoke"), ({"overrides": {"epochs": 3}}, "settings changed"),
    ({"data": {"kind": "phantom", "name": "phantom"}}, "virtual patients, profile paper"),
    ({"data": {"kind": "folder", "name": "ct_slices"}}, "own data (ct_slices)"),
    ({"data": {"kind": "source", "name": "mosmeddata"}}, "mosmeddata"),
])
@pytest.mark.parametrize("scope", ["run", "architecture"])
def test_nothing_but_the_papers_experiment_is_a_reproduction(value, interval, changes, words, scope):
    run = run_with(value, interval, **changes)
    verdict = report.judge(CLAIM | {"scope": scope}, NUMBER, run)
    other_data = "data" in changes
    if scope == "run":
        assert verdict.word == "not attempted" and words in verdict.reason
    elif not other_data:
        assert verdict.word == ("differs" if value == 0.9 else "not attempted")


def test_a_difference_that_follows_from_the_layers_counts_at_every_profile():
    claim = CLAIM | {"scope": "architecture", "scale": 1e-6, "tolerance": 5}
    number = NUMBER | {"value": 30, "unit": "million", "approximate": True}
    verdict = report.judge(claim, number, run_with(115_500_000, None, profile="smoke"))
    assert verdict.word == "differs" and "116 million against about 30 million" in verdict.reason


def test_a_difference_says_what_was_counted():
    claim = CLAIM | {"scope": "architecture", "counted": "in a mean scan"}
    assert report.judge(claim, NUMBER, run_with(768, None)).reason.endswith(", counted in a mean scan")


def test_reasons_given_in_the_ledger():
    assert report.judge(CLAIM | {"unavailable": "never published"}, NUMBER, run_with()).word == "data unavailable"
    no_number = {k: v for k, v in CLAIM.items() if k != "number"} | {"not_attempted": "no number in the paper"}
    assert report.judge(no_number, None, run_with()) == report.Verdict("not attempted", "no number in the paper")


def test_a_measurement_is_found_by_claim_before_name():
    run = run_with(metrics=[dict(METRIC, paper=None, value=0.1), dict(METRIC, name="other", value=0.4)])
    assert report.find_metric(run, CLAIM)["name"] == "other"


# -- recorded runs and tables -----------------------------------------------------------------------------------------


def write(folder, name, run):
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(json.dumps(run))
    return path


def test_recording_strips_paths_and_names_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(project, "RESULTS", tmp_path / "results")
    source = write(tmp_path / "out", "metrics.json", run_with(seed=3))
    kept = report.record(source.parent)
    assert kept.name == "03_dcgan-covid_ct-paper-seed3.json"
    found = report.load_metrics(kept)
    assert found["paths"] == {} and "someone" not in kept.read_text()
    assert comparable(found) == comparable(run_with(seed=3))
    other = write(tmp_path / "out", "b.json", run_with(overrides={"epochs": 5}))
    changed = report.record(other)
    assert changed.name.startswith("03_dcgan-covid_ct-paper-seed0-") and len(changed.stem.split("-")[-1]) == 6


def test_a_result_that_does_not_fit_the_schema_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(project, "RESULTS", tmp_path / "results")
    path = write(tmp_path / "out", "metrics.json", run_with(profile="fast"))
    with pytest.raises(DataError, match="field profile"):
        report.record(path)
    assert not (tmp_path / "results").exists()


def test_committed_results_are_valid_and_free_of_paths():
    for result in report.load_results():
        assert result["paths"] == {} and result["file"].startswith(result["chapter"])


def test_results_of_a_chapter(tmp_path):
    write(tmp_path, "03_dcgan-a.json", run_with())
    write(tmp_path, "02_judging-a.json", run_with(chapter="02_judging"))
    assert [r["file"] for r in report.load_results("03_dcgan", tmp_path)] == ["03_dcgan-a.json"]
    assert len(report.load_results(folder=tmp_path)) == 2 and report.load_results(folder=tmp_path / "none") == []


def test_the_table_of_the_paper_beside_ours(tmp_path):
    virtual = {"data": {"kind": "phantom", "name": "phantom"}, "profile": "cpu"}
    for seed, value in enumerate((0.70, 0.74, 0.72)):
        write(tmp_path, f"03_dcgan-phantom-cpu-seed{seed}.json", run_with(value, (0.6, 0.8), seed=seed, **virtual))
    results = report.load_results("03_dcgan", tmp_path)
    table = report.paper_beside_ours("03_dcgan", run_with(0.71, (0.66, 0.76), **virtual), results)
    assert table.columns == ["what", "paper", "this run", "recorded runs", "verdict"]
    row = table.rows[0]
    assert row[1].startswith("about 40 %") and "Section IV" in row[1]
    assert row[2].startswith("71 % [66, 76]") and "n = 10" in row[2] and "Student t" in row[2]
    assert row[3].startswith("72 % (70 to 74) (virtual patients, cpu, seeds [0](../data/results/03_dcgan-phantom")
    assert row[4].startswith("**○ not attempted**\nvirtual patients, profile cpu")
    assert "reproduced" not in str(table)
    assert '<a href="../data/results/03_dcgan-phantom-cpu-seed2.json">2</a>' in table._repr_html_()
    alone = report.paper_beside_ours("03_dcgan", None, [])
    assert {r[4].split("\n")[0] for r in alone.rows} == {"**○ not attempted**"}


def test_many_claims_that_nothing_measured_come_last_behind_a_click():
    run = run_with(chapter="05_cosingan")
    claims = [claim["text"] for claim in report.load_reported("cosingan")["claims"]]
    table = report.paper_beside_ours("05_cosingan", run, [])
    empty = [row[4].endswith(report.UNMEASURED) and row[2] == row[3] == "–" for row in table.rows]
    assert table.folded == sum(empty) >= report.FOLDED_FROM and empty == sorted(empty)
    assert sorted(row[0] for row in table.rows) == sorted(claims)
    html = table._repr_html_()
    assert html.index("<details") < html.index("ResNet-18 trained on Sin-TS") and f"{table.folded} more" in html
    without = report.paper_beside_ours("05_cosingan", None, [])  # no run at all: everything stands as the paper has it
    assert without.folded == 0 and [row[0] for row in without.rows] == claims


def test_runs_on_own_data_go_by_their_name_which_the_note_explains_once():
    folder = {"data": {"kind": "folder", "name": "ct_slices"}, "profile": "cpu"}
    runs = [run_with(0.5, None, **folder) | {"file": "a.json"},
            run_with(0.6, None, **folder, overrides={"epochs": 3}) | {"file": "b.json"},
            run_with(0.7, None, **folder, overrides={"epochs": 3, "width": 8, "sets": 2}) | {"file": "c.json"}]
    table = report.paper_beside_ours("03_dcgan", run_with(0.71, None, **folder), runs)
    lines = table.rows[0][3].replace("../data/results/", "").split("\n")
    assert lines == ["50 % (ct_slices, cpu, seed [0](a.json))", "60 % (ct_slices, cpu, epochs = 3, seed [0](b.json))",
                     "70 % (ct_slices, cpu, settings changed, seed [0](c.json))"]
    assert table.note.endswith(" Own data, from a folder: ct_slices.")
    assert "Own data" not in report.paper_beside_ours("03_dcgan", None, []).note


def test_intervals_end_where_the_value_cannot_go(tmp_path):
    virtual = {"data": {"kind": "phantom", "name": "phantom"}, "profile": "cpu"}
    runs = [run_with(value, None, seed=seed, **virtual) | {"file": f"{seed}.json"}
            for seed, value in enumerate((0.02, 0.04, 0.11))]
    table = report.paper_beside_ours("03_dcgan", run_with(0.02, (-0.03, 0.07), **virtual), runs)
    assert "cut" in table.note
    assert table.rows[0][3].startswith(("6 % (2 to 11)", "5.7 % (2.0 to 11.0)"))  # of seeds: a spread, no interval
    assert table.rows[0][2].startswith("2 % [0, 7]")
    claim = {**CLAIM, "scale": 1.0, "range": [0, None]}
    cell = lambda claim: report._recorded(claim, None, [run_with(0.02, (-0.03, 0.17), **virtual) | {"file": "0.json"}])
    assert cell(claim).startswith("0.02 [0.00, 0.17]")
    assert cell({**claim, "range": [None, 0.1]}).startswith(("0.02 [−0.03, 0.10]", "0.020 [−0.030, 0.100]"))
    del claim["range"]
    assert cell(claim).startswith("0.02 [−0.03, 0.17]")
    assert report._recorded(claim, None, runs).startswith("0.06 (0.02 to 0.11)")


@pytest.mark.parametrize("name", sorted(path.stem for path in project.REPORTED.glob("*.yaml")))
def test_claims_state_the_range_of_what_they_measure_and_recorded_values_keep_to_it(name):
    paper = report.load_reported(name)
    results = report.load_results(paper["chapter"])
    for claim in paper["claims"]:
        number = next((n for n in paper["numbers"] if n["id"] == claim.get("number")), {})
        unbounded = claim["scope"] == "architecture" or number.get("unit") == "dB" or claim["metric"] == "umap_shown"
        assert ("range" in claim) != unbounded, claim["id"]
        if unbounded:
            continue
        low, high = ((-1e9, 1e9)[k] if end is None else end for k, end in enumerate(claim["range"]))
        found = [report.find_metric(result, claim) for result in results]
        assert low < high and all(low <= m["value"] <= high for m in found if m and m["value"] is not None), claim["id"]


def test_smoke_runs_stand_in_tables_only_where_there_is_no_other():
    virtual = {"data": {"kind": "phantom", "name": "phantom"}}
    runs = [run_with(profile="smoke"), run_with(profile="cpu", **virtual), run_with(profile="smoke", **virtual)]
    assert report.telling(runs) == runs[:2]
    assert len(report.measurements_table("03_dcgan", {"positive_rate": "rate"}, runs).rows) == 2


def test_what_follows_from_the_layers_is_said_once():
    count = {"name": "generator_parameters", "value": 115_494_531, "unit": "", "n": None, "interval": None, "how": "",
             "paper": {"claim": "generator_parameters"}}
    runs = [run_with(115_494_531, None, seed=seed, metrics=[dict(count)]) | {"file": f"{seed}.json"}
            for seed in range(3)]
    rows = {row[0]: row[3] for row in report.paper_beside_ours("03_dcgan", None, runs).rows}
    assert "115 million ([all 3 recorded runs](../data/results/0.json))" in rows.values()


def test_tables_of_open_points():
    assert any("3027" in row[0] for row in report.open_points("dcgan").rows)
    assert any("0.02" in row[1] for row in report.open_points("dcgan", "silences").rows)


def test_tables_escape_what_they_are_given():
    table = Table(["a", "n"], [["x < y | `z` **b** [l](u.json)", "1\n2"]], title="T", note="N", right=("n",))
    html, text = table._repr_html_(), table._repr_markdown_()
    assert "x &lt; y | <code>z</code> <strong>b</strong>" in html and '<a href="u.json">l</a>' in html
    assert "1<br>2" in html
    assert "x < y \\| `z`" in text and "| ---: |" in text and text.startswith("**T**")
    assert "admonition" in Box("B", table)._repr_html_() and "**B**" in str(Box("B", table))


def test_measurements_of_recorded_runs_stand_in_rows_by_profile_and_seed():
    runs = [run_with(seed=1), run_with(0.97, (0.95, 0.99), seed=0, overrides={"first_norm": True}),
            run_with(seed=0, data={"kind": "phantom", "name": "phantom"})]
    table = report.measurements_table("03_dcgan", {"positive_rate": "rate", "missing": "nothing"}, runs)
    assert table.columns == ["data", "profile", "seed", "changed", "recorded", "rate", "nothing"]
    assert [row[:4] for row in table.rows] == [["virtual patients", "paper", "0", "–"],
                                               ["covid-ct", "paper", "1", "–"],
                                               ["covid-ct", "paper", "0", "first_norm = True"]]
    assert [row[5] for row in table.rows] == ["0.41 [0.36, 0.46]", "0.41 [0.36, 0.46]", "0.97 [0.95, 0.99]"]
    assert all(row[6] == "–" and row[4] == "now" for row in table.rows)
    same = [run_with(v, None, seed=k) for k, v in enumerate((0.5, 0.61, 0.7))]
    table = report.measurements_table("03_dcgan", {"positive_rate": "rate", "missing": "nothing"}, [*runs, *same],
                                      spread=True)
    assert [row[2] for row in table.rows] == ["0", "0", "1", "1", "2", "mean ± s.d.", "0"]
    assert table.rows[5] == ["covid-ct", "paper", "mean ± s.d.", "–", "", "**0.555 ± 0.127**", "–"]


@pytest.mark.parametrize("chapter", ["03_dcgan", "04_global_local", "05_cosingan", "07_cgan3d"])
def test_a_published_page_sets_its_own_run_beside_the_paper(chapter):
    cells = json.loads((project.ROOT / "book" / f"{chapter}.ipynb").read_text())["cells"]
    run = prose.page_run(chapter)
    shown = next(cell for cell in cells if "report.paper_beside_ours(" in "".join(cell["source"]))
    text = "".join(shown["outputs"][-1]["data"]["text/plain"])
    ours = str(report.paper_beside_ours(chapter, run))
    assert text.strip() == ours.strip(), "make the page's table anew from the recorded runs"
