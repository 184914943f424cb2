"""Weights of recorded runs: what is kept of a run, what a chapter is given, and what is refused in one line."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from covbook import project, report, runs, weights
from covbook.cli import main
from covbook.runner import chapters, model_card
from covbook.runner import weights as keeping
from covlib import config
from covlib.errors import ConfigError, DataError
from covlib.training.checkpoints import digest, load_weights, read_weights, save_tensors, save_weights, sha256
from covlib.training.trained import weights_in


@dataclass(frozen=True)
class Demo(config.Config):
    after_training = ("sets",)

    width: int = 8
    epochs: int = 3
    sets: int = 10

    @classmethod
    def profiles(cls):
        return {"cpu": {"epochs": 2}}


def nets(seed: int, names=("covid.G", "covid.D", "normal.G", "normal.D")):
    torch.manual_seed(seed)
    return {name: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)) for name in names}


def finished(out, chapter="03_dcgan", *, seed=0, trained=None, **changes):
    """A run that was started, left weights, and was finished."""
    run = runs.start(chapter, profile="cpu", device="cpu", seed=seed, out=str(out), config_cls=Demo, **changes)
    name = chapter.partition("_")[2]
    save_weights(run.out / "checkpoints" / f"{name}.safetensors", trained or nets(seed), {"chapter": chapter})
    run.metric("quality", 0.75, n=4, interval=(0.5, 0.875), how="made up for this test")
    run.finish()
    return run.out


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A project of its own: nothing recorded, no weights."""
    monkeypatch.setattr(project, "RESULTS", tmp_path / "data" / "results")
    monkeypatch.setattr(project, "WEIGHTS", tmp_path / "data" / "weights")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def kept(out):
    return keeping.store(out, report.record(out))


def ask(**changes):
    return weights.find("03_dcgan", **{"profile": "cpu", "data": "phantom", "seed": 0, "config_cls": Demo} | changes)


def test_what_is_given_is_what_the_run_trained(here):
    folder = kept(finished(here / "run"))
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == [
        "README.md", "checkpoints/dcgan.safetensors", "weights.json"]
    found = ask()
    assert found.checkpoint == folder / "checkpoints" / "dcgan.safetensors" and found.here
    assert found.register["left_out"] == ["normal.D"] and found.bytes == found.checkpoint.stat().st_size
    trained, loaded = nets(0), nets(9, ("covid.G", "normal.G"))
    load_weights(found.checkpoint, loaded, expect={"chapter": "03_dcgan"})
    for name, net in loaded.items():
        for key, value in net.state_dict().items():
            assert torch.equal(value, trained[name].state_dict()[key])
    assert not list(folder.parent.glob(".*"))


def test_large_files_are_cut_by_network_and_still_load(here, monkeypatch):
    monkeypatch.setattr(keeping, "FILE_LIMIT", 1000)
    folder = kept(finished(here / "run"))
    found = ask()
    assert found.checkpoint == folder / "checkpoints" and found.register["shipped"]
    assert [list(f["networks"].items()) for f in found.register["files"]] == [[("covid.D", 33)], [("covid.G", 33)],
                                                                              [("normal.G", 33)]]
    assert [f["path"] for f in found.register["files"]] == [f"checkpoints/{name}.safetensors" for name in
                                                            ("covid.D", "covid.G", "normal.G")]
    loaded = nets(9, ("covid.G", "normal.G"))
    load_weights(found.checkpoint, loaded)
    assert torch.equal(loaded["covid.G"][0].weight, nets(0)["covid.G"][0].weight)


def test_files_that_are_still_too_large_are_kept_in_half_precision(here, monkeypatch):
    def large(seed: int):
        torch.manual_seed(seed)
        return {f"covid.{name}": nn.Linear(50, side) for name, side in (("D", 4), ("G", 80))}

    monkeypatch.setattr(keeping, "FILE_LIMIT", 10_000)
    kept(finished(here / "run", trained=large(0)))
    found = ask()
    stored = {path.stem: read_weights(path) for path in sorted(found.checkpoint.glob("*.safetensors"))}
    assert {name: tensors[f"{name}.weight"].dtype for name, (tensors, _) in stored.items()} == {
        "covid.D": torch.float32, "covid.G": torch.float16}
    assert found.register["half"] and stored["covid.G"][1]["stored"] == "half precision"
    loaded = {"covid.G": large(9)["covid.G"]}
    load_weights(found.checkpoint, loaded)
    np.testing.assert_allclose(loaded["covid.G"].weight.detach(), large(0)["covid.G"].weight.detach(), atol=1e-4)


