"""Weights and resume states on disk."""

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from covlib.atomic import atomic_folder, beside, write_atomically
from covlib.errors import ConfigError, DataError, TrainingError
from covlib.training.checkpoints import (
    CheckpointStore,
    difference,
    jsonable,
    load_weights,
    read_weights,
    save_weights,
    sha256,
)


def nets(width=4):
    return {"G": nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width)), "G2": nn.Linear(2, width)}


def test_weights_round_trip_with_buffers_and_header(tmp_path):
    a, b = nets(), nets()
    a["G"](torch.randn(3, 1, 5, 5))  # moves BatchNorm's statistics
    a["G"][0].weight.data = a["G"][0].weight.data.contiguous(memory_format=torch.channels_last)
    path = save_weights(tmp_path / "new folder" / "both.safetensors", a, {"chapter": "03_dcgan", "seed": 7})
    meta = load_weights(path, b, expect={"chapter": "03_dcgan", "seed": 7})
    assert meta == {"chapter": "03_dcgan", "seed": "7"}
    for name in a:
        for key, value in a[name].state_dict().items():
            assert torch.equal(value, b[name].state_dict()[key]), key
    assert [p.name for p in path.parent.iterdir()] == ["both.safetensors"]


def test_equal_weights_give_equal_bytes(tmp_path):
    """safetensors itself writes the notes in an order that changes from call to call."""
    a, notes = nets(), {f"note {k}": "\N{GREEK SMALL LETTER LAMDA}" * k for k in range(12)}
    turned = dict(reversed(notes.items()))
    files = [save_weights(tmp_path / f"{k}.safetensors", a, turned if k % 2 else notes) for k in range(6)]
    assert len({sha256(file) for file in files}) == 1
    tensors, read = read_weights(files[0])
    assert read == notes and torch.equal(tensors["G.0.weight"], a["G"][0].weight)
    assert int.from_bytes(files[0].read_bytes()[:8], "little") % 8 == 0
    a["G2"].weight.data[0, 0] += 1
    assert sha256(save_weights(tmp_path / "moved.safetensors", a, notes)) != sha256(files[0])
    bare = [save_weights(tmp_path / f"bare{k}.safetensors", {"G2": a["G2"]}) for k in range(2)]
    assert sha256(bare[0]) == sha256(bare[1]) and read_weights(bare[0])[1] == {}


def test_weights_in_a_folder_and_in_part(tmp_path):
    a, b = nets(), nets()
    for name, net in a.items():
        save_weights(tmp_path / f"{name}.safetensors", {name: net})
    load_weights(tmp_path, b)
    assert torch.equal(a["G2"].weight, b["G2"].weight) and torch.equal(a["G"][0].weight, b["G"][0].weight)
    save_weights(tmp_path / "both.safetensors", a)
    load_weights(tmp_path / "both.safetensors", {"G2": nets()["G2"]})  # one of those the file holds


def test_safetensors_reads_them_without_us(tmp_path):
    from safetensors.torch import load_file

    a = nets()
    save_weights(tmp_path / "a.safetensors", a)
    tensors = load_file(tmp_path / "a.safetensors")
    assert torch.equal(tensors["G2.weight"], a["G2"].weight) and "G.1.running_mean" in tensors


def test_checkpoints_that_do_not_fit_change_nothing(tmp_path):
    save_weights(tmp_path / "w.safetensors", nets(), {"chapter": "03_dcgan"})
    wide = nets(5)
    kept = {n: {k: v.clone() for k, v in net.state_dict().items()} for n, net in wide.items()}
    bad = tmp_path / "picture.safetensors"
    bad.write_bytes(b"\x89PNG, not weights")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((tmp_path / "w.safetensors").read_bytes()[:-40])
    good = tmp_path / "w.safetensors"
    cases = [
        (good, wide, None, r"'0\.weight' has shape \(4, 1, 3, 3\), this network needs \(5, 1, 3, 3\)"),
        (good, {"D": nn.Linear(1, 1), "G": wide["G"]}, None, "network 'D' lacks 'bias'"),
        (good, {"G2": nn.Linear(2, 4, bias=False)}, None, "network 'G2' has 'bias', which"),
        (good, wide, {"chapter": "05_cosingan"}, "its chapter is '03_dcgan', but '05_cosingan'"),
        (good, wide, {"study": "x"}, "its study is 'not stated', but 'x' is needed"),
        (tmp_path / "none.safetensors", wide, None, r"none\.safetensors: no such file|No such file"),
        (bad, wide, None, "picture.safetensors is not a safetensors file"),
        (cut, wide, None, "cut.safetensors is not a safetensors file, or is damaged"),
        (tmp_path, wide, None, r"G\.safetensors: "),
    ]
    for path, into, expect, text in cases:
        with pytest.raises(ConfigError, match=text) as error:
            load_weights(path, into, expect)
        assert "\n" not in str(error.value)
    for name, net in wide.items():
        assert all(torch.equal(v, kept[name][k]) for k, v in net.state_dict().items())


def test_resume_states_are_kept_to_the_last_few(tmp_path):
    store = CheckpointStore(tmp_path / "c", keep=3)
    assert store.newest() is None and store.files() == []
    for k in range(5):
        path = store.save({"done": k, "weights": torch.full((100,), float(k))}, f"step{k}")
        assert sha256(path)[:16] in path.name
    assert [f.name[:12] for f in store.files()] == ["000003-step2", "000004-step3", "000005-step4"]
    path, state = store.newest()
    assert state["done"] == 4 and torch.equal(state["weights"], torch.full((100,), 4.0))
    store.save({"done": 0}, "afresh", keep=1)
    assert [f.name[:13] for f in store.files()] == ["000006-afresh"]


