"""Translation of whole classes: provenance, resumption, streaming, and what is refused."""

import csv
import hashlib
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from exported import everything
from PIL import Image

from covbook import cli
from covbook.chapters.cyclegan.experiment import load_images
from covbook.chapters.cyclegan.translate import (
    COLUMNS,
    sources_from,
    sources_in,
    translate_folder,
    translate_set,
)
from covbook.pseudonyms import TOLD, Key, key_file
from covlib.errors import ConfigError, DataError
from covlib.files.layouts import load_slices
from covlib.files.marks import is_synthetic
from covlib.papers.cyclegan.method import Config, CycleGAN, train_all
from covlib.seeding import rng, torch_generator
from covlib.training.checkpoints import digest

CONFIG = Config.for_profile("paper", {"image_size": 32, "width": 4, "d_width": 4, "blocks": 1, "batch_size": 2,
                                      "epochs": 1, "pool_size": 0, "sources": ("normal",)})


@pytest.fixture
def folder(tmp_path):
    """X-rays of mixed size, depth and kind, in class folders with names of their own."""
    r = rng(0, "xrays")
    shapes = [(40, 40), (50, 32), (32, 64), (33, 33), (64, 64)]
    for k, shape in enumerate(shapes):
        (tmp_path / "x" / "No Findings" / f"p{k // 2}").mkdir(parents=True, exist_ok=True)
        grey = r.integers(0, 256, shape)
        picture = Image.fromarray((grey * 257).astype(np.uint16)) if k == 1 else Image.fromarray(grey.astype(np.uint8))
        picture = picture.convert("RGB") if k == 2 else picture
        picture.save(tmp_path / "x" / "No Findings" / f"p{k // 2}" / f"{k}.png")
    (tmp_path / "x" / "COVID-19").mkdir()
    for k in range(3):
        Image.fromarray(r.integers(0, 256, (36, 36)).astype(np.uint8)).save(tmp_path / "x" / "COVID-19" / f"c{k}.png")
    return tmp_path / "x"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    x = torch.rand(4, 1, 32, 32, generator=torch_generator(0, "w")) * 2 - 1
    train_all(CONFIG, {"normal": x, "covid": -x}, out, seed=3, device="cpu", progress=False)
    return out


plain = partial(translate_folder, pseudonymous=False, device="cpu", progress=False)


def rows(folder):
    with (folder / "provenance.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_no_class_of_a_real_folder_is_cut_but_in_short_runs(folder):
    config = Config.for_profile("paper", {"image_size": 32, "sources": ("normal",), "patients": 4, "covid_patients": 2})
    found = load_images(config, str(folder))
    assert np.bincount(found.labels).tolist() == [5, 3] and found.classes == ("normal", "covid")
    short = Config.for_profile("paper", {**config.as_dict(), "cap_real": True})
    assert np.bincount(load_images(short, str(folder)).labels).tolist() == [2, 2]
    assert [Config.for_profile(p).cap_real for p in ("smoke", "cpu", "long", "gpu", "paper")] == [True] * 4 + [False]


def test_every_file_says_where_it_comes_from_and_reads_back_by_source_patient(folder, weights, tmp_path):
    to = plain(weights, folder, "No_Finding", tmp_path / "set", batch=2)
    table, sources = rows(to), sources_in(folder, "normal", 32)
    assert tuple(table[0]) == COLUMNS and [r["source"] for r in table] == sources.names
    checkpoint = (weights / "checkpoints" / "cyclegan.safetensors").read_bytes()
    for row in table:
        assert hashlib.sha256((to / row["file"]).read_bytes()).hexdigest() == row["sha256"]
        assert row["model"] == hashlib.sha256(checkpoint).hexdigest() and row["seed"] == "3"
        assert is_synthetic(to / row["file"])
    back = load_slices(to, size=32)
    assert back.classes == ("covid",) and sorted(set(back.patients)) == ["p0", "p1", "p2"] and len(back) == 5
    assert "Not for diagnosis" in (to / "DATASHEET.md").read_text()
    from covbook.chapters.cyclegan.experiment import load_trained

    method, _ = load_trained(weights / "checkpoints" / "cyclegan.safetensors", "normal")
    x = torch.from_numpy(np.stack([sources.read(k) for k in range(5)]))[:, None]
    expected = method.synthesize(x, None)[:, 0].numpy()
    made = {name: image for name, image in zip(back.names, back.images[:, 0])}
    for row, image in zip(table, expected):
        name = next(n for n in made if row["file"].endswith(n.split("/")[-1] + ".png"))
        assert np.abs(made[name] - image).max() < 1.01 / 127.5


def test_a_set_that_was_cut_off_ends_as_if_it_had_not(folder, weights, tmp_path, monkeypatch):
    whole = plain(weights, folder, "normal", tmp_path / "whole", batch=1)
    calls, translate = [], CycleGAN.synthesize

    def stops(self, images, generator, batch=32):
        calls.append(len(images))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return translate(self, images, generator, batch)

    monkeypatch.setattr(CycleGAN, "synthesize", stops)
    with pytest.raises(KeyboardInterrupt):
        plain(weights, folder, "normal", tmp_path / "cut", batch=1)
    cut = tmp_path / "cut"
    assert 0 < len(rows(cut)) < 5 and not (cut / "datasheet.json").exists()
    (cut / rows(cut)[0]["file"]).write_bytes(b"half")  # written, then damaged
    with (cut / "provenance.csv").open("a") as file:
        file.write("covid/half of a li")
    kept = len(rows(cut)) - 2
    calls.clear()
    calls += [1] * 10  # no more stops
    plain(weights, folder, "normal", cut, batch=1)
    assert len(calls) - 10 == 5 - kept
    files = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(cut) for p in cut.rglob("*") if p.is_file())
    assert all((whole / f).read_bytes() == (cut / f).read_bytes() for f in files)
    before = len(calls)
    plain(weights, folder, "normal", cut, batch=1)
    assert len(calls) == before  # a finished set is left as it is


