"""The ``covlib`` command. ``covlib --help`` lists what it does.

Exit status: 0 all went well; 1 a cell of a chapter failed (its traceback is shown), an arm of a study diverged, or
``data check`` found problems; 2 something given does not fit (one line on standard error); 130 interrupted,
143 asked to end (SIGTERM).
"""

import argparse
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import covlib
from covbook import cli_data
from covbook.manners import (
    DATA,
    DEVICE,
    LAYOUT,
    NO_RESUME,
    PARAMETER,
    PROFILE,
    PSEUDONYMS,
    SEED,
    SET,
    Parser,
    guarded,
    heed_requests_to_end,
)
from covbook.manners import arg as _arg
from covbook.manners import command as _command
from covbook.manners import group as _group
from covbook.project import read_as
from covbook.tables import align
from covlib.errors import ConfigError

# Nothing heavy is imported here or at the top of the modules above: ``covlib --help`` is to answer at once.

_say = partial(print, flush=True)


def entry() -> None:
    """The console script."""
    heed_requests_to_end()
    sys.exit(main())


def main(argv: list[str] | None = None) -> int:
    """Run the command line with ``argv`` (default: the process's own); returns the exit status."""
    def work() -> int:
        given = _parser().parse_args(argv)
        if getattr(given, "layout", None):
            given.data = read_as(given.data, given.layout)
        return given.do(given) or 0

    return guarded(work)


# ---- chapters and run ------------------------------------------------------------------------------------------------


def _chapters(given) -> None:
    from covbook.runner import chapters

    for chapter in chapters.chapters():
        print(chapter.name if given.names else f"{chapter.name:<16} {chapter.title}")


def _open(given) -> int:
    from covbook import spoken
    from covbook.runner import chapters, opening

    mine = opening.copy(chapters.find(given.chapter), given.to, spoken.copied)
    print(f"{mine}: yours; its runs land in {mine.parent / 'runs'}", flush=True)
    return 0 if given.copy_only else opening.lab(mine, tuple(given.lab))


def _run(given) -> int:
    from covbook.runner import chapters

    chapter = chapters.find(given.chapter)
    settings = _settings(given, chapter)
    chapters.check_settings(chapter, settings)
    out = Path(settings["out"])
    shown = ", ".join(f"{k}={v}" for k, v in settings.items() if k not in ("out", "resume", "checkpoint") and v != {})
    print(f"{chapter.name}: {shown}; into {out}", flush=True)
    try:
        notebook = chapters.run(chapter, settings, show=True)
    except chapters.CellFailed as failed:
        return chapters.explain(failed)
    numbers = f", numbers {out / 'metrics.json'}" if (out / "metrics.json").is_file() else ""
    for line in chapters.verdict_of(out):
        print(f"  {line}")
    print(f"{chapter.name}: done; executed notebook {notebook}{numbers}")
    return 0


def _settings(given, chapter) -> dict:
    """All parameters of a run: the chapter's defaults, those of the run whose weights it takes, then the options, then
    ``-p`` and ``--set``."""
    from covbook.runner import chapters

    known = chapters.parameters(chapters.read_notebook(chapter.path), chapter.name)
    settings = {name: value for name in chapters.PARAMETERS if (value := getattr(given, name, None)) is not None}
    for name, text in given.parameter:
        value = text if isinstance(known.get(name), str) else chapters.parse_value(text)
        if name == "data" and text.strip().lower() == "none":
            continue  # as if it were not given
        if settings.setdefault(name, value) != value:
            raise ConfigError(f"parameter {name}: given twice, {settings[name]!r} and {value!r}")
    if given.set:
        settings["overrides"] = {**settings.get("overrides", {}), **_overrides(given.set)}
    chapters.check_parameters(settings, known)
    taken = chapters.taken_over(chapter, settings.get("checkpoint"))
    return {"overrides": {}, "checkpoint": None, **known, "out": f"runs/{chapter.name}", **taken, **settings}


def _overrides(items: list[str]) -> dict:
    """``--set FIELD=VALUE`` as field -> value."""
    from covbook.runner.chapters import parse_value

    return {field: parse_value(text) for field, text in _fields(items).items()}


