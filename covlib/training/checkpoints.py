"""Files that a run leaves: network weights (safetensors) and resume states (checkpoints).

Every file appears whole or not at all: it is written under a temporary name, flushed to the disk, and renamed. A
checkpoint's name ends in the first digits of its SHA-256, so that a damaged one is known before it is read; a store
keeps the last few, and falls back to the one before when the newest is damaged.
"""

import hashlib
import json
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from covlib.atomic import write_atomically
from covlib.errors import ConfigError, TrainingError

SCALE = ":scale"  # behind a tensor's name: what the rows of its 8-bit numbers are multiplied by
FEW = 256  # numbers: smaller tensors are not worth 8 bits
FORMAT = 2  # of the resume state; raise it when older states can no longer be read
_NAME = re.compile(r"(\d{6})-(.+)-([0-9a-f]{16})\.pt")


# ---------------------------------------------------------------------------------------------------- weights


def save_weights(path, nets: dict[str, nn.Module], meta: dict[str, Any] | None = None) -> Path:
    """Write the weights and buffers of ``nets`` to one safetensors file, atomically; keys are ``net.parameter``.

    ``meta`` (chapter, method, seed, ...) goes into the file's header, values as text. Equal weights and notes give
    equal bytes, so that a file's checksum names its weights. Of several processes of one job only the first writes.
    """
    return save_tensors(path, {f"{n}.{k}": v for n, net in nets.items() for k, v in net.state_dict().items()}, meta)


def save_tensors(path, tensors: dict[str, Tensor], meta: dict[str, Any] | None = None) -> Path:
    """``save_weights`` for tensors that have their names already."""
    from safetensors.torch import save

    from covlib.training.devices import is_first

    if not is_first():
        return Path(path)
    plain = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    content = save(plain, metadata={str(k): str(v) for k, v in (meta or {}).items()})
    write_atomically(Path(path), lambda file: file.writelines(_ordered(content)))
    return Path(path)


