"""One run of a chapter: its parameters checked, its settings resolved, its measurements kept in ``metrics.json``.

The first cell after a chapter's parameters is ``run = covbook.runs.start("03_dcgan", profile=profile, ...)``, the last
cell is ``run.finish()``. Everything in ``metrics.json`` outside "times" and "paths" repeats, bit for bit, when the same
run is repeated on the same CPU.
"""

import io
import logging
import math
import os
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from covbook import claims, naming, project, provenance
from covbook.places import check_writable, make_out, name_data
from covbook.tables import Box, Table
from covbook.text import MEANING, MEASURED, duration, measured, show_setting
from covlib import atomic
from covlib.config import PROFILES, Config, check_profile
from covlib.errors import ConfigError, DataError

if TYPE_CHECKING:
    from covbook.weights import Beginning, OfRun, Recorded

MAX_WIDTH = 1200  # pixels, of any figure in the book
HARDWARE = {"smoke": "2 CPU cores", "cpu": "2 CPU cores", "long": "2 CPU cores", "gpu": "one data-centre GPU",
            "paper": "one data-centre GPU"}


def start(chapter: str, *, profile: str = "cpu", data: str = "phantom", seed: int = 0, device: str = "auto",
          out: str | None = None, checkpoint: str | None = None, resume: bool = True,
          overrides: dict[str, Any] | None = None, config_cls: type[Config] | None = None) -> "Run":
    """Check a chapter's parameters, seed every generator, make ``out`` and resolve the settings.

    Args:
        chapter: the notebook's name without ending, "03_dcgan".
        profile: one of covlib.config.PROFILES.
        data: "phantom", a registered source's name, or a file or folder that exists.
        seed: whole number of at least 0; everything random follows from it.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        out: folder for what the run leaves; ``runs/<chapter>`` under the current folder by default.
        checkpoint: weights to use instead of training: the folder of an earlier run, a file or folder of weights, or
            "recorded" for those of a recorded run with the same profile, data and seed (see ``covbook.weights``). A
            run's settings are taken over where ``overrides`` does not name them. "recorded" with data of your own: the
            training begins at the recorded weights of virtual patients, where the chapter can (``weights.beginning``).
        resume: take up a run that was cut off in ``out``.
        overrides: fields of ``config_cls`` to change; strings are read by the field's type.
        config_cls: the paper's Config; None for a chapter without settings.

    Raises:
        ConfigError: the first parameter that does not fit, and what would be right. Nothing is written then.
        DataError: a registered source that was not downloaded.
    """
    if not isinstance(chapter, str) or not re.fullmatch(r"[0-9]{2}_[a-z0-9_]+", chapter):
        raise ConfigError(f"chapter: must look like 03_dcgan, got {chapter!r}")
    overrides, out = {} if overrides is None else overrides, f"runs/{chapter}" if out is None else out
    given = check_run(chapter, {"profile": profile, "data": data, "seed": seed, "device": device, "out": out,
                                "checkpoint": checkpoint, "resume": resume, "overrides": overrides},
                      config_cls or Config)
    if given:
        checkpoint, overrides = given.checkpoint, {**given.overrides, **overrides}
    config = (config_cls or Config).for_profile(profile, overrides)
    kind, name = name_data(data)
    device = _resolve_device(device)
    folder = make_out(Path(out).expanduser())
    claims.claim(folder, chapter, profile, name, seed, {k: getattr(config, k) for k in overrides})

    from covlib.seeding import seed_everything

    seed_everything(seed)
    naming.call_them(chapter, kind)
    run = Run(chapter=chapter, profile=profile, data=str(data), seed=seed, device=device, out=folder,
              checkpoint=None if checkpoint is None else Path(checkpoint), resume=resume,
              begin_at=getattr(given, "begin_at", None), config=config if config_cls else None,
              overrides={k: getattr(config, k) for k in overrides}, data_kind=kind, data_name=name)
    _Warnings(run).attach()
    if given:
        run.note(given.note)
    return run


