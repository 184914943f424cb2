"""Export: read back as written, whole or not at all, never over somebody else's files."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scan_files import detect, refused

from covbook.export import export_set
from covlib.files.index import read_datasheet
from covlib.files.layouts import load_slices
from covlib.files.marks import is_synthetic

SHEET = {"method": "DCGAN, 300 epochs", "seed": 0, "checkpoint": "generator.safetensors, sha256 ab12",
         "limits": "not for diagnosis"}
WINDOW = (-600, 1500)


def pictures(n=4, size=16, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.uniform(-1, 1, (n, 1, size, size)).astype(np.float32)
    return images, *(rng.integers(0, 3, (n, size, size)).astype(np.uint8) for _ in range(2))


@given(st.booleans(), st.booleans(), st.booleans(), st.integers(0, 5))
def test_what_is_written_is_read_back(tmp_path_factory, with_lung, with_infection, with_labels, seed):
    images, lung, infection = pictures(seed=seed)
    folder = tmp_path_factory.mktemp("export") / "synthetic"
    labels = np.array([0, 1, 1, 0]) if with_labels else None
    export_set(folder, images, lung=lung if with_lung else None, infection=infection if with_infection else None,
               labels=labels, classes=("normal", "covid") if with_labels else (), datasheet=SHEET,
               hu_window=WINDOW, patients=["a", "a", "b", "c"])
    read = load_slices(folder, size=16, window=WINDOW, need=("labels",) if with_labels else (), per_patient=9)
    order = [[f"{k:05d}" for k in range(4)].index(name.split("/")[-1]) for name in read.names]
    assert np.abs(read.images - images[order]).max() <= 1 / 255 + 1e-6
    assert read.patients == [["a", "a", "b", "c"][k] for k in order] and read.hu_window == WINDOW
    assert (read.lung is not None) == with_lung and (read.infection is not None) == with_infection
    assert not with_lung or np.array_equal(read.lung, lung[order])
    assert not with_infection or np.array_equal(read.infection, infection[order])
    if with_labels:
        assert read.classes == ("normal", "covid") and np.array_equal(read.labels, labels[order])
    assert any("synthetic" in note and "DCGAN" in note for note in read.notes)
    files = list(folder.rglob("*.png"))
    assert len(files) == 4 * (1 + with_lung + with_infection) and all(is_synthetic(p) for p in files)
    assert sorted(p.name for p in folder.parent.iterdir()) == ["synthetic"]


def test_layouts_of_the_set(tmp_path):
    images, lung, infection = pictures()
    settings = {"labels": [0, 1, 0, 1], "classes": ("normal", "covid"), "datasheet": SHEET}
    assert detect(export_set(tmp_path / "a", images, **settings)) == "classes"
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "DATASHEET.md", "covid", "datasheet.json", "metadata.csv", "normal"]
    assert detect(export_set(tmp_path / "b", images, lung=lung, infection=infection, **settings)) == "slices"
    label = np.asarray(Image.open(tmp_path / "b" / "class_mask" / "00002.png"))
    assert label.dtype == np.uint8 and np.array_equal(label, infection[2])


def test_the_datasheet(tmp_path):
    images = pictures()[0]
    export_set(tmp_path / "a", images, datasheet={**SHEET, "profile": "cpu", "epochs": 3}, hu_window=WINDOW)
    sheet = json.loads((tmp_path / "a" / "datasheet.json").read_text())
    assert sheet == read_datasheet(tmp_path / "a") and sheet["images"] == 4 and sheet["profile"] == "cpu"
    text = (tmp_path / "a" / "DATASHEET.md").read_text()
    for words in ("must not be used for diagnosis", "DCGAN, 300 epochs", "ab12", "not for diagnosis", "-1350 to 150 HU",
                  "epochs: 3"):
        assert words in text
    for field in SHEET:
        refused(lambda field=field: export_set(tmp_path / "b", images, datasheet={**SHEET, field: None}), field)
    refused(lambda: export_set(tmp_path / "b", images, datasheet={**SHEET, "model": object()}), "JSON")
    assert not (tmp_path / "b").exists() and read_datasheet(tmp_path) == {}
    (tmp_path / "a" / "datasheet.json").write_text("{")
    refused(lambda: load_slices(tmp_path / "a", size=8), "datasheet.json")


@pytest.mark.parametrize(("settings", "words"), [
    ({"images": np.zeros((2, 3, 8, 8))}, ("(2, 3, 8, 8)",)), ({"images": np.zeros((0, 1, 8, 8))}, ("N > 0",)),
    ({"images": np.full((4, 16, 16), 1.5)}, ("[-1, 1]",)), ({"images": np.full((4, 16, 16), np.nan)}, ("NaN",)),
    ({"lung": np.zeros((4, 8, 8))}, ("lung", "(4, 8, 8)")), ({"infection": np.full((4, 16, 16), 3)}, ("0, 1, 2",)),
    ({"labels": [0, 1, 2, 0], "classes": ("a", "b")}, ("0 to 2", "2 classes")), ({"labels": [0]}, ("1 labels",)),
    ({"names": list("aabc")}, ("different",)), ({"names": ["../a", "b", "c", "d"]}, ("'/'",)),
    ({"patients": ["a"]}, ("1 patients",))])
def test_sets_that_cannot_be(tmp_path, settings, words):
    settings = {"images": pictures()[0], "datasheet": SHEET, **settings}
    refused(lambda: export_set(tmp_path / "s", **settings), *words)
    assert not list(tmp_path.iterdir())


def test_only_an_earlier_export_is_replaced(tmp_path):
    images = pictures()[0]
    export_set(tmp_path / "s", images, datasheet=SHEET)
    export_set(tmp_path / "s", images[:2], datasheet=SHEET)
    assert len(load_slices(tmp_path / "s", size=8)) == 2 and os.listdir(tmp_path) == ["s"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    refused(lambda: export_set(tmp_path / "mine", images, datasheet=SHEET), "mine", "left alone")
    refused(lambda: export_set(tmp_path / "mine" / "thesis.txt", images, datasheet=SHEET), "thesis.txt")
    assert os.listdir(tmp_path / "mine") == ["thesis.txt"]


KILLED = """
import os, signal, sys
import numpy as np
from PIL import Image
from covbook.export import export_set
save, written = Image.Image.save, []
def dying(self, *a, **k):
    save(self, *a, **k)
    written.append(1)
    if len(written) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