def test_files_that_are_too_large_together_are_halved_the_largest_first(here, monkeypatch):
    torch.manual_seed(0)
    trained = {f"covid.{name}": nn.Linear(50, side) for name, side in (("D", 40), ("G", 90))}
    monkeypatch.setattr(keeping, "FILE_LIMIT", 20_000)
    monkeypatch.setattr(keeping, "RUN_LIMIT", 18_500)
    kept(finished(here / "run", trained=trained))
    found = ask()
    of = {path.stem: read_weights(path) for path in sorted(found.checkpoint.glob("*.safetensors"))}
    kinds = {name: tensors[f"{name}.weight"].dtype for name, (tensors, _) in of.items()}
    assert kinds == {"covid.D": torch.float32, "covid.G": torch.float16} and found.register["shipped"]
    assert found.bytes <= 18_500 and of["covid.G"][1]["stored"] == "half precision"


def test_what_half_precision_does_not_make_small_enough_is_kept_in_eight_bits(here, monkeypatch):
    def large(seed: int):
        torch.manual_seed(seed)
        return {"G1": nn.Sequential(nn.Linear(90, 80), nn.BatchNorm1d(80)), "U": nn.Conv2d(3, 4, 3)}

    monkeypatch.setattr(keeping, "FILE_LIMIT", 12_000)
    folder = kept(finished(here / "run", "05_cosingan", trained=large(0)))
    found = weights.find("05_cosingan", profile="cpu", data="phantom", seed=0, config_cls=Demo)
    assert found.checkpoint.stat().st_size < 12_000 and found.register["eight_bits"]
    assert "Kept in 8 bits" in (folder / "README.md").read_text()
    loaded = large(9)
    load_weights(found.checkpoint, loaded)
    for name, net in large(0).items():
        for key, value in net.state_dict().items():
            step = value.abs().flatten(1).amax(1).max() / 127 if value.ndim > 1 else 0
            assert (loaded[name].state_dict()[key] - value).abs().max() <= step * 0.51
    assert found.register["files"][0]["networks"] == {"G1": 90 * 80 + 80 + 4 * 80 + 1, "U": 112}


def test_networks_of_one_large_file_are_kept_in_half_precision(here, monkeypatch):
    def large(seed: int):
        torch.manual_seed(seed)
        return {name: nn.Sequential(nn.Linear(30, 40), nn.BatchNorm1d(40)) for name in ("G1", "G2")}

    out = finished(here / "run", "05_cosingan", trained=large(0))
    size = (out / "checkpoints" / "cosingan.safetensors").stat().st_size
    monkeypatch.setattr(keeping, "FILE_LIMIT", size - 1)
    folder = kept(out)
    found = weights.find("05_cosingan", profile="cpu", data="phantom", seed=0, config_cls=Demo)
    tensors, header = read_weights(found.checkpoint)
    assert header["stored"] == "half precision" and "half precision" in (folder / "README.md").read_text()
    assert {v.dtype for v in tensors.values() if v.is_floating_point()} == {torch.float16}
    assert tensors["G1.1.num_batches_tracked"].dtype == torch.int64
    loaded = large(9)
    load_weights(found.checkpoint, loaded)
    assert loaded["G2"][0].weight.dtype == torch.float32
    trained = large(0)["G2"][0].weight
    np.testing.assert_allclose(loaded["G2"][0].weight.detach(), trained.detach(), rtol=1e-3)


def test_too_large_ones_are_registered_and_used_once_they_are_put_there(here, monkeypatch):
    monkeypatch.setattr(keeping, "RUN_LIMIT", 100)
    folder = kept(finished(here / "run", "04_global_local", trained=nets(0, ("G1",))))
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "weights.json"]
    assert "too large" in (folder / "README.md").read_text().lower()
    asked = {"profile": "cpu", "data": "phantom", "seed": 0, "config_cls": Demo}
    with pytest.raises(ConfigError, match="too large for the repository.*SHA-256 .*leave checkpoint out") as error:
        weights.find("04_global_local", **asked)
    assert "\n" not in str(error.value)
    (folder / "checkpoints").mkdir()
    source = here / "run" / "checkpoints" / "global_local.safetensors"
    (folder / "checkpoints" / source.name).write_bytes(source.read_bytes())
    assert weights.find("04_global_local", **asked).here
    assert [row[-1] for row in weights.listing()] == ["here"]