def test_an_image_has_the_same_company_however_often_the_work_was_cut_off(folder, weights, tmp_path, monkeypatch):
    seen, translate = [], CycleGAN.synthesize
    monkeypatch.setattr(CycleGAN, "synthesize", lambda self, images, generator, batch=32: (
        seen.append(images.clone()), translate(self, images, generator, batch))[1])
    to = plain(weights, folder, "normal", tmp_path / "set", batch=2)
    first, table = list(seen), rows(to)
    assert [len(x) for x in first] == [2, 2, 1]
    (to / table[1]["file"]).unlink()
    (to / table[4]["file"]).write_bytes(b"half")
    untouched = (to / table[0]["file"]).stat().st_mtime_ns
    seen.clear()
    plain(weights, folder, "normal", to, batch=2)
    assert len(seen) == 2 and torch.equal(seen[0], first[0]) and torch.equal(seen[1], first[2])
    assert rows(to) == table and (to / table[0]["file"]).stat().st_mtime_ns == untouched


def test_a_kill_before_the_state_is_written_blocks_nothing(folder, weights, tmp_path, monkeypatch):
    """Killed anywhere in the first writes: a folder alone, or with half a state file beside the others' halves."""
    whole = plain(weights, folder, "normal", tmp_path / "whole")
    for k, leftovers in enumerate([(), (".translating.json.partial-17",),
                                   (".translating.json.partial-17", ".datasheet.json.partial-3")]):
        cut = tmp_path / f"cut{k}"
        cut.mkdir()
        for name in leftovers:
            (cut / name).write_text('{"model": "1')
        plain(weights, folder, "normal", cut)
        assert {p.relative_to(cut): p.read_bytes() for p in cut.rglob("*") if p.is_file()} == \
            {p.relative_to(whole): p.read_bytes() for p in whole.rglob("*") if p.is_file()}
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "translating.json").write_text("no json")
    with pytest.raises(DataError, match="odd.*give a new folder"):
        plain(weights, folder, "normal", tmp_path / "odd")


@pytest.mark.parametrize(("option", "value"), [("--batch", "0"), ("--precision", "half")])
def test_options_that_mean_nothing_are_refused(option, value, folder, weights, tmp_path, capsys):
    args = ["translate", "--data", str(folder), "--to", str(tmp_path / "set"), "--class", "normal", "--device", "cpu"]
    assert cli.main([*args, "--checkpoint", str(weights), option, value]) == 2
    assert capsys.readouterr().err.startswith(f"covlib: error: {option}: ") and not (tmp_path / "set").exists()