def _fields(items: list[str], values: str = "VALUE") -> dict[str, str]:
    """``--set FIELD=VALUE`` as field -> text."""
    pairs = [item.partition("=") for item in items]
    for item, (field, equals, _) in zip(items, pairs):
        if not equals or not field:
            raise ConfigError(f"--set: {item!r} must look like FIELD={values}")
    return {field: text for field, _, text in pairs}


def _names(text: str) -> list[str]:
    """ "a,b" as a list."""
    return [name for name in text.split(",") if name]


# ---- train -----------------------------------------------------------------------------------------------------------


def _train(given) -> int:
    from covbook.runner import recipes
    from covlib.errors import TrainingError

    try:
        recipes.train(given.chapter, profile=given.profile, data=given.data, seed=given.seed, out=given.out,
                      device=given.device, devices=given.devices, nodes=given.nodes, methods=given.methods,
                      overrides=_overrides(given.set), resume=given.resume, save_minutes=given.save_minutes,
                      images=given.synthesize, say=_say)
    except TrainingError as error:
        print(f"covlib: error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


# ---- rehearse --------------------------------------------------------------------------------------------------------


def _rehearse(given) -> int:
    from covbook.runner import rehearsal

    document = rehearsal.rehearse(given.chapter, data=given.data, seed=given.seed, device=given.device,
                                  overrides=_overrides(given.set), steps=given.steps, batch=given.batch,
                                  minutes=given.minutes, say=_say)
    print(rehearsal.report(document))
    if given.record:
        print(rehearsal.record(document))
    return 1 if document["problems"] else 0


# ---- sweep -----------------------------------------------------------------------------------------------------------


def _sweep(given) -> int:
    from covbook.runner import studies

    if given.list:
        print(align([["study", "chapter", "title", "arms"], *studies.listing(given.profile)]))
        return 0
    if given.study is None:
        raise ConfigError("sweep: no STUDY or CHAPTER given; covlib sweep --list shows the studies")
    if given.retries < 0 or given.workers is not None and given.workers < 1:
        raise ConfigError("sweep: --retries must be at least 0 and --workers at least 1")
    is_chapter = re.match(r"[0-9]", given.study) or given.study.endswith(".ipynb")
    return (_sweep_chapter if is_chapter else _sweep_study)(
        given, {"scheduler": given.scheduler, "workers": given.workers, "retries": given.retries, "say": _say})


def _sweep_study(given, how: dict) -> int:
    from covbook.runner import studies

    if given.parameter:
        raise ConfigError("sweep: -p is for chapters, given by number or full name (03, 03_dcgan)")
    study = studies.find(given.study)
    out = studies.default_out(study.name, given.data, given.profile) if given.out is None else Path(given.out)
    if given.collect:
        print(studies.collect(study, out))
        return 0
    _say(f"{study.name}: profile={given.profile}, data={given.data}; into {out}")
    outcome = studies.sweep(study, profile=given.profile, data=given.data, seeds=given.seeds, arms=given.arms,
                            out=out, overrides=_overrides(given.set), device=given.device, **how)
    print(f"{study.name}: {outcome}")
    return 1 if outcome.failed else 0


def _sweep_chapter(given, how: dict) -> int:
    from covbook.runner import chapters, sweeps

    chapter = chapters.find(given.study)
    if given.arms is not None:
        raise ConfigError("sweep: --arms is for studies; a chapter is swept with -p NAME VALUES and --set FIELD=VALUES")
    out = Path(f"runs/sweeps/{chapter.name}-{given.profile}" if given.out is None else given.out)
    parameters = {"seed": ",".join(map(str, given.seeds))}
    for name, text in given.parameter:
        if name in parameters and (name != "seed" or given.seeds != [0]):
            raise ConfigError(f"-p {name}: given twice")
        parameters[name] = text
    overrides = _fields(given.set, "VALUE,VALUE")
    if len(overrides) < len(given.set):
        raise ConfigError("--set: give each field once, as FIELD=VALUE,VALUE")
    jobs = sweeps.grid(chapter, parameters, overrides, profile=given.profile, data=given.data, device=given.device,
                       out=out)
    failed = {}
    if not given.collect:
        _say(f"{chapter.name}: {len(jobs)} runs; profile={given.profile}, data={given.data}; into {out}")
        outcome = sweeps.run(chapter, jobs, out, **how)
        print(f"{chapter.name}: {outcome}")
        failed = outcome.failed
    print(sweeps.write_table(jobs, out))
    print(out / sweeps.TABLE)
    return 1 if failed else 0


# ---- results, bench, book --------------------------------------------------------------------------------------------


def _results_show(given) -> None:
    from covbook.sphinx import status

    print(status.show(given.what))


def _results_record(given) -> None:
    from covbook import project, report
    from covbook.runner import chapters, weights

    out = Path(given.out)
    file = out / "metrics.json" if out.is_dir() else out
    if not file.is_file():
        raise ConfigError(f"results: {file} does not exist; give the folder a chapter was run into")
    notebooks = [(chapter, file.parent / f"{chapter.name}.ipynb") for chapter in chapters.chapters()]
    executed = [pair for pair in notebooks if pair[1].is_file()]
    if given.publish and len(executed) != 1:
        raise ConfigError(f"results: {file.parent} holds no executed chapter to publish")
    recorded = report.record(file)
    print(recorded)
    if given.weights:
        print(weights.store(file.parent, recorded))
    elif (project.WEIGHTS / recorded.stem).is_dir():
        print(f"covlib: data/weights/{recorded.stem} is of an earlier run; give --weights too", file=sys.stderr)
    if given.publish:
        chapter, notebook = executed[0]
        print(chapters.publish(notebook, chapter))


def _results_weights(given) -> None:
    from covbook import weights

    rows = weights.listing()
    print(align([["chapter", "trained with", "size", "files"], *rows]))
    print("\ncovlib run CHAPTER --checkpoint recorded uses them; data/weights holds a model card for each.")


def _bench(given) -> int:
    """Timing lives beside the book, in ``benchmarks/``: only a checkout has it."""
    from covbook.project import ROOT

    if not (ROOT / "benchmarks" / "__main__.py").is_file():
        raise ConfigError("bench: the folder benchmarks/ is not there; run it in a checkout of the repository")
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run([sys.executable, "-m", "benchmarks", *given.words],
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}).returncode