def test_files_beside_the_main_one_keep_their_place(here):
    out = here / "run"
    save_weights(out / "modality_2" / "checkpoints" / "cosingan.safetensors", nets(3, ("U",)), {})
    save_weights(out / "losses" / "checkpoints" / "cosingan.safetensors", nets(4, ("U",)), {})  # of an ablation
    folder = kept(finished(out, "05_cosingan", trained=nets(0, ("U",))))
    found = weights.entries("05_cosingan")[0]
    assert found.checkpoint == folder / "checkpoints" / "cosingan.safetensors"
    assert [f["path"] for f in found.register["files"]] == ["checkpoints/cosingan.safetensors",
                                                            "modality_2/checkpoints/cosingan.safetensors"]


def test_a_chapter_with_several_files_is_given_their_folder(here):
    out = here / "run"
    save_weights(out / "checkpoints" / "noise-dcgan.safetensors", nets(3, ("G",)), {})
    kept(finished(out, "08_side_by_side", trained=nets(0, ("G",))))
    assert weights.entries()[0].checkpoint.name == "checkpoints"


def test_settings_are_the_recordings_unless_named(here):
    plain, longer = kept(finished(here / "a")), kept(finished(here / "b", overrides={"epochs": 9}))
    assert plain != longer
    assert ask().folder == plain
    assert ask(overrides={"epochs": "9"}).folder == longer
    assert ask(overrides={"sets": 3}).folder == plain  # judged after training: free
    for overrides in ({"epochs": 5}, {"width": 4}):
        with pytest.raises(ConfigError, match=r"for profile cpu, virtual patients, seed 0, \w+ = \d; there are: "
                                              r"profile cpu, virtual patients, seed 0; .*, epochs = 9$"):
            ask(overrides=overrides)


def test_the_only_recording_gives_its_settings_to_the_run(here):
    kept(finished(here / "a", overrides={"epochs": 9}))
    run = runs.start("03_dcgan", device="cpu", out="again", checkpoint="recorded", config_cls=Demo,
                     overrides={"sets": 2})
    assert (run.config.epochs, run.config.sets, run.overrides) == (9, 2, {"epochs": 9, "sets": 2})
    assert run.checkpoint.is_file() and any("nothing was trained" in note for note in run.notes)
    run.finish()
    with pytest.raises(ConfigError, match="was given its weights"):
        kept(run.out)


@pytest.mark.parametrize("change, words", [
    ({"seed": 1}, "for profile cpu, virtual patients, seed 1; there are: profile cpu, virtual patients, seed 0"),
    ({"profile": "smoke"}, "for profile smoke"),
    ({"data": "covid-ct"}, "data covid-ct"),
])
def test_other_patients_are_refused(here, change, words):
    kept(finished(here / "run"))
    with pytest.raises(ConfigError) as error:
        ask(**change)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_chapter_without_any_says_so(here):
    with pytest.raises(ConfigError, match="no recorded weights of 01_data .*there are: none for this chapter"):
        runs.start("01_data", device="cpu", out="out", checkpoint="recorded", config_cls=Demo)
    assert not (here / "out").exists()