def in_eight_bits(value: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (N, ...) as int8 and a float32 scale (N,): the largest of each row, along the first axis, becomes 127."""
    rows = value.detach().float().flatten(1)
    scale = (rows.abs().amax(1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
    return (rows / scale[:, None]).round().to(torch.int8).view(value.shape), scale


def packed_in_eight_bits(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors for ``save_tensors`` in a quarter of the bytes; ``read_weights`` gives them back as float32. Small
    ones, those of one axis, and whole numbers stay as they are."""
    found = {}
    for name, value in tensors.items():
        if value.is_floating_point() and value.ndim > 1 and value.numel() >= FEW:
            found[name], found[name + SCALE] = in_eight_bits(value)
        else:
            found[name] = value
    return found


def _ordered(content: bytes) -> tuple:
    """The parts of a safetensors file with its header in order: safetensors writes the notes in any order."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    notes = header.pop("__metadata__", None)
    fixed = {} if notes is None else {"__metadata__": dict(sorted(notes.items()))}
    fixed |= dict(sorted(header.items(), key=lambda item: item[1]["data_offsets"]))
    text = json.dumps(fixed, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # as the format has it: the tensors begin at a multiple of 8 bytes
    return len(text).to_bytes(8, "little"), text, memoryview(content)[end:]


def load_weights(path, nets: dict[str, nn.Module], expect: dict[str, str] | None = None) -> dict[str, str]:
    """Load what ``save_weights`` wrote into ``nets`` and return its header.

    ``path`` is a safetensors file that holds all of ``nets``, or a folder with one ``<net>.safetensors`` each. Nothing
    is changed unless everything fits. Raises ConfigError: no such file, not a safetensors file, a header that differs
    from ``expect`` (a checkpoint from another chapter), a missing network, other parameters, other shapes.
    """
    path, found, meta = Path(path), {}, {}
    files = [path / f"{name}.safetensors" for name in nets] if path.is_dir() else [path]
    for file in files:
        tensors, header = read_weights(file)
        for key, wanted in (expect or {}).items():
            if header.get(key) != str(wanted):
                raise ConfigError(f"checkpoint {file}: its {key} is {header.get(key, 'not stated')!r}, "
                                  f"but {str(wanted)!r} is needed")
        found |= tensors
        meta |= header
    states = {name: {k.removeprefix(name + "."): v for k, v in found.items() if k.startswith(name + ".")}
              for name in nets}
    for name, net in nets.items():
        check_state(net, states[name], f"checkpoint {path}: network {name!r}")
    for name, net in nets.items():
        net.load_state_dict(states[name])
    return meta


def digest(path) -> str:
    """What names the weights at ``path``: the SHA-256 of a file; of a folder's one safetensors file, or of the list of
    names and SHA-256 where it holds several. ConfigError where there is none."""
    path = Path(path)
    files = [path] if path.is_file() else sorted(path.rglob("*.safetensors"))
    if not files:
        raise ConfigError(f"checkpoint {path}: holds no safetensors file")
    sums = [sha256(file) for file in files]
    listed = "".join(f"{name}  {file.relative_to(path).as_posix()}\n" for name, file in zip(sums, files, strict=True)) \
        if len(files) > 1 else ""
    return hashlib.sha256(listed.encode()).hexdigest() if listed else sums[0]


def read_weights(file) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the header of a safetensors file; 8-bit ones with a scale as float32. Raises ConfigError when it
    is not one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="pt", device="cpu") as reader:
            tensors, header = {key: reader.get_tensor(key) for key in reader.keys()}, dict(reader.metadata() or {})
    except OSError as error:
        raise ConfigError(f"checkpoint {file}: {error.strerror or 'no such file'}") from error
    except SafetensorError as error:
        raise ConfigError(f"checkpoint {file} is not a safetensors file, or is damaged: {error}") from error
    for key in [key for key in tensors if key + SCALE in tensors]:
        whole, scale = tensors[key], tensors.pop(key + SCALE)
        tensors[key] = (whole.flatten(1).float() * scale[:, None]).view(whole.shape)
    return tensors, header


def check_state(net: nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Raise ConfigError unless ``state`` has just the parameters of ``net``, each of the right shape."""
    own = net.state_dict()
    if missing := sorted(own.keys() - state.keys()):
        raise ConfigError(f"{where} lacks {missing[0]!r} ({len(missing)} of {len(own)} are missing)")
    if extra := sorted(state.keys() - own.keys()):
        raise ConfigError(f"{where} has {extra[0]!r}, which this network does not have ({len(extra)} too many)")
    for key, value in own.items():
        if value.shape != state[key].shape:
            raise ConfigError(f"{where}: {key!r} has shape {tuple(state[key].shape)}, "
                              f"this network needs {tuple(value.shape)}")


# ---------------------------------------------------------------------------------------------------- resume states


class _Hashing:
    """A file that also takes the SHA-256 of what is written to it. torch.save writes front to back."""

    def __init__(self, file):
        self.file, self.digest = file, hashlib.sha256()

    def write(self, data) -> int:
        self.digest.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


class CheckpointStore:
    """The resume states in one folder: ``000012-<label>-<hash>.pt``, the number growing with every state written."""

    def __init__(self, folder, keep: int = 2):
        self.folder, self.keep = Path(folder), keep

    def open(self) -> None:
        """Make the folder, and remove what a killed run had half written. TrainingError if it cannot be used."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for leftover in self.folder.glob(".*.partial-*"):
                leftover.unlink()
        except OSError as error:
            raise TrainingError(f"cannot write to {self.folder}: {error.strerror}") from error

    def files(self) -> list[Path]:
        """The checkpoints, oldest first."""
        try:
            return sorted(f for f in self.folder.iterdir() if _NAME.fullmatch(f.name))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise TrainingError(f"cannot read {self.folder}: {error.strerror}") from error

    def save(self, state: dict, label: str, keep: int | None = None) -> Path:
        """Write a state (tensors, numbers, text, lists, dicts), then remove all but the last ``keep``."""
        older = self.files()
        number = 1 + (int(older[-1].name.split("-")[0]) if older else 0)

        def write(file):
            hashing = _Hashing(file)
            torch.save({"format": FORMAT, **state}, hashing)
            return self.folder / f"{number:06d}-{label}-{hashing.digest.hexdigest()[:16]}.pt"

        path = write_atomically(self.folder / f"{number:06d}", write)
        keep = self.keep if keep is None else keep
        for old in older[: max(0, len(older) + 1 - keep)]:
            old.unlink(missing_ok=True)
        return path

    def newest(self) -> tuple[Path, dict] | None:
        """The newest checkpoint that can be read, and its state; None where there is none at all.

        A damaged one is passed over with a warning. Raises TrainingError when all are damaged.
        """
        files = self.files()
        for path in reversed(files):
            problem = "its contents do not match the checksum in its name"
            if sha256(path)[:16] == path.stem.rsplit("-", 1)[1]:
                try:
                    state = torch.load(path, map_location="cpu", weights_only=True)
                    if state["format"] == FORMAT:
                        return path, state
                    problem = f"it has format {state['format']}, this version reads {FORMAT}"
                except (pickle.UnpicklingError, RuntimeError) as error:
                    problem = f"it does not hold a training state: {type(error).__name__}"
            warnings.warn(f"checkpoint {path} cannot be used ({problem}); falling back to the one before it",
                          stacklevel=2)
        if files:
            raise TrainingError(f"none of the {len(files)} checkpoints in {self.folder} can be used: they are damaged, "
                                "or of another version; choose another out, or resume=False to start afresh")
        return None


def sha256(path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---------------------------------------------------------------------------------------------------- identity


def jsonable(value):
    """``value`` as JSON would give it back (tuples become lists, other objects text), for storing and comparing."""
    return json.loads(json.dumps(value, sort_keys=True, default=str))


def difference(saved, wanted, where: str = "") -> tuple[str, object, object] | None:
    """The first field in which two identities differ, as (dotted name, saved value, wanted value); None if in none."""
    if isinstance(saved, dict) and isinstance(wanted, dict):
        for key in sorted(saved.keys() | wanted.keys()):
            name = f"{where}.{key}" if where else key
            if key not in saved or key not in wanted:
                return name, saved.get(key, "not there"), wanted.get(key, "not there")
            if found := difference(saved[key], wanted[key], name):
                return found
        return None
    if isinstance(saved, list) and isinstance(wanted, list) and len(saved) == len(wanted):
        pairs = ((f"{where}[{i}]", a, b) for i, (a, b) in enumerate(zip(saved, wanted, strict=True)))
        return next((found for name, a, b in pairs if (found := difference(a, b, name))), None)
    return None if saved == wanted else (where, saved, wanted)