def damage_by_flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [
    damage_by_flip,
    lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    lambda path: path.write_bytes(b""),
])
def test_a_damaged_state_is_passed_over_aloud(tmp_path, damage):
    store = CheckpointStore(tmp_path)
    for k in range(2):
        store.save({"done": k, "weights": torch.zeros(1000)}, f"step{k}")
    first, second = store.files()
    damage(second)
    with pytest.warns(UserWarning, match=rf"{second.name} cannot be used .*falling back to the one before"):
        path, state = store.newest()
    assert path == first and state["done"] == 0
    damage(first)
    with pytest.warns(UserWarning), pytest.raises(TrainingError, match="none of the 2 checkpoints .* resume=False"):
        store.newest()


def test_states_of_another_format_are_passed_over(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)
    store.save({"done": 0}, "old")
    monkeypatch.setattr("covlib.training.checkpoints.FORMAT", 99)
    store.save({"done": 1}, "new")
    monkeypatch.undo()
    with pytest.warns(UserWarning, match="it has format 99, this version reads 2"):
        assert store.newest()[1]["done"] == 0


def test_a_state_holds_data_not_code(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save({"done": 0, "net": nn.Linear(1, 1)}, "object")  # a pickled object: could run code when it is read
    with pytest.warns(UserWarning, match="does not hold a training state: UnpicklingError"):
        with pytest.raises(TrainingError, match="none of the 1 checkpoints"):
            store.newest()


def test_nothing_half_written_is_seen(tmp_path):
    """A process killed while it writes leaves the old file, and a leftover that the next run removes."""
    target = tmp_path / "000001-x-0000000000000000.pt"
    target.write_text("old")
    script = (
        "import os, sys, signal, pathlib\n"
        "from covlib.atomic import write_atomically\n"
        "def write(file):\n"
        "    file.write(b'new' * 10000); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomically(pathlib.Path(sys.argv[1]), write)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(target)], env={"PYTHONPATH": ":".join(sys.path)})
    assert done.returncode == -9
    assert target.read_text() == "old" and len(list(tmp_path.iterdir())) == 2
    left = next(f for f in tmp_path.iterdir() if f != target)
    write_atomically(target, lambda file: file.write(b"newer"))
    assert list(tmp_path.iterdir()) == [target] and target.read_text() == "newer"  # the next writer of the file tidies
    left.write_text("half")
    CheckpointStore(tmp_path).open()
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_that_a_living_process_writes_is_left_alone(tmp_path):
    target = tmp_path / "grid.png"
    ours = beside(target)  # this process is alive
    stem = ours.name.removesuffix(str(os.getpid()))
    dead, other = tmp_path / f"{stem}999999999", tmp_path / ".grid.png.partial-elsewhere-999999999"
    for file in (ours, dead, other):
        file.write_text("half")
    write_atomically(target.with_name("else.png"), lambda file: file.write(b"x"))
    assert dead.exists()
    beside(target)
    assert ours.exists() and not dead.exists() and other.exists()  # another machine's processes cannot be asked


def test_a_folder_that_a_killed_writer_had_moved_aside_is_put_back(tmp_path):
    target = tmp_path / "export[1]"
    for kind in ("old", "partial"):
        left = beside(target, kind)
        left = left.with_name(left.name.removesuffix(str(os.getpid())) + "999999999")
        left.mkdir()
        (left / kind).write_text("x")
    with pytest.raises(DataError, match="is not empty"), atomic_folder(target):
        pass
    assert [p.name for p in tmp_path.iterdir()] == [target.name] and (target / "old").exists()
    with atomic_folder(target, replaceable="old") as partial:
        (partial / "new").write_text("y")
    assert [p.name for p in tmp_path.rglob("*")] == [target.name, "new"]


def test_a_file_is_replaced_never_rewritten(tmp_path):
    path, other = tmp_path / "log.csv", tmp_path / "link"
    path.write_text("old")
    other.hardlink_to(path)
    write_atomically(path, lambda file: file.write(b"new"))
    assert path.read_text() == "new" and other.read_text() == "old"


def test_a_failing_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("old")

    def fail(file):
        file.write(b"new")
        raise OSError(28, "No space left on device")

    with pytest.raises(TrainingError, match=r"cannot write .*log\.csv: No space left on device; what was saved before"):
        write_atomically(path, fail)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="Not a directory|File exists"):
        write_atomically(tmp_path / "file" / "x", lambda file: file.write(b""))


def test_difference_names_the_field():
    a = {"config": {"lr": 1e-4, "sizes": [1, 2]}, "seed": 0}
    assert difference(a, json.loads(json.dumps(a))) is None
    assert difference(a, {"config": {"lr": 2e-4, "sizes": [1, 2]}, "seed": 0}) == ("config.lr", 1e-4, 2e-4)
    assert difference(a, {"config": {"lr": 1e-4, "sizes": [1, 3]}, "seed": 0}) == ("config.sizes[1]", 2, 3)
    assert difference(a, {"config": {"lr": 1e-4, "sizes": [1]}, "seed": 0}) == ("config.sizes", [1, 2], [1])
    assert difference(a, {"config": a["config"]}) == ("seed", 0, "not there")
    assert jsonable({"a": (1, 2), "p": type("P", (), {"__str__": lambda s: "text"})()}) == {"a": [1, 2], "p": "text"}


def test_headers_are_read_without_networks(tmp_path):
    save_weights(tmp_path / "a.safetensors", {"L": nn.Linear(2, 1)}, {"chapter": "x"})
    tensors, meta = read_weights(tmp_path / "a.safetensors")
    assert set(tensors) == {"L.weight", "L.bias"} and meta == {"chapter": "x"}