def check_run(chapter: str, settings: dict[str, Any], config_cls: type[Config] | None = None,
              ) -> "Recorded | OfRun | Beginning | None":
    """Check everything about a run that can be known before it starts; nothing is written.

    Args:
        settings: values of the parameters of ``start``; those left out are its defaults, apart from "out".
        config_cls: the chapter's Config, which checks the overrides; None leaves them to the chapter.

    Returns:
        The weights that the run is to use, if it asks for a recorded run's or gives a run's folder.

    Raises:
        ConfigError, DataError: one line naming the first parameter, file or setting that does not fit.
    """
    profile, data, seed = check_profile(settings["profile"]), settings["data"], settings.get("seed", 0)
    device, checkpoint = settings["device"], settings.get("checkpoint")
    overrides, resume = settings.get("overrides", {}), settings.get("resume", True)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ConfigError(f"seed: must be a whole number of at least 0, got {seed!r}")
    if not isinstance(resume, bool):
        raise ConfigError(f"resume: must be True or False, got {resume!r}")
    config = config_cls.for_profile(profile, overrides) if config_cls is not None else None
    kind, name = name_data(data)
    given: Recorded | OfRun | Beginning | None = None
    if checkpoint == "recorded":
        from covbook import weights

        asked = {"profile": profile, "data": name, "overrides": overrides, "config_cls": config_cls}
        given = weights.find(chapter, seed=seed, **asked) if kind == "phantom" else weights.beginning(chapter, **asked)
    elif checkpoint is not None:
        if not isinstance(checkpoint, (str, Path)) or not Path(checkpoint).exists():
            raise ConfigError(f"checkpoint: {str(checkpoint)!r} does not exist; give the weights of an earlier run of "
                              f"{chapter}, or recorded")
        if not os.access(checkpoint, os.R_OK):
            raise ConfigError(f"checkpoint: {checkpoint} cannot be read; check its permissions")
        from covbook import weights

        given = weights.of_run(chapter, checkpoint)
    if device not in ("auto", "cpu"):  # these two fit everywhere, and PyTorch need not be imported to know it
        _resolve_device(device)
    check_writable(settings["out"])
    if given:
        overrides = {**given.overrides, **overrides}
        config = config_cls.for_profile(profile, overrides) if config_cls is not None else None
    if resume:
        resolved = {k: getattr(config, k) for k in overrides} if config else None if overrides else {}
        claims.check(Path(settings["out"]).expanduser(), claims.claimed(chapter, profile, name, seed, resolved))
    return given


class _Warnings(logging.Handler):
    """Keeps what the library warns of (a fallback, say) as notes of the run and in ``out/run.log``, off the page."""

    def __init__(self, run: "Run"):
        super().__init__(logging.WARNING)
        self.run = run

    def attach(self) -> None:
        logger = logging.getLogger("covlib")
        for handler in [h for h in logger.handlers if isinstance(h, _Warnings)]:
            logger.removeHandler(handler)  # of an earlier run in this process
        logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.run.note(record.getMessage())
        with (self.run.out / "run.log").open("a", encoding="utf-8") as log:
            log.write(f"{record.levelname} {record.name}: {record.getMessage()}\n")


