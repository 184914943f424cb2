"""Verdicts of three kinds: what is proven without a run, which way an effect points, what was reproduced."""

import copy
import json

import pytest
import yaml

from covbook import kinds, project, prose, report, studies
from covbook.arithmetic import Measured
from covbook.reported import load_reported
from covlib.errors import DataError

NAMES = kinds.names()
FOUND = {name: {one.claim["id"]: one for one in kinds.judged(name)} for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_every_claim_has_a_verdict_of_each_kind_or_says_why_not(name):
    claims = load_reported(name)["claims"]
    assert list(FOUND[name]) == [claim["id"] for claim in claims]
    for one in FOUND[name].values():
        for kind in kinds.KINDS:
            assert set(one.words(kind).values()) <= set(kinds.WORDS[kind])
        assert one.arithmetic.reason and one.reproduction.reason and (one.effects or one.untested)
        claim = one.claim
        told = "direction" in claim or "no_direction" in claim or "number" in claim or claim["scope"] == "architecture"
        assert told, f"{claim['id']}: says neither what its direction is nor why it has none"
        assert not ("direction" in claim and "no_direction" in claim)


def test_words_of_the_three_kinds_cannot_be_mixed_up():
    used = [set(words) for words in kinds.WORDS.values()]
    assert not used[0] & used[1] and not used[0] & used[2] and not used[1] & used[2]


def test_arithmetic_is_that_of_the_papers_numbers():
    assert FOUND["dcgan"]["generator_parameters"].arithmetic.word == "contradicted"
    assert FOUND["global_local"]["receptive_field"].arithmetic.word == "holds"
    cyclegan = {key: one.arithmetic for key, one in FOUND["cyclegan"].items()}
    assert cyclegan["vgg16_normal_real"].word == "holds"  # (46 - 37) / 46
    assert cyclegan["vgg16_pneumonia_own"].word == "contradicted" and f"{2200 / 46:.2f} %" in \
        cyclegan["vgg16_pneumonia_own"].reason
    assert "24 false negatives of 46" in cyclegan["vgg16_pneumonia_own"].reason


def test_a_check_follows_the_number_and_an_unknown_contradiction_is_refused():
    paper = load_reported("cyclegan")
    claim = next(c for c in paper["claims"] if c["id"] == "vgg16_normal_real")
    full = report.Verdict("not attempted", "")
    next(n for n in paper["numbers"] if n["id"] == "t1_vgg16_real_fn")["value"] = 36
    assert kinds._arithmetic(claim, paper, full).word == "contradicted"
    with pytest.raises(DataError, match="cyclegan.yaml: claim x: .* 'nowhere' is not an id"):
        kinds._arithmetic({"id": "x", "scope": "run", "arithmetic": {"contradictions": ["nowhere"]}}, paper, full)


def run(values: dict, *, seed=0, data="phantom", config=None) -> dict:
    """As much of a run's document as a direction needs."""
    metrics = [{"name": k, "value": v[0], "interval": v[1], "n": 9, "unit": "", "how": "", "paper": None}
               for k, v in values.items()]
    return {"chapter": "03_dcgan", "seed": seed, "profile": "cpu", "config": config or {"width": 1}, "overrides": {},
            "metrics": metrics, "times": {"wall_seconds": 1.0}, "file": f"{data}-{seed}.json",
            "data": {"kind": "phantom" if data == "phantom" else "folder", "name": data, "images": 1, "patients": 1}}


@pytest.mark.parametrize(("value", "interval", "word"), [
    (0.2, [0.1, 0.3], "the paper's way"), (-0.2, [-0.3, -0.1], "the other way"), (0.2, [-0.1, 0.5], "open"),
    (0.2, None, "sign only")])
def test_a_direction_needs_the_whole_interval(value, interval, word):
    effect = kinds._on("virtual patients", "gain", 1, [run({"gain": (value, interval)})], [], None)
    assert effect.word == word and (f"+{value:.1f}" in str(effect) or value < 0)
    turned = kinds._on("virtual patients", "gain", -1, [run({"gain": (value, interval)})], [], None)
    assert turned.word == {"the paper's way": "the other way", "the other way": "the paper's way"}.get(word, word)


def test_without_an_interval_of_its_own_an_effect_has_that_over_seeds_of_equal_settings():
    alike = [run({"gain": (v, None)}, seed=k) for k, v in enumerate((0.5, 0.6, 0.55))]
    other = run({"gain": (-9.0, None)}, seed=7, config={"width": 2})
    effect = kinds._on("virtual patients", "gain", 1, [other], [*alike, other], None)
    assert effect.word == "the paper's way" and effect.how == "runs of 3 seeds"
    assert float(effect.value) == pytest.approx(0.55)
    study = ({"file": "s.json"}, [-0.1, -0.2, -0.15, -0.12])
    effect = kinds._on("virtual patients", "gain", 1, [other], alike, study)
    assert effect.word == "the other way" and effect.file == "studies/s.json" and effect.how == "study of 4 seeds"
    assert kinds._on("virtual patients", "absent", 1, [other], alike, None) is None


def test_a_number_beside_another_points_as_the_papers_two_do():
    paper = load_reported("cosingan")
    claims = {claim["id"]: claim for claim in paper["claims"]}
    assert kinds._formula(claims["cosingan_lung"], paper)[1] == 1
    assert kinds._formula(claims["enhanced_lung"], paper) == ("enhanced_overall_lung - pix2pix_overall_lung", -1)
    equal = copy.deepcopy(claims["two_ts_resnet18_256"]) | {"direction": {"of": "x", "beside": "sin_ts_resnet18_256"}}
    with pytest.raises(DataError, match="two equal numbers"):
        kinds._formula(equal, paper)
    with pytest.raises(DataError, match="'nobody' is not an id among claims"):
        kinds._formula({**equal, "direction": {"of": "x", "beside": "nobody"}}, paper)


def test_directions_are_those_of_the_recorded_results():
    cxr = next(r for r in report.load_results("06_cyclegan") if r["data"]["name"] == "cxr" and r["profile"] == "cpu")
    gain = next(m for m in cxr["metrics"] if m["name"] == "gain_pneumonia")
    effect = next(e for e in FOUND["cyclegan"]["helps_pneumonia"].effects if e.data == "cxr")
    assert (float(effect.value), effect.value.low, effect.value.high) == (gain["value"], *gain["interval"])
    assert effect.file == cxr["file"]
    shown = prose.page_run("07_cgan3d")
    effect = FOUND["cgan3d"]["table2_psnr_denoised"].effects[0]
    assert effect.data == "virtual patients" and effect.file == shown["file"]


def test_all_formulas_can_be_evaluated():
    """A misspelt name would read "not tested": every effect is known to a recorded run or study, or to none for want of
    a run, which is listed here."""
    untested = {(name, key) for name in NAMES for key, one in FOUND[name].items()
                if "direction" in one.claim and not one.effects}
    arms = {study["study"]: {arm["name"] for arm in study["arms"]} for study in studies.load()}
    for name, key in untested:
        wanted = FOUND[name][key].claim["direction"]
        assert "study" in wanted and wanted["study"]["name"] in arms or "beside" in wanted, (name, key)


def test_counts_are_of_all_claims():
    counts = kinds.counts(NAMES)
    total = sum(len(load_reported(name)["claims"]) for name in NAMES)
    assert all(sum(of.values()) == total for places in counts.values() for of in places.values())
    assert set(counts["direction"]) == set(kinds.PLACES)


def test_a_ledger_with_a_half_told_direction_is_refused(tmp_path):
    paper = yaml.safe_load((project.REPORTED / "dcgan.yaml").read_text())
    paper["claims"][0]["direction"] = {"of": "something"}
    path = tmp_path / "half.yaml"
    path.write_text(yaml.safe_dump(paper))
    with pytest.raises(DataError, match="half.yaml"):
        load_reported(str(path))


def test_what_a_plain_number_does_to_a_measurement_keeps_its_interval():
    m = Measured(0.5, [0.4, 0.7], 9)
    ends = lambda x: (round(float(x), 9), round(x.low, 9), round(x.high, 9))
    assert ends(-m) == (-0.5, -0.7, -0.4) and ends(100 * m) == (50, 40, 70) and ends(1 - m) == (0.5, 0.3, 0.6)
    assert ends(m - 0.5) == (0, -0.1, 0.2) and ends(m / -2) == (-0.25, -0.35, -0.2) and ends(m + 1) == ends(1 + m)
    for both in (m - m, m + m, m * m, m / m):
        assert not isinstance(both, Measured)
    assert json.dumps(Measured(0.25)) == "0.25" and not Measured(0.25).known and not (2 * Measured(0.25)).known