def _translate(given) -> None:
    from covbook.chapters.cyclegan import translate

    print(translate.translate_folder(given.checkpoint, given.data, given.label, given.to, device=given.device,
                                     batch=given.batch, precision=given.precision, pseudonymous=given.pseudonyms))


def _export(given) -> None:
    from covbook.runner import networks_home, takehome

    if given.format == "onnx":
        print(networks_home.export_networks(given.run, given.to))
        return
    print(takehome.export_run(given.run, given.to, form=given.format, licence=given.licence,
                              fractions=tuple(given.split), seed=given.seed, anyway=given.anyway,
                              pseudonymous=given.pseudonyms))


def _volume(given) -> None:
    from covbook.chapters.cgan3d.nifti_map import write_volume
    from covlib.papers.cgan3d.noise import NoiseModel

    model = NoiseModel.load(given.checkpoint, given.device)
    size = tuple(given.size[::-1] if given.size else model.coarse.config.volume)
    print(write_volume(model, given.to, size, seed=given.seed, overlap=given.overlap, report=_say))


def _book(given) -> None:
    from covbook.sphinx import build as book
    from covbook.sphinx import recorded, status

    if given.refresh:
        print("\n".join(map(str, status.refresh() + recorded.refresh())) or "the book's tables are up to date")
        return
    book.main(Path(given.runs) if given.runs else None, Path(given.out))


# ---- the parser ------------------------------------------------------------------------------------------------------