@pytest.mark.parametrize("harm, words", [
    (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\0"), "is not the registered file"),
    (lambda path: path.write_bytes(path.read_bytes() + b"\0"), "is not the registered file"),
    (lambda path: path.unlink(), "is missing; restore it with git"),
])
def test_files_are_checked_before_they_are_used(here, harm, words):
    kept(finished(here / "run", trained={k: v for k, v in nets(0).items() if k.endswith("G")}))
    harm(ask().checkpoint)
    with pytest.raises(ConfigError, match=words):
        ask()


def test_weights_of_another_run_are_noticed(here):
    out = finished(here / "run")
    folder = kept(out)
    register = json.loads((folder / "weights.json").read_text())
    (folder / "weights.json").write_text(json.dumps(register | {"started": "2020-01-01T00:00:00+00:00"}))
    with pytest.raises(DataError, match="record that run with --weights"):
        ask()
    (folder / "weights.json").write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        ask()
    (folder / "weights.json").write_text(json.dumps(register | {"files": [{"path": "../../x"}]}))
    with pytest.raises(DataError, match="files"):
        ask()
    assert kept(out) == folder and ask().here  # recorded anew


def test_only_virtual_patients_are_kept(here):
    out = finished(here / "run")
    numbers = json.loads((out / "metrics.json").read_text())
    numbers["data"] |= {"kind": "source", "name": "covid-ct"}
    (out / "metrics.json").write_text(json.dumps(numbers))
    with pytest.raises(ConfigError, match="weights trained on scans"):
        kept(out)
    empty = runs.start("01_data", profile="cpu", device="cpu", out=str(here / "empty"), config_cls=Demo)
    empty.finish()
    with pytest.raises(ConfigError, match="left none"):
        kept(empty.out)
    assert not list((here / "data" / "weights").glob("**/*.safetensors"))


def test_cards_are_written_anew_where_they_differ(here):
    path = kept(finished(here / "run")) / "README.md"
    text = path.read_text()
    assert keeping.write_cards() == [] and "0.75 [0.50, 0.88]" in text and "made up for this test" in text
    path.write_text("typed by hand")
    assert keeping.write_cards() == [path] and path.read_text() == text


def test_digest_names_a_file_or_all_of_a_folder(tmp_path):
    one = save_tensors(tmp_path / "a" / "one.safetensors", {"x.y": torch.ones(2)})
    assert digest(one) == digest(one.parent) == sha256(one)
    save_tensors(one.with_name("two.safetensors"), {"x.y": torch.zeros(2)})
    both = digest(one.parent)
    assert both not in (sha256(one), digest(one.with_name("two.safetensors")))
    one.rename(one.with_name("three.safetensors"))
    assert digest(one.parent) != both
    with pytest.raises(ConfigError, match="no safetensors"):
        digest(tmp_path / "none")


def test_cyclegan_starts_from_generators_in_files_of_their_own(here, monkeypatch):
    from covlib.papers.cyclegan import method as cyclegan

    settings = cyclegan.Config.for_profile("smoke")
    images = {k: torch.zeros(2, settings.channels, settings.image_size, settings.image_size)
              for k in (*settings.sources, cyclegan.TARGET)}
    methods = {s: cyclegan.CycleGAN(settings, 2, seed=5) for s in settings.sources}
    given = {f"{s}.{n}": net for s, m in methods.items() for n, net in m.networks.items()}
    meta = {"chapter": "06_cyclegan", **{k: getattr(settings, k) for k in cyclegan.SHAPE_FIELDS}}
    save_weights(here / "run" / "checkpoints" / "cyclegan.safetensors", given, meta)
    monkeypatch.setattr(keeping, "FILE_LIMIT", 100_000)
    part = keeping._files(here / "run", here / "kept", keeping.LAYOUTS["06_cyclegan"])
    assert part["checkpoint"] == "checkpoints" and not any("D_" in file["path"] for file in part["files"])
    assert sorted(part["left_out"]) == sorted(name for name in given if ".D_" in name)
    loaded, results = cyclegan.train_all(settings, images, here / "none", seed=9, device="cpu",
                                         checkpoint=here / "kept" / "checkpoints")
    assert results == {} and not (here / "none").exists()
    for name, net in given.items():
        source, which = name.split(".")
        mine = loaded[source].networks[which].state_dict()
        assert all(torch.equal(v, mine[k]) for k, v in net.state_dict().items()) == which.startswith("G")


# ---- an earlier run's folder -----------------------------------------------------------------------------------------


def test_a_runs_folder_gives_its_weights_and_settings(here, monkeypatch):
    out = finished(here / "run", seed=3, overrides={"epochs": 9})
    for given in (str(out), str(out / "checkpoints" / "dcgan.safetensors")):
        run = runs.start("03_dcgan", profile="cpu", device="cpu", seed=3, out=str(here / "new"), config_cls=Demo,
                         checkpoint=given, resume=False)
        assert run.checkpoint == out / "checkpoints" / "dcgan.safetensors"
        assert run.config.epochs == (9 if given == str(out) else 2)  # a file alone says nothing of a run
    run = runs.start("03_dcgan", profile="cpu", device="cpu", out=str(here / "new"), config_cls=Demo, resume=False,
                     checkpoint=str(out), overrides={"epochs": 4})
    assert run.config.epochs == 4 and "earlier run (profile cpu, seed 3)" in run.notes[0]
    assert weights.of_run("03_dcgan", out).told["data"] == "phantom"
    assert weights.of_run("03_dcgan", out / "checkpoints") is None
    chapter = chapters.find("03")
    assert chapters.taken_over(chapter, str(out)) == {"profile": "cpu", "data": "phantom", "seed": 3}
    assert chapters.taken_over(chapter, None) == chapters.taken_over(chapter, "recorded") == {}
    shown = []
    monkeypatch.setattr(chapters, "run", lambda chapter, settings, show: shown.append(settings) or here / "nb")
    assert main(["run", "03", "--checkpoint", str(out), "--out", "new2", "-p", "data", "none"]) == 0
    assert main(["run", "03", "--checkpoint", str(out), "--out", "new2", "--seed", "1"]) == 0
    assert [(s["seed"], s["profile"], s["data"], s["overrides"]) for s in shown] == [
        (3, "cpu", "phantom", {}), (1, "cpu", "phantom", {})]


def test_another_chapters_run_and_one_without_weights_are_refused(here):
    out = finished(here / "run", "04_global_local", trained=nets(0, ("G1",)))
    with pytest.raises(ConfigError, match="is a run of 04_global_local; one of 03_dcgan is wanted$"):
        weights.of_run("03_dcgan", out)
    begun = runs.start("03_dcgan", profile="cpu", device="cpu", out=str(here / "begun"), config_cls=Demo)
    with pytest.raises(ConfigError, match="begun holds no weights yet"):
        weights.of_run("03_dcgan", begun.out)


def test_the_second_modality_of_a_folder_is_found(here):
    out = here / "run"
    save_weights(out / "modality_2" / "checkpoints" / "cosingan.safetensors", nets(3, ("U",)), {})
    finished(out, "05_cosingan", trained=nets(0, ("U",)))
    assert weights.of_run("05_cosingan", out).checkpoint == out / "checkpoints" / "cosingan.safetensors"
    assert weights_in(out, "cosingan.safetensors") == weights_in(out / "checkpoints", "cosingan.safetensors")


# ---- what lies in the repository -------------------------------------------------------------------------------------


ENTRIES = weights.entries()
every_entry = pytest.mark.parametrize("entry", ENTRIES, ids=[entry.name for entry in ENTRIES])


def test_there_are_some_and_no_file_besides():
    assert any(entry.result["chapter"] == "03_dcgan" for entry in ENTRIES)
    registered = {entry.folder / file["path"] for entry in ENTRIES for file in entry.register["files"]}
    assert set(project.WEIGHTS.rglob("*.safetensors")) <= registered
    assert {path.name for path in project.WEIGHTS.iterdir() if path.is_dir()} == {entry.name for entry in ENTRIES}


@every_entry
def test_committed_files_and_cards(entry):
    assert entry.result["data"]["kind"] == "phantom"
    if entry.register["shipped"]:
        weights.check(entry)
        assert max(file["bytes"] for file in entry.register["files"]) <= keeping.FILE_LIMIT
    assert (entry.folder / "README.md").read_text(encoding="utf-8") == model_card.card(entry)


def test_recorded_dcgan_makes_slices():
    from covlib.papers.dcgan import method as dcgan
    from covlib.seeding import torch_generator

    found = weights.find("03_dcgan", profile="cpu", data="phantom", seed=0, config_cls=dcgan.Config)
    settings = dcgan.Config.for_profile("cpu", found.result["overrides"])
    names = list(found.result["data"]["classes"])
    methods, results = dcgan.train_all(settings, {n: torch.zeros(2, 1, 56, 56) for n in names}, "unused", device="cpu",
                                       checkpoint=found.checkpoint)
    assert results == {} and names == ["normal", "covid"]
    made = {n: m.synthesize(8, torch_generator(0, "test")).numpy() for n, m in methods.items()}
    for images in made.values():
        assert images.shape == (8, 1, 56, 56) and images.std() > 0.4  # black air, bright body: not the grey of noise
        assert images[:, 0, :4, :4].mean() < -0.7
    assert np.abs(made["normal"] - made["covid"]).mean() > 0.05
    tensors, header = read_weights(next(found.checkpoint.glob("*.safetensors")))
    assert header["chapter"] == "03_dcgan" and all(bool(torch.isfinite(t).all()) for t in tensors.values())
