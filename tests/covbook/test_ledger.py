"""The ledgers of all five papers: every claim measured or with its reason, what is computed, and what is said of it."""

import re
from itertools import combinations, product

import pytest
import yaml

from covbook import project, report, studies
from covbook.runner import chapters
from covbook.runner import studies as registered
from covlib.errors import DataError

NAMES = sorted(path.stem for path in project.REPORTED.glob("*.yaml"))
PAPERS = {name: report.load_reported(name) for name in NAMES}
COLLECTED = studies.load()


def entry(name: str, part: str, key: str) -> str:
    """All words of a contradiction or silence, as a reader sees them."""
    item = next(i for i in PAPERS[name][part] if i["id"] == key)
    return " ".join(item.get(k, "") for k in ("text", "computation", "choice"))


def values(name: str) -> dict:
    return {n["id"]: n["value"] for n in PAPERS[name]["numbers"]}


# -- claims -----------------------------------------------------------------------------------------------------------


def code_of(chapter: str) -> str:
    """The chapter's own code: its notebook's cells and its folder or module beside it."""
    name = chapter.split("_", 1)[1]
    cells = chapters.read_notebook(project.ROOT / "book" / f"{chapter}.ipynb")["cells"]
    beside = project.ROOT / "book" / "covbook" / "chapters"
    files = [*(beside / name).glob("*.py"), *beside.glob(f"{name}.py")]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code") + "".join(
        file.read_text() for file in files)


def in_a_study(claim: dict, chapter: str) -> bool:
    """Whether a study measures the claim: a collected one, or an arm that is registered."""
    if report.measured_by_studies(claim, chapter, COLLECTED):
        return True
    for study in registered.known().values():
        for arm in study.arms("paper") if study.chapter == chapter and study.number else ():
            head, _, tail = study.number.format(arm=arm.name, metric="\0").partition("\0")
            if str(claim.get("number", "")).startswith(head) and str(claim.get("number", "")).endswith(tail):
                return True
    return False


def unanswered(paper: dict) -> list[str]:
    """Claims that nothing measures and that do not say why not."""
    results, code = report.load_results(paper["chapter"]), code_of(paper["chapter"])
    return [claim["id"] for claim in paper["claims"]
            if not ("unavailable" in claim or "not_attempted" in claim or f'"{claim["metric"]}"' in code
                    or any(m["value"] is not None for r in results if (m := report.find_metric(r, claim)))
                    or in_a_study(claim, paper["chapter"]))]


@pytest.mark.parametrize("name", NAMES)
def test_every_claim_is_measured_or_says_why_not(name):
    assert not unanswered(PAPERS[name])
    claim = {"id": "new", "text": "Better.", "where": "Section 1", "metric": "never_taken", "scope": "run"}
    assert unanswered({**PAPERS[name], "claims": [*PAPERS[name]["claims"], claim]}) == ["new"]


@pytest.mark.parametrize("name", NAMES)
def test_measurements_name_claims_that_are_there(name):
    ids = {claim["id"] for claim in PAPERS[name]["claims"]}
    results = report.load_results(PAPERS[name]["chapter"])
    named = {(m["paper"] or {}).get("claim") for r in results for m in r["metrics"]}
    assert named - {None} <= ids
    in_code = set(re.findall(r'"claim": "(\w+)"', code_of(PAPERS[name]["chapter"])))
    assert in_code <= ids


def test_a_claim_without_a_run_shows_what_a_study_measured():
    def document(metrics: list[dict]) -> dict:
        runs = [{"seed": k, "metrics": m} for k, m in enumerate(metrics)]
        return {"study": "some-table", "chapter": "03_dcgan", "number": "table_{arm}_{metric}", "overrides": {},
                "data": {"kind": "phantom", "name": "phantom"}, "profile": "cpu", "file": "some.json",
                "arms": [{"name": "a-b", "runs": runs},
                         {"name": "c", "runs": [{"seed": 0, "metrics": {"dice": 0.25}}] * 2}]}

    both = document([{"dice": 0.5}, {"dice": 0.7}])
    claim = {"id": "x", "metric": "dice", "number": "table_a-b_dice"}
    assert report.measured_by_studies(claim, "03_dcgan", [both]) == [(both, [0.5, 0.7])]
    assert report.measured_by_studies(claim, "04_global_local", [both]) == []
    own = {"id": "y", "metric": "d", "study": {"name": "some-table", "value": "minus(a_b.dice, c.dice)"}}
    assert report.measured_by_studies(own, "03_dcgan", [both])[0][1] == pytest.approx([0.25, 0.45])
    cell = report._studied({**claim, "scale": 100, "range": [0, 1]}, {"unit": "%"}, "03_dcgan", [both])
    assert cell.startswith("60 % (50 to 70)") and "studies/some.json" in cell and "study of 2 seeds" in cell


# -- what is computed -------------------------------------------------------------------------------------------------


def test_formulas_are_computed_of_the_papers_numbers(tmp_path):
    paper = yaml.safe_load((project.REPORTED / "cyclegan.yaml").read_text())
    skew = next(k for k, c in enumerate(paper["contradictions"]) if c["id"] == "skews_agree")
    changed = next(n for n in paper["numbers"] if n["id"] == "train_covid")
    changed["value"] = 200
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump(paper))
    assert "4,580 images" in report.load_reported(str(path))["contradictions"][skew]["text"]  # 22.9 x 200
    paper["contradictions"][skew]["text"] = "The skew is {nothing / 2}."
    path.write_text(yaml.safe_dump(paper))
    with pytest.raises(DataError, match=rf"other.yaml: field contradictions\[{skew}\].text: .*'nothing'"):
        report.load_reported(str(path))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_left_to_be_filled_in(name):
    for part in ("contradictions", "silences"):
        assert not [i["id"] for i in PAPERS[name][part] if re.search(r"[{}–]", entry(name, part, i["id"]))]


