"""The bookkeeping of chapter 07: scans and split, all networks from one file, tables, measurements, volumes judged."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from covbook import report, runs
from covbook.chapters.cgan3d import experiment as tasks
from covbook.chapters.cgan3d import training
from covlib import parallel
from covlib.data.case import Case
from covlib.data.splits import Split
from covlib.errors import ConfigError, DataError
from covlib.files.scans import write_case
from covlib.metrics.neighbours import nearest
from covlib.papers.cgan3d.method import TASKS, Config
from covlib.seeding import rng

TINY = {"widths": (2, 4), "block": 8, "d_width": 2, "blocks_per_scan": 2, "shape": (16, 32, 32), "coarse": (8, 8, 8),
        "coarse_patients": 4, "coarse_batch": 2, "coarse_epochs": 1, "volume": (16, 16, 16), "overlap": 4, "margin": 2}


@pytest.fixture(scope="module")
def config():
    return Config.for_profile("smoke", TINY)


@pytest.fixture(scope="module")
def scans(config):
    return tasks.prepare(config, "phantom", 4)


@pytest.fixture(scope="module")
def trained(config, scans, tmp_path_factory):
    out = tmp_path_factory.mktemp("tasks")
    return out, *training.train(config, scans, out, seed=4, device="cpu")


@pytest.fixture(scope="module")
def judged(config, scans, trained):
    found, split = scans
    rival = tasks.tune_rival(config, found.at(split.train), 4, n=1)
    made = {case.name: tasks.restored(config, trained[1].methods, case, rival, 4) for case in found.at(split.test)}
    return made, [row for case in found.at(split.test) for row in tasks.judge_case(config, case, made[case.name])]


def test_scans_have_lungs_and_no_patient_is_on_both_sides(config, scans):
    found, split = scans
    assert len(found) == 4 and len(split.train) == len(split.test) == 2
    assert not {found.patients[i] for i in split.train} & {found.patients[i] for i in split.test}
    assert all(case.lung.any() and case.hu.shape == config.shape for case in found.cases)
    assert found.classes == ("normal", "covid") and sorted(found.labels.tolist()) == [0, 0, 1, 1]
    again, _ = tasks.prepare(config, "phantom", 4)
    other, _ = tasks.prepare(config, "phantom", 5)
    assert found.fingerprint == again.fingerprint != other.fingerprint


def test_a_folder_of_scans_keeps_its_grids_and_gets_lungs(config, tmp_path, scans):
    for k, case in enumerate(scans[0].cases):
        cut = case.hu[:, :, : 32 - 4 * k]
        write_case(Case(case.name, cut, case.spacing, origin=case.origin), tmp_path / case.name)
    found, _ = tasks.prepare(config, tmp_path, 0)
    assert sorted(case.hu.shape[2] for case in found.cases) == [20, 24, 28, 32]
    assert found.labels is None and "made by threshold" in found.notes[0]


def test_one_file_holds_all_networks(config, scans, trained):
    out, first, coarse = trained
    found, split = scans
    again, same = training.train(config, scans, out / "elsewhere", seed=4, device="cpu", checkpoint=out)
    assert again.results == {} and set(first.results) == {*TASKS, "coarse", "twin"}
    assert np.array_equal(coarse.hu, same.hu)
    assert not (out / "elsewhere").exists() and again.twin is None
    assert first.twin.config.discriminator == "paper" != first.methods["depixelate"].config.discriminator
    case = found.at(split.test)[0]
    for task in TASKS:
        given = tasks.condition_of(replace(config, task=task), case, 1)
        a, b = (tasks.restore(t.methods[task], given, seed=2).hu for t in (first, again))
        assert np.abs(a.astype(int) - b).max() <= 1  # a last bit of a convolution may move a rounding
    a, b = (t.noise.volumes(1, (8, 16, 16))[0].hu.astype(int) for t in (first, again))
    assert np.abs(a - b).max() <= 2
    with pytest.raises(ConfigError, match="widths"):
        training.train(replace(config, widths=(4, 8)), scans, out, checkpoint=out)


def test_every_way_of_restoring_stands_beside_its_input(config, scans, judged):
    made, rows = judged
    case = scans[0].at(scans[1].test)[0]
    volumes = made[case.name]
    inputs_and_rivals = {"noisy", "non-local means", "pixelated", "trilinear"}
    assert inputs_and_rivals | set(tasks.MADE.values()) <= set(volumes)
    assert all(v.shape == case.hu.shape for v in volumes.values())
    row = next(r for r in rows if r["what"] == "noisy" and r["region"] == "whole" and r["patient"] == case.patient)
    a, b = (np.clip(v.astype(float), config.hu_low, config.hu_high) for v in (volumes["noisy"], case.hu))
    width = config.hu_high - config.hu_low
    expected = np.mean([10 * np.log10(width**2 / np.mean((x - y) ** 2)) for x, y in zip(a, b)])
    assert np.isclose(row["psnr"], expected, rtol=1e-6)
    assert {row["region"] for row in rows} == {"whole", "pulmonary"}
    ratios = tasks.seam_ratios(case, volumes, config.block)
    assert len(ratios) == 6 and all(v > 0 for v in ratios.values())


def test_tables_and_measurements(config, judged, tmp_path):
    _, rows = judged
    reported = report.load_reported("cgan3d")
    one, two = tasks.table1(rows, reported), tasks.table2(rows, reported)
    assert [row[1] for row in one.rows] == ["31.02", "31.92", "15.08", "24.84", "31.53", "12.53"]
    assert [row[0] for row in two.rows][:4] == ["autoencoded", "denoised", "non-local means", "noisy (input)"]
    assert [row[1] for row in two.rows] == ["46.46", "46.34", "–", "27.29", "37.26", "–", "39.50"]
    gains = {row["label"]: row["values"] for row in tasks.gain_rows(rows)}
    assert list(gains) == [f"{made} less {rival}, {where}" for made, rival in
                           (("denoised", "non-local means"), ("depixelated", "trilinear"))
                           for where in ("lungs", "whole scans")]
    less = tasks.column(rows, "depixelated", "psnr", "pulmonary") - tasks.column(rows, "trilinear", "psnr", "pulmonary")
    assert np.array_equal(gains["depixelated less trilinear, lungs"], less)
    run = runs.start("07_cgan3d", profile="smoke", out=str(tmp_path), device="cpu", config_cls=Config)
    tasks.keep(run, rows)
    found = {m["name"]: m for m in run.metrics}
    gain = found["gain_denoised_over_noisy_whole"]
    mean = lambda what: tasks.column(rows, what).mean()
    assert gain["n"] == 2 and np.isclose(gain["value"], mean("denoised") - mean("noisy"))
    claims = {c["metric"] for c in reported["claims"] if c["metric"].startswith("table")}
    assert claims <= set(found)
    assert '"what": "noisy"' in tasks.as_json(rows)


def test_scans_of_one_patient_are_one_number():
    row = lambda patient, psnr: {"patient": patient, "what": "noisy", "region": "whole", "psnr": psnr}
    rows = [row("b", 20.0), row("a", 30.0), row("b", 24.0), row("c", np.inf)]
    assert tasks.column(rows, "noisy").tolist() == [22.0, 30.0]


def test_errors_are_parted_into_kept_and_other_voxels():
    original = rng(0, "test").integers(-900, 900, (6, 7, 8)).astype(np.int16)
    made = original.copy()
    made[::2, ::2, ::2] += 10
    found = tasks.error_by_place(original, made, -1024, 1024)
    assert found["kept"] == 10 and found["other"] == 0
    made = original + 20
    found = tasks.error_by_place(original, made, -1024, 1024)
    assert np.isclose(found["kept"], 20) and np.isclose(found["other"], 20) and np.isclose(found["all"], 20)


def test_grown_copies_cover_the_same_millimetres_and_follow_their_scan(config, scans, trained):
    """Of a scan in two halves, air and water, the copy has the same halves, whatever the network does at the border."""
    hu = np.full(config.shape, -1000, np.int16)
    hu[:, :, 16:] = 0
    case = Case("c", hu, (4.0, 2.0, 2.0), origin=(1.0, 2.0, 3.0), patient="p")
    (copy,) = tasks.regrown(trained[1].noise, [case], (16, 64, 64), seed=1)
    assert copy.hu.shape == (16, 64, 64) and copy.spacing == (4.0, 1.0, 1.0) and copy.patient == "p"
    assert abs(copy.hu[:, :, :20].mean() + 1000) < 100 and abs(copy.hu[:, :, -20:].mean()) < 100
    (again,) = tasks.regrown(trained[1].noise, [case], (16, 64, 64), seed=1)
    assert np.array_equal(copy.hu, again.hu)


def test_copies_are_grown_from_other_patients_than_those_they_are_judged_by(config, scans):
    references, others = tasks.reference_volumes(config, scans, 2, seed=100)
    assert len(references) == len(others) == 2 and all(c.hu.shape == config.volume for c in references + others)
    names = [c.patient for c in references + others]
    assert len(set(names)) == 4 and not set(names) & set(scans[0].patients)
    real, further = tasks.reference_volumes(config, scans, 2, data="some folder", seed=100)
    of = lambda cases: {c.patient for c in cases}
    assert of(real) <= of(scans[0].at(scans[1].test)) and not of(real) & of(further) and len(real) == len(further)
    only = tasks.Scans(scans[0].at(scans[1].test)[:1], "")
    with pytest.raises(DataError, match="others are needed"):
        tasks.reference_volumes(config, (only, Split(np.arange(0), np.arange(0), np.arange(1))), 2, data="folder")


def test_the_audit_of_volumes_finds_copies(config):
    from covbook.chapters import privacy
    from covlib import phantom
    from covlib.papers.cgan3d.noise import coarse_set

    cases = [phantom.generate(k, seed=7, label=("normal", "covid")[k % 2], shape=config.coarse) for k in range(24)]
    known = coarse_set(cases[:14], config.coarse).hu
    found = tasks.audit_volumes(known[:10].astype(np.float32) + 20, known, cases[14:], config, None)
    assert found.verdict == privacy.COPIES and found.space == "coarse volumes" and found.patients == (14, 10)


def test_slices_of_three_planes_are_right_way_up():
    hu = np.full((32, 32, 32), -1350, np.int16)
    hu[24:] = 150  # the head end
    case = Case("c", hu, (1.0, 1.0, 1.0))
    for plane, top in (("coronal", 1.0), ("sagittal", 1.0)):
        pictures = tasks.planes_of([case], plane, per_volume=4, size=32)
        assert pictures.shape == (4, 1, 32, 32)
        assert np.allclose(pictures[:, 0, 2], top) and np.allclose(pictures[:, 0, -3], -1)
    assert tasks.planes_of([case, case], "axial", per_volume=3).shape == (6, 1, 64, 64)


def test_the_nearest_training_volume_is_found():
    training = rng(0, "test").normal(size=(5, 4, 4, 4))
    index, similar = nearest(training[[3, 1]] * 2 + 5, training)
    assert index.tolist() == [3, 1] and np.allclose(similar, 1)
    single = nearest(rng(1, "test").normal(size=(1, 4, 4, 4)), training)
    correlations = [np.corrcoef(rng(1, "test").normal(size=(1, 4, 4, 4)).ravel(), t.ravel())[0, 1] for t in training]
    assert single[0][0] == np.argmax(correlations) and np.isclose(single[1][0], max(correlations))


def test_litres_of_a_virtual_patient_are_those_of_its_mask():
    from covlib import phantom

    case = phantom.generate(2, label="normal", shape=(48, 64, 64))
    true = (case.lung > 0).sum() * np.prod(case.spacing) / 1e6
    assert abs(sum(tasks.litres(case)) - true) < 0.2 * true


def test_lungs_and_seams_count_patients_not_scans(config, scans):
    """Two scans of one patient are one patient; a synthetic volume has none and is one of its own."""
    case = scans[0].cases[0]
    twice = [case, replace(case, name="again"), replace(scans[0].cases[1], patient="other")]
    alone = [replace(c, patient="", name=f"noise {k}") for k, c in enumerate(scans[0].cases[:2])]
    found = tasks.lungs_and_seams(config, {"held-out": twice, "synthetic": alone})
    lungs, seams = found["held-out"]
    assert lungs.n == seams.n == 2 and lungs.low < lungs.value < lungs.high
    assert lungs.value == pytest.approx(np.mean([sum(tasks.litres(c)) for c in twice]))
    assert found["synthetic"][0].n == found["synthetic"][1].n == 2
    small = replace(config, block=16)  # no volume is larger: there is no inner face
    assert tasks.lungs_and_seams(small, {"held-out": twice})["held-out"][1] is None


def test_readers_get_pairs_of_the_same_place(scans, judged):
    found, split = scans
    cases, made = found.at(split.test), judged[0]
    pairs = tasks.reader_pairs(cases, made, 6, 1)
    assert len(pairs) == 6 and all(a.shape == b.shape == (32, 32) for a, b in pairs)
    originals = {tasks.window(plane).tobytes() for case in cases for plane in case.hu}
    assert all(a.tobytes() in originals and np.abs(b).max() <= 1 for a, b in pairs)
    places = tasks.regions(cases[0], 3, 8, 1)
    assert [cases[0].hu[p].shape for p in places] == [(8, 8)] * 3 and places == tasks.regions(cases[0], 3, 8, 1)


@pytest.mark.slow
def test_trainings_in_two_processes_end_with_the_weights_of_one(config, scans, tmp_path, monkeypatch):
    own = replace(config, coarse_discriminator="spectral", discriminator="detail")  # spectral norm does not travel
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    alone, _ = training.train(own, scans, tmp_path / "one", seed=4, device="cpu")
    monkeypatch.setattr(training, "WORTH_A_PROCESS", 1)
    monkeypatch.setattr(training, "spread", lambda work, jobs: parallel.spread(work, jobs, 2))
    both, _ = training.train(own, scans, tmp_path / "two", seed=4, device="cpu")
    torch.set_num_threads(before)
    assert list(both.everything) == list(alone.everything) == [*TASKS, "coarse"]
    for name, method in alone.everything.items():
        for net, module in method.networks.items():
            other = both.everything[name].networks[net].state_dict()
            assert all(torch.equal(value, other[key]) for key, value in module.state_dict().items()), (name, net)
    monkeypatch.setattr(tasks, "each", lambda function, jobs, *_: parallel.spread(function, jobs, 2))
    found, split = scans
    rival = tasks.tune_rival(own, found.at(split.train), 4, n=1)
    assert set(tasks.restored_all(own, both.methods, found.at(split.test), rival, 4)) == set(
        case.name for case in found.at(split.test))