Image.Image.save = dying
export_set(sys.argv[1], np.zeros((9, 8, 8)), datasheet={"method": "m", "seed": 0, "checkpoint": "c", "limits": "l"})
"""


def test_killed_half_way_nothing_half_is_left(tmp_path):
    for earlier in (False, True):
        folder = tmp_path / f"s{earlier}"
        if earlier:
            export_set(folder, pictures()[0], datasheet=SHEET)
        done = subprocess.run([sys.executable, "-c", KILLED, folder])
        assert done.returncode == -signal.SIGKILL
        assert folder.exists() == earlier
        if earlier:
            assert len(load_slices(folder, size=16)) == 4
        export_set(folder, pictures()[0], datasheet=SHEET)  # the next export clears what the killed one left
        assert not [p for p in tmp_path.iterdir() if folder.name in p.name and p != folder]


FULL_DISK = """
import resource, sys
import numpy as np
from covbook.export import export_set
from covlib.errors import DataError
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))  # writing more fails, as it does on a full disk
try:
    noise = np.random.default_rng(0).uniform(-1, 1, (3, 64, 64))
    export_set(sys.argv[1], noise, datasheet={"method": "m", "seed": 0, "checkpoint": "c", "limits": "l"})
except DataError as error:
    print(error)
"""


def test_a_full_disk_is_one_line(tmp_path):
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", FULL_DISK, tmp_path / "s"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "writing failed" in done.stdout and done.stdout.count("\n") == 1 and not list(tmp_path.iterdir())