@dataclass(repr=False)
class Run:
    """A started run. Made by ``start``; see there for the parameters.

    Attributes:
        config: the resolved settings (None for a chapter without any); device: torch.device; out: Path.
        begin_at: weights at which a training begins, in place of chance; None: at chance.
        metrics, notes, figures, weights: what was recorded so far; stage_seconds: seconds spent per ``stage``.
        verdict: what became of the training (``covbook.verdict.look``): "words", and "collapsed", why the images are no
            data set.
    """

    chapter: str
    profile: str
    data: str
    seed: int
    device: Any
    out: Path
    checkpoint: Path | None
    resume: bool
    config: Any
    overrides: dict[str, Any]
    data_kind: str
    data_name: str
    metrics: list[dict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)
    weights: dict[str, str] = field(default_factory=dict)
    begin_at: Path | None = None
    stage_seconds: dict[str, float] = field(default_factory=dict)
    verdict: dict[str, list[str]] | None = None

    def __post_init__(self):
        import torch

        self._clock = time.perf_counter()
        self._threads = torch.get_num_threads()  # now: what a chapter imports later may change it
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._data = {"kind": self.data_kind, "name": self.data_name, "fingerprint": "", "images": None,
                      "patients": None, "classes": {}, "split": None, "notes": []}

    # -- recording ----------------------------------------------------------------------------------------------------

    def metric(self, name: str, value, *, n: int | None = None, interval=None, how: str = "", paper: dict | None = None,
               unit: str = "", values=None) -> float | int | None:
        """Keep one measured number, and return it.

        Args:
            name: lower-case words joined by underscores, unique in the run ("positive_rate").
            value: a finite number, an Interval (its n, ends and method are used where not given), a Spread of repeats
                (kept under "spread": it is no interval), or None where it could not be measured: ``how`` must then
                say why.
            n: number of independent things behind it (images, sets, patients).
            interval: 95 % interval as (low, high) or an Interval.
            how: how value and interval were got, in a few words.
            paper: where the paper has this number: keys among "table", "row", "claim" (an id in data/reported).
            values: the single values behind it, one per set, fold or seed.

        Raises:
            ConfigError: a bad or repeated name, or a number that is not finite.
        """
        if not re.fullmatch(r"[a-z0-9_.]+", str(name)):
            raise ConfigError(f"metric: {name!r} must be lower-case words joined by underscores")
        if any(m["name"] == name for m in self.metrics):
            raise ConfigError(f"metric: {name!r} was already recorded in this run; give each measurement its own name")
        for source in (value, interval):
            if hasattr(source, "low") and hasattr(source, "high"):
                n = int(source.n) if n is None and getattr(source, "n", None) is not None else n
                how = how or getattr(source, "method", "")
                interval = None if math.isnan(source.low) or math.isnan(source.high) else (source.low, source.high)
        spread = None
        if hasattr(value, "lowest"):
            n, how = int(value.n) if n is None else n, how or value.method
            spread = None if math.isnan(value.lowest) else (value.lowest, value.highest)
        value = getattr(value, "value", value)
        if value is None and not how:
            raise ConfigError(f"metric: {name!r} has no value; say in how= why it could not be measured")
        self.metrics.append({
            "name": name, "value": None if value is None else _number(name, value), "unit": unit,
            "n": None if n is None else int(n),
            "interval": None if interval is None else [_number(name, v) for v in interval], "how": how,
            "paper": dict(paper) if paper else None,
            **({} if spread is None else {"spread": [_number(name, v) for v in spread]}),
            **({} if values is None else {"values": [_number(name, v) for v in values]})})
        return self.metrics[-1]["value"]

    @contextmanager
    def where_possible(self, *names: str):
        """A part that needs more images or patients than a small set may have: a DataError inside ends the part, not
        the chapter. It is said, noted, and kept as the reason why the metrics ``names`` have no value::

            with run.where_possible("fid", "fid_floor"):
                run.metric("fid", ...)
        """
        try:
            yield
        except DataError as error:
            there = {metric["name"] for metric in self.metrics}
            lost = [name for name in names if name not in there]
            for name in lost:
                self.metric(name, None, how=f"not measured: {error}")
            self.note(f"not measured: {error}")
            print(f"not measured: {', '.join(lost)}; {error}" if lost else f"not measured: {error}")

    def note(self, text: str) -> None:
        """Keep one line that a reader of the numbers should know. It must not name paths of this machine."""
        if text not in self.notes:
            self.notes.append(str(text))

    def weight(self, network: str, source: str) -> None:
        """Say where a network's weights came from: "trained here", "ImageNet (torchvision)", "random: no download"."""
        self.weights[network] = str(source)

    def figure(self, figure, name: str):
        """Save a matplotlib figure as ``out/figures/<name>.png`` (opaque white, at most 1200 px wide) and return it."""
        if not re.fullmatch(r"[A-Za-z0-9_-]+", str(name)):
            raise ConfigError(f"figure: {name!r} must be letters, digits, - or _ (it becomes a file name)")
        naming.relabel(figure)
        buffer = io.BytesIO()
        dpi = min(figure.dpi, MAX_WIDTH / figure.get_figwidth())
        figure.savefig(buffer, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
        atomic.write_atomically(self.out / "figures" / f"{name}.png", buffer.getvalue())
        if f"{name}.png" not in self.figures:
            self.figures.append(f"{name}.png")
        return figure

    def set_data(self, slices, split=None) -> None:
        """Keep what the run worked on: a SliceSet or Paired (fingerprint, counts, classes, notes) and its Split."""
        classes = {}
        if getattr(slices, "labels", None) is not None:
            classes = {name: int((slices.labels == k).sum()) for k, name in enumerate(slices.classes)}
        kept = {"fingerprint": slices.fingerprint, "images": len(slices), "patients": len(set(slices.patients)),
                "classes": classes, "notes": list(slices.notes), "split": None}
        if split is not None:
            from covlib.data.splits import fingerprint

            sizes = {part: len(getattr(split, part)) for part in ("train", "val", "test")}
            kept["split"] = {"fingerprint": fingerprint(split, slices.names), **sizes}
        self._data.update(kept)

    def export(self, images: dict[str, Any], names=None, *, method: str, limits: str = "",
               patients: list[str] | None = None, weights: str = "", **masks) -> Path:
        """Write a synthetic data set with its datasheet to ``out/synthetic`` (see covbook.export.export_set).

        Args:
            images: class -> (N, 1, H, W) array or tensor in [-1, 1].
            names: order of the classes, the positive one last; by default that of ``images``.
            method: how they were made; limits: what they must not be used for, where there is more to say.
            patients: of the source images, stacked in the order of ``names``, where images were made from images or
                masks: splits go by them. None: each class counts as one patient, the generator.
            weights: name of the one file of weights that made them, without ending, where a run leaves several.
            masks: ``lung``, ``infection`` (label maps stacked in the order of ``names``), ``hu_window``.
        """
        import numpy as np

        from covbook.export import LIMITS, export_set
        from covbook.plots.style import as_array

        names = list(images if names is None else names)
        counts = [len(images[name]) for name in names]
        folder = self.checkpoint or self.out / "checkpoints"
        files = [folder] if folder.is_file() else sorted(folder.rglob("*.safetensors"))
        files = [file for file in files if weights in ("", file.stem)]
        sheet = {"method": method, "seed": self.seed,
                 "checkpoint": provenance.sums(files) or "none: no weights were saved", "limits": limits or LIMITS,
                 "chapter": self.chapter, "profile": self.profile, "trained on": self.data_name,
                 **({"verdict": "; ".join(self.verdict["words"])} if self.verdict else {})}
        return export_set(self.out / "synthetic", np.concatenate([as_array(images[name], name) for name in names]),
                          labels=np.repeat(np.arange(len(names)), counts), classes=names, datasheet=sheet,
                          names=[f"{name}_{k:04d}" for name, n in zip(names, counts) for k in range(n)],
                          patients=patients or [f"{self.chapter}_{name}_seed{self.seed}"
                                                for name, n in zip(names, counts) for _ in range(n)], **masks)

    @contextmanager
    def stage(self, name: str):
        """Time a part of the chapter: ``with run.stage("training"): ...``; repeated names add up."""
        begin = time.perf_counter()
        try:
            yield self
        finally:
            self.stage_seconds[name] = self.stage_seconds.get(name, 0.0) + time.perf_counter() - begin

    def said(self, text: str) -> str:
        """``text`` with the right word for images that no network made: "virtual" for "real" on virtual patients."""
        return naming.said(text)

    # -- showing ------------------------------------------------------------------------------------------------------

    def cost_box(self, needs: str = "") -> Box:
        """The chapter's price before it is paid: minutes and memory of its recorded run on virtual patients at each
        profile, this run's profile marked.

        Args:
            needs: what else is needed (data, downloads).
        """
        rows = []
        for profile in PROFILES:
            minutes, memory = recorded_cost(self.chapter, profile)
            cells = [profile, HARDWARE[profile], duration(minutes), f"{memory:.1f} GB" if memory else "–"]
            rows.append([f"**{cell}**" for cell in cells] if profile == self.profile else cells)
        where = "virtual patients" if self.data_kind == "phantom" else self.data_name
        note = (f"This run: profile **{self.profile}** on {self.device.type}, {where}, seed {self.seed}. "
                f"{MEANING[self.profile]}" + (f" {needs}" if needs else ""))
        table = Table(["profile", "on", "time", "memory"], rows, note=note, right=("time", "memory"))
        return Box("What this chapter costs", table, kind="tip")

    def show_config(self, paper: str | dict[str, Any] | None = None) -> Table:
        """Our settings beside the paper's; those that differ are bold, and those of which it says nothing are folded.

        Args:
            paper: name of a file in data/reported (numbers with a ``field`` are shown), a dict field -> paper's value,
                or None for the file that belongs to this chapter, if there is one.
        """
        if self.config is None:
            raise ConfigError(f"show_config: chapter {self.chapter} was started without config_cls")
        stated = paper if isinstance(paper, dict) else _stated(paper or self.chapter.split("_", 1)[1], bool(paper))
        rows, silent = [], []
        for name, ours in self.config.as_dict().items():
            theirs = stated.get(name)
            differs = theirs is not None and theirs != ours
            kept = rows if theirs is not None or name in self.overrides else silent
            kept.append([f"`{name}`", f"**{show_setting(ours)}**" if differs else show_setting(ours),
                         "not stated" if theirs is None else show_setting(theirs),
                         "yours" if name in self.overrides else ("changed" if differs else "")])
        return Table(["setting", f"this run ({self.profile})", "paper", ""], rows + silent,
                     folded=len(silent) if rows else 0, fold_title=f"{len(silent)} more, on which the paper is silent")

    def summary(self) -> Table:
        """The measurements so far as a table: value, 95 % interval, n, how."""
        return Table(MEASURED, measured(self.metrics), note=MEANING[self.profile], right=("n",)).of_this_run()

    # -- keeping ------------------------------------------------------------------------------------------------------

    def document(self) -> dict[str, Any]:
        """What ``metrics.json`` holds (data/schema/metrics.schema.json): a fresh dict."""
        return {
            "schema": 1, "chapter": self.chapter, "profile": self.profile, "seed": self.seed,
            "device": self.device.type, "config": self.config.as_dict() if self.config else None,
            "overrides": {k: list(v) if isinstance(v, tuple) else v for k, v in sorted(self.overrides.items())},
            "data": dict(self._data), "weights": dict(sorted(self.weights.items())),
            "versions": provenance.versions(), "git_commit": provenance.git_commit(),
            **({"verdict": self.verdict} if self.verdict else {}),
            "metrics": [dict(m) for m in self.metrics], "notes": list(self.notes), "figures": sorted(self.figures),
            "times": {"started": self._started, "wall_seconds": round(time.perf_counter() - self._clock, 3),
                      "stage_seconds": {k: round(v, 3) for k, v in self.stage_seconds.items()},
                      "threads": self._threads, **provenance.machine(self.device)},
            "paths": {"out": str(self.out.resolve()), "data": self.data,
                      "checkpoint": None if self.checkpoint is None else str(self.checkpoint)}}

    def finish(self) -> Table:
        """Write ``out/metrics.json`` (checked against its schema, atomically) and return the summary.

        Raises:
            ConfigError: something recorded does not fit the schema; TrainingError: ``out`` cannot be written.
        """
        document = self.document()
        project.validate(document, "metrics", "metrics.json", ConfigError)
        project.write_json(self.out / "metrics.json", document)
        return self.summary()

    def _repr_html_(self) -> str:
        return self._overview()._repr_html_()

    def _repr_markdown_(self) -> str:
        return self._overview()._repr_markdown_()

    def __repr__(self) -> str:
        return str(self._overview())  # without the paths of this machine: it is kept in the notebook

    def _overview(self) -> Table:
        changed = ", ".join(f"{k} = {show_setting(v)}" for k, v in self.overrides.items())
        rows = [["profile", self.profile], ["data", self.data_name], ["seed", str(self.seed)],
                ["device", self.device.type],
                ["checkpoint", "none: trained here" if self.checkpoint is None else self.checkpoint.name],
                ["changed settings", changed or "none"]]
        return Table(["parameter", "this run"], rows, note=MEANING[self.profile])


def recorded_cost(chapter: str, profile: str) -> tuple[float | None, float | None]:
    """(minutes, peak memory in GB) of a chapter's recorded run on virtual patients at a profile, with its own settings;
    None where there is none."""
    for path in sorted(project.RESULTS.glob(f"{chapter}-phantom-{profile}-seed*.json")):
        document = project.read_json(path)
        if not document["overrides"]:
            memory = document["times"].get("peak_memory_mb")
            return document["times"]["wall_seconds"] / 60, memory / 1000 if memory else None
    return None, None


def _number(name: str, value) -> float | int:
    """A plain finite int or float from a Python, NumPy or one-element torch number."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(f"metric: {name!r} must be a finite number, got {value!r}; "
                          "record None with how= where it could not be measured")
    return value


def _stated(name: str, required: bool) -> dict[str, Any]:
    from covbook.reported import load_reported, stated_settings

    if not required and not (project.REPORTED / f"{name}.yaml").exists():
        return {}
    return stated_settings(load_reported(name))


def _resolve_device(device):
    from covlib.training.fit import resolve_device

    return resolve_device(device)
