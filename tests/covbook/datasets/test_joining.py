"""Classes of several data sets as one task: what a reader of the joined folder sees, and what is refused."""

import csv

import pytest
from scan_files import save_image

from covbook.cli import main
from covbook.datasets.joining import join
from covlib.errors import ConfigError, DataError
from covlib.files.layouts import load_slices


@pytest.fixture
def sets(tmp_path):
    """Two sets with a class of the same name, and patients called alike in both."""
    counts = {"hospital": {"normal": 5, "pneumonia": 3, "covid": 1}, "figures": {"covid": 2, "pneumonia": 1}}
    for n, (name, classes) in enumerate(counts.items()):
        rows = [["file", "patient", "label"]]
        for label, count in classes.items():
            for k in range(count):
                save_image(tmp_path / name / label / f"{k}.png", seed=100 * n + 10 * k + len(label), size=(16, 16))
                rows.append([f"{label}/{k}.png", f"p{k // 2}", label])
        with (tmp_path / name / "metadata.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return tmp_path


def test_joined_classes_read_as_one_set_and_no_two_patients_become_one(sets, capsys):
    to = sets / "joined"
    assert main(["data", "join", f"{sets}/hospital:normal,pneumonia", f"{sets}/figures:covid", "--to", str(to)]) == 0
    said = capsys.readouterr().out
    assert "5 normal, 3 pneumonia, 2 covid" in said and "skew, normal over covid: 2.50" in said
    assert "tell it by its source" in said
    read = load_slices(to, size=16, need=("labels",))
    assert [read.classes[k] for k in read.labels].count("covid") == 2 and len(read) == 10
    whose = {label: {p for p, k in zip(read.patients, read.labels) if read.classes[k] == label}
             for label in read.classes}
    assert whose["normal"] == {"hospital-p0", "hospital-p1", "hospital-p2"} and whose["covid"] == {"figures-p0"}
    alone = load_slices(sets / "figures", size=16, need=("labels",))
    covid = alone.images[[alone.classes[k] == "covid" for k in alone.labels]]
    mine = read.images[[read.classes[k] == "covid" for k in read.labels]]
    assert {x.tobytes() for x in covid} == {x.tobytes() for x in mine}  # the same pictures
    assert (sets / "figures" / "covid" / "0.png").is_file()  # where they lie nothing changed


def test_a_class_of_both_sets_is_no_cause_for_caution(sets):
    done = join([f"{sets}/hospital:covid,normal", f"{sets}/figures:covid"], sets / "both")
    assert done.sources["covid"] == ("hospital", "figures") and "caution" not in str(done)
    assert done.counts == {"normal": 5, "covid": 3}


@pytest.mark.parametrize("part, kind, text", [
    ("{}/hospital", ConfigError, "must look like DATA:class"), ("{}/hospital:", ConfigError, "must look like"),
    ("{}/hospital:edema", DataError, "has no class 'edema'; there are"), ("nowhere:covid", DataError, "nowhere")])
def test_parts_that_do_not_fit_are_refused_before_anything_is_written(sets, part, kind, text):
    with pytest.raises(kind, match=text):
        join([f"{sets}/figures:covid", part.format(sets)], sets / "joined")
    assert not (sets / "joined").exists()


def test_a_folder_in_use_is_left_alone(sets):
    with pytest.raises(DataError, match="is there already and holds something"):
        join([f"{sets}/figures:covid"], sets / "hospital")