# What each of the entries must say, computed here a second time.
WORDS = [
    ("cyclegan", "skews_agree", [f"{4122:,} pneumonia", f"{16537 + 4122:,}, not 21,295",
                                 f"{4122 / 180:.2f} (stated 22.9)", f"{4122 / 4302:.3f} (0.95)",
                                 f"{4122 / 20839:.3f} (0.19)", f"{16537 / 20839:.3f} (0.79)"]),
    ("cyclegan", "split_shares", [f"{475800 / 6015:.1f} %", f"{125700 / 6015:.1f} %"]),
    ("cyclegan", "figure_8e", ["G_NC", "Table 2"]),
    ("cosingan", "enhanced_below", ["90.7 and 73.4", "3 of four", "4.7 points"]),
    ("global_local", "pix2pix_psnr", ["26.56 and 26.56 dB", f"{28.17 - 26.89:.2f}"]),
    ("global_local", "three_generators", ["0.0325", "0.0327"]),
    ("global_local", "desum_half", [f"{85.87 - 84.60:.2f} points", f"{0.39 + 0.31:.2f}"]),
    ("global_local", "fid_orders", ["0.0389", "0.0430", "0.4812", "0.4283"]),
    ("global_local", "memory", ["16 slices", "48 GB"]),
    ("dcgan", "below_the_base_rate", ["349 of the 812", f"{34900 / 812:.1f} %"]),
    ("dcgan", "labels_by_a_judge", ["0.89", "11 of 100"]),
    ("cgan3d", "psnr_against_ssim", ["15.08 dB with SSIM 0.95", "31.02 dB with 0.91", f"{10 ** 1.594:.0f} times"]),
    ("cgan3d", "noisy_ssim", ["27.29", f"{(1 / 6) / (1 / 6 + 10 ** -2.729):.3f}"]),
    ("cgan3d", "tall_scans", ["300 x 3.5 mm = 1.05 m"]),
    ("cgan3d", "memory", [f"{50 * 32**3:,} voxels", "62.5 GB", "there are 22"]),
    ("cgan3d", "guessing", ["38 to 62 %", "same 20", "30 to 70 %"]),
    ("cgan3d", "references", ["reference 8", "reference 13"]),
]


@pytest.mark.parametrize(("name", "key", "words"), WORDS, ids=[f"{n}-{k}" for n, k, _ in WORDS])
def test_what_an_entry_says(name, key, words):
    said = entry(name, "contradictions", key)
    assert not [w for w in words if w not in said], said


def test_silences_that_stand_in_for_what_is_not_said():
    assert "73 test slices or of their 10,220" in entry("global_local", "silences", "table2_images")
    assert "left out" in entry("global_local", "silences", "pleural")
    assert "20,672" in entry("cyclegan", "silences", "normal")
    assert "Adadelta" in entry("cyclegan", "silences", "adadelta")
    assert "-2" in entry("cosingan", "silences", "no_condition")


# -- our own entries, proved ------------------------------------------------------------------------------------------

SETS, NETS = ("sin_ts", "o_sts", "rc_sts", "two_ts", "if_sts", "oc_ts"), ("resnet18", "resnet50")


def test_all_rates_of_tables_2_and_3_are_whole_counts():
    """For each entry hits among 410 positives and 264 negatives that give sensitivity, specificity and accuracy."""
    v, whole = values("cosingan"), 0
    for table, name, net in product((2, 3), SETS, NETS):
        rates = [v[f"table{table}_{name}_{net}_{rate}"] for rate in ("sensitivity", "specificity", "accuracy")]
        near = lambda count, of, rate: abs(count / of - rate) <= 0.00051
        hits = [(a, b) for a in range(411) if near(a, 410, rates[0]) for b in range(265) if near(b, 264, rates[1])]
        whole += any(near(a + b, 674, rates[2]) for a, b in hits)
    assert whole == 24 and "All 24 entries are whole counts" in entry("cosingan", "contradictions", "centre")


def test_which_intervals_of_the_synthetic_sets_are_apart():
    v, apart = values("cosingan"), []
    ends = lambda *key: [v["_".join([*key, end])] for end in ("low", "high")]
    for table, net, rate in product(("table2", "table3"), NETS, ("sensitivity", "specificity", "accuracy")):
        for a, b in combinations(("o_sts", "rc_sts", "if_sts"), 2):
            (low, high), (bottom, top) = ends(table, a, net, rate), ends(table, b, net, rate)
            if high < bottom or top < low:
                apart.append((table, net, rate, a, b))
    assert apart == [("table3", "resnet50", rate, "o_sts", "rc_sts") for rate in ("sensitivity", "specificity")]
    assert "two pairs are apart" in entry("cosingan", "contradictions", "if_better")


@pytest.mark.parametrize("name", NAMES)
def test_settings_that_a_ledger_names_are_the_paper_profile_s(name):
    from pkgutil import resolve_name

    settings = resolve_name(chapters.CONFIGS[PAPERS[name]["chapter"]]).for_profile("paper").as_dict()
    stated = {n["field"]: n["value"] for n in PAPERS[name]["numbers"] if "field" in n}
    assert stated and stated.keys() <= settings.keys()
    assert {key: settings[key] for key in stated} == stated