def _parser() -> Parser:
    parser = Parser(prog="covlib", description="Synthetic COVID-19 chest images: run the chapters of the book, fetch "
                    "and check data, show recorded results.")
    parser.add_argument("--version", action="version", version=f"covlib {covlib.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_chapters(commands)
    _add_sweep(commands)
    cli_data.add(_group(commands, "data", "list, fetch, check and make data sets"))
    _add_results(_group(commands, "results", "show recorded results, record a run"))
    # A prefix that no word starts with: options, the first word too, are for benchmarks/ to read.
    bench = commands.add_parser("bench", add_help=False, prefix_chars="\0",
                                help="measure how fast things are (warm-up, median, spread)")
    bench.add_argument("words", nargs=argparse.REMAINDER)
    bench.set_defaults(do=_bench)
    _add_images(commands)
    _command(commands, "book", _book, "build the HTML book (does not run anything)",
             _arg("--runs", metavar="DIR", help="take executed chapters from DIR/CHAPTER; default: those in book/"),
             _arg("--out", metavar="DIR", default="_build", help="where to build (default: _build)"),
             _arg("--refresh", action="store_true", help="only write the tables made of recordings anew"))
    return parser


def _add_chapters(commands) -> None:
    asked = [(flags, {**settings, "default": None}) for flags, settings in (PROFILE, DATA, SEED, DEVICE, NO_RESUME)]
    _command(commands, "chapters", _chapters, "list the chapters",
             _arg("--names", action="store_true", help="names only"))
    _command(commands, "open", _open, "copy a chapter into a folder of yours and open it in JupyterLab; a copy that is "
             "there stays as you left it",
             _arg("chapter", metavar="CHAPTER", help="name or number"),
             _arg("--to", metavar="DIR", default="my_book", help="your folder (default: my_book)"),
             _arg("--copy-only", action="store_true", help="don't start JupyterLab"),
             _arg("--lab", action="append", default=[], metavar="OPTION", help="of jupyter lab: --lab=--no-browser"))
    _command(commands, "run", _run, "run a chapter with papermill; the executed notebook lands in OUT",
             _arg("chapter", metavar="CHAPTER", help="name or number (see covlib chapters), or a notebook file"),
             *asked, LAYOUT, _arg("--out", metavar="DIR", help="folder for what the run leaves (default runs/CHAPTER)"),
             _arg("--checkpoint", metavar="RUN|FILE", help="use these weights instead of training: the folder of an "
                  "earlier run, whose profile, data, seed and settings are taken where you give none; a file of "
                  "weights; recorded: those of a recorded run (see covlib results weights)"),
             PARAMETER, SET)
    _command(commands, "train", _train, "train a chapter's methods, on one device or many; covlib run then takes up "
             "what was trained. torchrun -m covbook.cli train ... works too",
             _arg("chapter", metavar="CHAPTER", help="name or number of a chapter that trains something"),
             _arg("--methods", type=_names, metavar="A,B", help="only these of its methods (default: all)"),
             _arg("--out", metavar="DIR", help="the run's folder, one for all nodes (default runs/CHAPTER)"),
             _arg("--devices", type=int, default=1, metavar="N", help="processes on each node (default 1)"),
             _arg("--nodes", type=int, default=1, metavar="M", help="nodes (default 1); give the command on each"),
             _arg("--save-minutes", type=float, default=5.0, metavar="T", help="keep a state every T (default 5)"),
             _arg("--synthesize", type=int, default=0, metavar="N", help="then make N images with each method"),
             PROFILE, DATA, LAYOUT, SEED, DEVICE, NO_RESUME, SET)


    _command(commands, "rehearse", _rehearse, "run a paper's chapter at profile paper, full networks, images and data, "
             "each training cut to a few steps: what it needs, how long it would take, and what is not the paper's "
             "(exit status 1 if anything is)",
             _arg("chapter", metavar="CHAPTER", help="name or number of a paper's chapter"), DATA, LAYOUT, SEED, DEVICE,
             _arg("--steps", type=int, default=2, metavar="N", help="steps of each stage of each training (default 2)"),
             _arg("--batch", type=int, metavar="N", help="samples a step at most, 0 for whole batches (default: what "
                  "fits into 24 GB on a CPU, whole batches on a GPU)"),
             _arg("--minutes", type=float, metavar="T", help="begin no further part after T; those left are named"),
             _arg("--record", action="store_true", help="keep what was found in data/results/rehearsals"), SET)


def _add_sweep(commands) -> None:
    _command(commands, "sweep", _sweep, "run a study's arms, or a chapter with many settings: what is not there yet. "
             "Give the command again to go on; of a study, several times at once to share the work",
             _arg("study", nargs="?", metavar="STUDY|CHAPTER", help="a study's name (see --list), or a chapter's "
                  "number or full name"),
             _arg("--list", action="store_true", help="list the studies and their arms"),
             _arg("--seeds", type=int, nargs="+", default=[0], metavar="N", help="random seeds (default 0)"),
             _arg("--arms", type=_names, metavar="A,B", help="only these arms of a study (default: all)"),
             _arg("--out", metavar="DIR", help="folder of the arms (default runs/studies/STUDY-DATA-PROFILE) or runs "
                  "(default runs/sweeps/CHAPTER-PROFILE)"),
             _arg("--collect", action="store_true", help="write the finished arms of OUT to data/results/studies; of a "
                  "chapter, only make the table anew"),
             _arg("--scheduler", metavar="ADDRESS", help="a Dask scheduler (tcp://host:8786); default: on this "
                  "machine, a chapter's runs on workers, a study's arms in this process"),
             _arg("--workers", type=int, metavar="N", help="Dask workers on this machine (default: GPUs, or cores)"),
             _arg("--retries", type=int, default=2, metavar="N", help="of a run whose worker dies (default 2)"),
             PROFILE, DATA, LAYOUT, DEVICE, PARAMETER, SET)


def _add_results(commands) -> None:
    _command(commands, "show", _results_show, "show recorded results, or those of a run",
             _arg("what", nargs="?", metavar="CHAPTER|DIR", help="a chapter, or a run's folder (default: all)"))
    _command(commands, "record", _results_record, "add a run's numbers to data/results",
             _arg("out", metavar="OUT", help="the folder the chapter was run into"),
             _arg("--weights", action="store_true", help="also keep its weights, with a model card, in data/weights"),
             _arg("--publish", action="store_true", help="also put the executed notebook's outputs into the book"))
    _command(commands, "weights", _results_weights, "list the weights of recorded runs, for --checkpoint recorded")


def _add_images(commands) -> None:
    _command(commands, "translate", _translate, "turn a folder's X-rays of one class into synthetic COVID-19 ones "
             "(chapter 06); give the command again to go on",
             _arg("--checkpoint", required=True, metavar="RUN", help="out folder of a run of chapter 06, or its "
                  "weights; recorded: the book's own"),
             _arg("--data", required=True, metavar="DIR", help="a folder with classes, or a source's name"), LAYOUT,
             _arg("--class", required=True, dest="label", metavar="NAME", nargs="+",
                  help="normal, pneumonia, or both: then each has its folder in DIR"),
             _arg("--to", required=True, metavar="DIR", help="a new folder, or one that was cut off"), DEVICE,
             _arg("--batch", type=int, default=32, metavar="N", help="images per pass (default 32)"),
             _arg("--precision", default="32", help="32 (default) or bf16-mixed"), PSEUDONYMS)
    _command(commands, "volume", _volume, "write a synthetic CT volume, made from noise, as NIfTI (chapter 07)",
             _arg("--checkpoint", required=True, metavar="RUN", help="out folder of chapter 07, or its weights"),
             _arg("--to", required=True, metavar="FILE", help="a file ending in .nii or .nii.gz"),
             _arg("--size", type=int, nargs=3, metavar=("X", "Y", "Z"), help="voxels (default: the run's)"), SEED,
             _arg("--overlap", type=int, metavar="VOXELS", help="of neighbouring blocks (default: the run's)"), DEVICE)
    _command(commands, "export", _export, "write a run's synthetic images as a data set with masks, splits, provenance "
             "and datasheet, for ImageFolder, MONAI, nnU-Net or a PACS; or its networks as ONNX with a model card",
             _arg("run", metavar="RUN", help="the folder a chapter was run into"),
             _arg("--to", required=True, metavar="DIR", help="a new folder; for nnU-Net, DatasetXXX_NAME"),
             _arg("--format", default="png", help="png (default), nifti (nnU-Net v2), dicom-sc; onnx: the networks"),
             _arg("--licence", default="", metavar="TEXT", help="of the data set (default: what the data allow)"),
             _arg("--split", type=float, nargs=3, default=(0.7, 0.1, 0.2), metavar=("TRAIN", "VAL", "TEST"),
                  help="shares, by source patient (default 0.7 0.1 0.2)"), SEED,
             PSEUDONYMS,
             _arg("--anyway", action="store_true", help="write a set that has collapsed (grey, noise, equal images) "
                  "all the same; the datasheet says so"))


if __name__ == "__main__":
    entry()