def test_folders_of_others_and_of_other_models_are_refused(folder, weights, tmp_path):
    method, sources = CycleGAN(CONFIG, 1), sources_in(folder, "normal", 32)
    translate_set(method, sources, tmp_path / "set", model="a", progress=False)
    with pytest.raises(ConfigError, match="model is 'a', this one's is 'b'"):
        translate_set(method, sources, tmp_path / "set", model="b", progress=False)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    with pytest.raises(DataError, match="left alone"):
        translate_set(method, sources, tmp_path / "other", model="a", progress=False)
    with pytest.raises(DataError, match="'pneumonia'.*normal, covid"):
        sources_in(folder, "pneumonia", 32)
    with pytest.raises(ConfigError, match="no checkpoints"):
        plain(folder, folder, "normal", tmp_path / "no")


def test_the_command_line_translates_and_complains_in_one_line(folder, weights, tmp_path, capsys):
    args = ["translate", "--checkpoint", str(weights), "--data", str(folder), "--to", str(tmp_path / "set"), "--device",
            "cpu"]
    assert cli.main([*args, "--class", "normal"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "set")
    assert cli.main([*args, "--class", "pneumonia"]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("covlib: error:") and "\n" not in error and "has no model for class" in error


def test_weights_in_a_file_a_generator_translate_as_the_whole_file_does(folder, weights, tmp_path, capsys, monkeypatch):
    """Recorded weights are kept so, where one file would be too large."""
    from covbook.runner import weights as recorded

    monkeypatch.setattr(recorded, "FILE_LIMIT", 1)
    kept = tmp_path / "kept"
    recorded._slim(weights / "checkpoints" / "cyclegan.safetensors", kept / "checkpoints" / "cyclegan.safetensors",
                   recorded.LAYOUTS["06_cyclegan"])
    assert {f.name for f in kept.rglob("*.*")} == {"normal.G_A.safetensors", "normal.G_B.safetensors"}
    args = ["translate", "--data", str(folder), "--device", "cpu", "--class", "normal", "--no-pseudonyms"]
    pictures = []
    for k, given in enumerate((weights, kept, kept / "checkpoints")):
        assert cli.main([*args, "--checkpoint", str(given), "--to", str(tmp_path / str(k))]) == 0
        pictures.append({f.name: f.read_bytes() for f in (tmp_path / str(k)).rglob("*.png")})
    assert len(pictures[0]) == 5 and pictures[0] == pictures[1] == pictures[2]
    models = [{row["model"] for row in rows(tmp_path / str(k))} for k in range(3)]
    assert models[1] == models[2] == {digest(kept / "checkpoints")} != models[0]
    capsys.readouterr()
    for name, words in (("normal.G_B", "no such file"), ("normal.G_A", "no checkpoints/cyclegan")):
        (kept / "checkpoints" / f"{name}.safetensors").unlink()
        assert cli.main([*args, "--checkpoint", str(kept), "--to", str(tmp_path / "no")]) == 2
        error = capsys.readouterr().err.strip()
        assert error.startswith("covlib: error:") and words in error and "\n" not in error
    assert not (tmp_path / "no").exists()


def test_the_books_own_weights_translate_by_their_name(folder, tmp_path):
    from covbook.runner import weights as recorded

    to = plain("recorded", folder, "normal", tmp_path / "set")
    entry = next(e for e in recorded.entries("06_cyclegan") if e.result["profile"] == "long")
    assert len(rows(to)) == 5 and {row["model"] for row in rows(to)} == {digest(entry.checkpoint)}


def test_one_command_translates_several_classes_once_all_of_them_are_found(folder, weights, tmp_path, capsys):
    from dataclasses import replace

    x = torch.rand(4, 1, 32, 32, generator=torch_generator(0, "w")) * 2 - 1
    train_all(replace(CONFIG, sources=("normal", "pneumonia")), {"normal": x, "pneumonia": x * 0.5, "covid": -x},
              tmp_path / "run", seed=3, device="cpu", progress=False)
    args = ["translate", "--data", str(folder), "--to", str(tmp_path / "sets"), "--device", "cpu", "--class", "normal",
            "pneumonia"]
    assert cli.main([*args, "--checkpoint", str(weights)]) == 2  # has a model for the first class only
    assert cli.main([*args, "--checkpoint", str(tmp_path / "run")]) == 2  # the folder has images of the first only
    assert "no image of class 'pneumonia'" in capsys.readouterr().err and not (tmp_path / "sets").exists()
    (folder / "Pneumonia").mkdir()
    Image.fromarray(np.full((40, 40), 90, np.uint8)).save(folder / "Pneumonia" / "a.png")
    assert cli.main([*args, "--checkpoint", str(tmp_path / "run")]) == 0
    assert [len(rows(tmp_path / "sets" / name)) for name in ("normal", "pneumonia")] == [5, 1]


# ---- pseudonyms ------------------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path):
    """Six normal X-rays of two patients, three each, whose names are not to get about."""
    for k in range(6):
        patient = tmp_path / "own" / "Normal" / f"Jane {4711 + k // 3}"
        patient.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng(k, "own").integers(0, 256, (36, 36)).astype(np.uint8)).save(patient / f"film {k}.png")
    return tmp_path / "own"


def test_of_own_folders_no_name_goes_out_and_the_key_tells_who_is_who(own, weights, tmp_path):
    open_set = plain(weights, own, "normal", tmp_path / "open", batch=1)
    to = translate_folder(weights, own, "normal", tmp_path / "set", device="cpu", batch=1, progress=False)
    shown, hidden = rows(open_set), rows(to)
    assert b"Jane" in everything(open_set) and b"film" in everything(open_set) and not key_file(open_set).exists()
    assert b"Jane" not in everything(to) and b"film" not in everything(to) and TOLD in (to / "DATASHEET.md").read_text()
    assert (key_file(to).stat().st_mode & 0o777) == 0o600
    known = Key(key_file(to)).known
    same = [(known["source", r["source"]], known["patient", r["source_patient"]], r["sha256"]) for r in shown]
    assert sorted(same) == [(r["source"], r["source_patient"], r["sha256"]) for r in hidden]
    assert sorted(load_slices(to, size=32).patients) == sorted(known["patient", r["source_patient"]] for r in shown)


def test_a_set_under_pseudonyms_goes_on_under_the_same_ones(own, weights, tmp_path, capsys):
    args = ["translate", "--checkpoint", str(weights), "--data", str(own), "--class", "normal", "--device", "cpu"]
    args += ["--batch", "1", "--to", str(tmp_path / "set")]
    assert cli.main(args) == 0
    before = everything(tmp_path / "set")
    (tmp_path / "set" / rows(tmp_path / "set")[2]["file"]).unlink()
    assert cli.main(args) == 0 and everything(tmp_path / "set") == before
    assert cli.main([*args, "--no-pseudonyms"]) == 2
    assert "holds a set whose pseudonyms is True, this one's is None" in capsys.readouterr().err
    key_file(tmp_path / "set").unlink()
    assert cli.main(args) == 2 and everything(tmp_path / "set") == before
    assert "holds a set whose names is" in capsys.readouterr().err


def test_a_registered_source_keeps_its_names_unless_asked(own, weights, tmp_path, monkeypatch):
    monkeypatch.setenv("COVLIB_DATA", str(tmp_path / "cache"))
    shutil.copytree(own, tmp_path / "cache" / "covid19-radiography")
    args = ["translate", "--checkpoint", str(weights), "--data", "covid19-radiography", "--class", "normal"]
    for k, (words, hides) in enumerate((([], False), (["--pseudonyms"], True))):
        to = tmp_path / f"set{k}"
        assert cli.main([*args, "--device", "cpu", "--to", str(to), *words]) == 0
        assert key_file(to).exists() is hides and (b"Jane" in everything(to)) is not hides


def test_sources_in_memory_and_virtual_patients(tmp_path):
    config = Config.for_profile("smoke", {"patients": 7, "covid_patients": 2})
    slices = load_images(config, "phantom", seed=1)
    assert slices.classes == ("normal", "pneumonia", "covid")
    assert np.bincount(slices.labels).tolist() == [3, 2, 2] and len(set(slices.patients)) == 7
    sources = sources_from(slices, "pneumonia")
    assert len(sources) == 2 and np.array_equal(sources.read(1), slices.images[4, 0])


def test_folders_give_as_many_as_asked_with_covid_last(folder):
    from dataclasses import replace

    slices = load_images(replace(CONFIG, patients=5, covid_patients=2, cap_real=True), folder)
    assert slices.classes == ("normal", "covid") and np.bincount(slices.labels).tolist() == [3, 2]
    with pytest.raises(DataError, match="'pneumonia'.*normal, covid"):
        load_images(replace(CONFIG, sources=("pneumonia",)), folder)
