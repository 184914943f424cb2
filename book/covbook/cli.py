"""The ``covlib`` command. ``covlib --help`` lists what it does.

Exit status: 0 all went well; 1 a cell of a chapter failed (its traceback is shown), an arm of a study diverged, or
``data check`` found problems; 2 something given does not fit (one line on standard error); 130 interrupted.
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import covlib
from covbook import cli_data
from covbook.tables import align
from covlib.errors import ConfigError, CovlibError

# Nothing heavy is imported here or at the top of the modules above: ``covlib --help`` is to answer at once.


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the words given in one line, as ConfigError."""

    def error(self, message):
        raise ConfigError(f"{message} (see {self.prog} --help)")


def entry() -> None:
    """The console script."""
    sys.exit(main())


def main(argv: list[str] | None = None) -> int:
    """Run the command line with ``argv`` (default: the process's own); returns the exit status."""
    def work() -> int:
        given = _parser().parse_args(argv)
        return given.do(given) or 0

    return guarded(work)


def guarded(work: Callable[[], int]) -> int:
    """The exit status that ``work`` gives; what a user can cause ends in one line and a status of its own."""
    try:
        return work()
    except CovlibError as error:
        print(f"covlib: error: {error}", file=sys.stderr)
        for step in getattr(error, "steps", ()):
            print(f"  {step}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ncovlib: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


# ---- chapters and run ------------------------------------------------------------------------------------------------


def _chapters(given) -> None:
    from covbook.runner import chapters

    for chapter in chapters.chapters():
        print(chapter.name if given.names else f"{chapter.name:<16} {chapter.title}")


def _run(given) -> int:
    from covbook.runner import chapters
    from covbook.runner.progress import CellProgress

    chapter = chapters.find(given.chapter)
    settings = _settings(given, chapter)
    chapters.check_settings(chapter, settings)
    out = Path(settings["out"])
    shown = ", ".join(f"{k}={v}" for k, v in settings.items() if k not in ("out", "resume", "checkpoint") and v != {})
    print(f"{chapter.name}: {shown}; into {out}", flush=True)
    progress = CellProgress(out)
    try:
        notebook = chapters.run(chapter, settings, progress)
    except chapters.CellFailed as failed:
        return _explain(failed, progress)
    except BaseException:
        progress.stop()
        raise
    numbers = f", numbers {out / 'metrics.json'}" if (out / "metrics.json").is_file() else ""
    print(f"{chapter.name}: done; executed notebook {notebook}{numbers}")
    return 0


def _settings(given, chapter) -> dict:
    """All parameters of a run: the chapter's defaults, then the options, then ``-p`` and ``--set``."""
    from covbook.runner import chapters

    known = chapters.parameters(chapters.read_notebook(chapter.path), chapter.name)
    options = {"profile": given.profile, "data": given.data, "seed": given.seed, "device": given.device,
               "out": given.out, "checkpoint": given.checkpoint, "resume": False if given.no_resume else None}
    settings = {name: value for name, value in options.items() if value is not None}
    for name, text in given.parameter:
        value = text if isinstance(known.get(name), str) else chapters.parse_value(text)
        if settings.setdefault(name, value) != value:
            raise ConfigError(f"parameter {name}: given twice, {settings[name]!r} and {value!r}")
    overrides = _overrides(given.set)
    if overrides:
        settings["overrides"] = {**settings.get("overrides", {}), **overrides}
    chapters.check_parameters(settings, known)
    return {"overrides": {}, "checkpoint": None, **known, "out": f"runs/{chapter.name}", **settings}


def _overrides(items: list[str]) -> dict:
    """``--set FIELD=VALUE`` as field -> value."""
    from covbook.runner.chapters import parse_value

    overrides = {}
    for item in items:
        field, equals, value = item.partition("=")
        if not equals or not field:
            raise ConfigError(f"--set: {item!r} must look like FIELD=VALUE")
        overrides[field] = parse_value(value)
    return overrides


def _explain(failed, progress) -> int:
    """Say on standard error why a chapter stopped; returns the exit status."""
    from covbook.runner.chapters import is_user_error

    where = f" (executed notebook: {failed.notebook})" if failed.notebook else ""
    if is_user_error(failed.error):
        print(f"covlib: error: {failed.text}{where}", file=sys.stderr)
        return 2
    if failed.error == "DeadKernelError":
        progress.stop()
    else:
        print(failed.traceback, file=sys.stderr)
    print(f"covlib: {failed.chapter}: code cell {failed.cell} failed with {failed.error}: {failed.text}{where}",
          file=sys.stderr)
    return 1


# ---- train -----------------------------------------------------------------------------------------------------------


def _train(given) -> int:
    from covbook.runner import recipes
    from covlib.errors import TrainingError

    names = None if given.methods is None else [name for name in given.methods.split(",") if name]
    try:
        recipes.train(given.chapter, profile=given.profile, data=given.data, seed=given.seed, out=given.out,
                      device=given.device, devices=given.devices, nodes=given.nodes, methods=names,
                      overrides=_overrides(given.set), resume=not given.no_resume, save_minutes=given.save_minutes,
                      images=given.synthesize, say=lambda text: print(text, flush=True))
    except TrainingError as error:
        print(f"covlib: error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


# ---- sweep -----------------------------------------------------------------------------------------------------------


def _sweep(given) -> int:
    from covbook.runner import studies

    if given.list:
        print(align([["study", "chapter", "title", "arms"], *studies.listing(given.profile)]))
        return 0
    if given.study is None:
        raise ConfigError("sweep: no STUDY or CHAPTER given; covlib sweep --list shows the studies")
    if re.match(r"[0-9]", given.study) or given.study.endswith(".ipynb"):
        return _sweep_chapter(given)
    if given.parameter or given.scheduler:
        raise ConfigError("sweep: -p and --scheduler are for chapters, given by number or full name (03, 03_dcgan)")
    study = studies.find(given.study)
    out = studies.default_out(study.name, given.data, given.profile) if given.out is None else Path(given.out)
    if given.collect:
        print(studies.collect(study, out))
        return 0
    names = None if given.arms is None else [name for name in given.arms.split(",") if name]
    print(f"{study.name}: profile={given.profile}, data={given.data}; into {out}", flush=True)
    outcome = studies.sweep(study, profile=given.profile, data=given.data, seeds=given.seeds, arms=names, out=out,
                            overrides=_overrides(given.set), device=given.device,
                            say=lambda text: print(text, flush=True))
    print(f"{study.name}: {len(outcome.done)} done, {len(outcome.there)} there already, {len(outcome.elsewhere)} left "
          f"to other processes, {len(outcome.failed)} failed")
    return 1 if outcome.failed else 0


def _sweep_chapter(given) -> int:
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
    overrides = {}
    for item in given.set:
        field, equals, text = item.partition("=")
        if not equals or not field or field in overrides:
            raise ConfigError(f"--set: {item!r} must look like FIELD=VALUE,VALUE, each field once")
        overrides[field] = text
    jobs = sweeps.grid(chapter, parameters, overrides, profile=given.profile, data=given.data, device=given.device,
                       out=out)
    if given.retries < 0 or given.workers is not None and given.workers < 1:
        raise ConfigError("sweep: --retries must be at least 0 and --workers at least 1")
    outcome = sweeps.Outcome()
    if not given.collect:
        print(f"{chapter.name}: {len(jobs)} runs; profile={given.profile}, data={given.data}; into {out}", flush=True)
        outcome = sweeps.run(chapter, jobs, out, scheduler=given.scheduler, workers=given.workers,
                             retries=given.retries, say=lambda text: print(text, flush=True))
        print(f"{chapter.name}: {len(outcome.done)} done, {len(outcome.there)} there already, "
              f"{len(outcome.elsewhere)} left to other processes, {len(outcome.failed)} failed")
    print(sweeps.write_table(jobs, out))
    print(out / sweeps.TABLE)
    return 1 if outcome.failed else 0


# ---- results, bench, book --------------------------------------------------------------------------------------------


def _results_show(given) -> None:
    from covbook.sphinx import status

    print(status.show(given.what))


def _results_record(given) -> None:
    from covbook import project, report, weights
    from covbook.runner import chapters

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
                                        batch=given.batch, precision=given.precision))


def _export(given) -> None:
    from covbook.runner import takehome

    print(takehome.export_run(given.run, given.to, form=given.format, licence=given.licence,
                              fractions=tuple(given.split), seed=given.seed))


def _volume(given) -> None:
    from covlib.papers.cgan3d.noise import NoiseModel

    model = NoiseModel.load(given.checkpoint, given.device)
    size = tuple(given.size[::-1] if given.size else model.coarse.config.volume)
    report = lambda line: print(line, flush=True)
    print(model.write(given.to, size, seed=given.seed, overlap=given.overlap, report=report))


def _book(given) -> None:
    from covbook.sphinx import build as book
    from covbook.sphinx import status

    if given.refresh:
        print("\n".join(map(str, status.refresh())) or "book/_generated is up to date")
        return
    book.main(Path(given.runs) if given.runs else None, Path(given.out))


# ---- the parser ------------------------------------------------------------------------------------------------------


def _parser() -> Parser:
    parser = Parser(prog="covlib", description="Synthetic COVID-19 chest images: run the chapters of the book, fetch "
                     "and check data, show recorded results.")
    parser.add_argument("--version", action="version", version=f"covlib {covlib.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    listing = _add(commands, "chapters", _chapters, "list the chapters")
    listing.add_argument("--names", action="store_true", help="names only")
    _add_run(commands)
    _add_train(commands)
    _add_sweep(commands)
    _add_data(commands)
    _add_results(commands)
    # A prefix that no word starts with: options, the first word too, are for benchmarks/ to read.
    bench = commands.add_parser("bench", add_help=False, prefix_chars="\0",
                                help="measure how fast things are (warm-up, median, spread)")
    bench.add_argument("words", nargs=argparse.REMAINDER)
    bench.set_defaults(do=_bench)
    _add_translate(commands)
    _add_volume(commands)
    _add_export(commands)
    site = _add(commands, "book", _book, "build the HTML book (does not run anything)")
    site.add_argument("--runs", metavar="DIR", help="take executed chapters from DIR/CHAPTER; default: those in book/")
    site.add_argument("--out", metavar="DIR", default="_build", help="where to build (default: _build)")
    site.add_argument("--refresh", action="store_true", help="only write the book's generated tables anew")
    return parser


def _add(commands, name: str, do, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(do=do)
    return parser


def _add_run(commands) -> None:
    run = _add(commands, "run", _run, "run a chapter with papermill; the executed notebook lands in OUT")
    run.add_argument("chapter", metavar="CHAPTER", help="name or number (see covlib chapters), or a notebook file")
    run.add_argument("--profile", help="smoke, cpu (default), gpu or paper")
    run.add_argument("--data", help="phantom (virtual patients, default), a folder, or a registered source's name")
    run.add_argument("--seed", type=int, metavar="N", help="random seed (default 0)")
    run.add_argument("--device", help="auto (default), cpu, cuda, cuda:1, mps")
    run.add_argument("--out", metavar="DIR", help="folder for what the run leaves (default runs/CHAPTER)")
    run.add_argument("--checkpoint", metavar="FILE", help="use these weights instead of training; recorded: those of a "
                     "recorded run (see covlib results weights)")
    run.add_argument("--no-resume", action="store_true", help="start anew even if OUT holds an interrupted run")
    run.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                     help="any parameter of the chapter")
    run.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE",
                     help="change a setting of the chapter")


def _add_train(commands) -> None:
    train = _add(commands, "train", _train, "train a chapter's methods, on one device or many; covlib run then takes "
                 "up what was trained. torchrun -m covbook.cli train ... works too")
    train.add_argument("chapter", metavar="CHAPTER", help="name or number of a chapter that trains something")
    train.add_argument("--methods", metavar="A,B", help="only these of its methods (default: all)")
    train.add_argument("--profile", default="cpu", help="smoke, cpu (default), gpu or paper")
    train.add_argument("--data", default="phantom", help="phantom (default), a folder, or a registered source's name")
    train.add_argument("--seed", type=int, default=0, metavar="N", help="random seed (default 0)")
    train.add_argument("--out", metavar="DIR", help="the run's folder, one for all nodes (default runs/CHAPTER)")
    train.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    train.add_argument("--devices", type=int, default=1, metavar="N", help="processes on each node (default 1)")
    train.add_argument("--nodes", type=int, default=1, metavar="M", help="nodes (default 1); give the command on each")
    train.add_argument("--no-resume", action="store_true", help="start anew even if DIR holds an interrupted training")
    train.add_argument("--save-minutes", type=float, default=5.0, metavar="T", help="keep a state every T (default 5)")
    train.add_argument("--synthesize", type=int, default=0, metavar="N", help="then make N images with each method")
    train.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="change a setting")


def _add_translate(commands) -> None:
    translate = _add(commands, "translate", _translate, "turn a folder's X-rays of one class into synthetic COVID-19 "
                     "ones (chapter 06); give the command again to go on")
    translate.add_argument("--checkpoint", required=True, metavar="RUN",
                           help="out folder of a run of chapter 06, or its weights; recorded: the book's own")
    translate.add_argument("--data", required=True, metavar="DIR", help="a folder with classes, or a source's name")
    translate.add_argument("--class", required=True, dest="label", metavar="NAME", nargs="+",
                           help="normal, pneumonia, or both: then each has its folder in DIR")
    translate.add_argument("--to", required=True, metavar="DIR", help="a new folder, or one that was cut off")
    translate.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    translate.add_argument("--batch", type=int, default=32, metavar="N", help="images per pass (default 32)")
    translate.add_argument("--precision", default="32", help="32 (default) or bf16-mixed")


def _add_sweep(commands) -> None:
    sweep = _add(commands, "sweep", _sweep, "run a study's arms, or a chapter with many settings: what is not there "
                 "yet. Give the command again to go on; of a study, several times at once to share the work")
    sweep.add_argument("study", nargs="?", metavar="STUDY|CHAPTER", help="a study's name (see --list), or a chapter's "
                       "number or full name")
    sweep.add_argument("--list", action="store_true", help="list the studies and their arms")
    sweep.add_argument("--profile", default="cpu", help="smoke, cpu (default), gpu or paper")
    sweep.add_argument("--data", default="phantom", help="phantom (default), a folder, or a registered source's name")
    sweep.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="random seeds (default 0)")
    sweep.add_argument("--arms", metavar="A,B", help="only these arms (default: all)")
    sweep.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    sweep.add_argument("--out", metavar="DIR", help="folder of the arms (default runs/studies/STUDY-DATA-PROFILE)")
    sweep.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="change a setting; of a "
                       "chapter, FIELD=VALUE,VALUE,... runs it with each")
    sweep.add_argument("--collect", action="store_true", help="write the finished arms of OUT to data/results/studies; "
                       "of a chapter, only make the table anew")
    chapter = sweep.add_argument_group("of a chapter (runs on dask.distributed)")
    chapter.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "V,V,..."),
                         help="run with each value of a parameter, such as -p seed 0,1,2")
    chapter.add_argument("--scheduler", metavar="ADDRESS", help="a Dask scheduler (tcp://host:8786); default: workers "
                         "on this machine")
    chapter.add_argument("--workers", type=int, metavar="N", help="workers on this machine (default: GPUs, or cores)")
    chapter.add_argument("--retries", type=int, default=2, metavar="N", help="of a run whose worker dies (default 2)")


def _add_volume(commands) -> None:
    volume = _add(commands, "volume", _volume, "write a synthetic CT volume, made from noise, as NIfTI (chapter 07)")
    volume.add_argument("--checkpoint", required=True, metavar="RUN", help="out folder of chapter 07, or its weights")
    volume.add_argument("--to", required=True, metavar="FILE", help="a file ending in .nii or .nii.gz")
    volume.add_argument("--size", type=int, nargs=3, metavar=("X", "Y", "Z"), help="voxels (default: the run's)")
    volume.add_argument("--seed", type=int, default=0, metavar="N", help="which volume (default 0)")
    volume.add_argument("--overlap", type=int, metavar="VOXELS", help="of neighbouring blocks (default: the run's)")
    volume.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")


def _add_export(commands) -> None:
    export = _add(commands, "export", _export, "write a run's synthetic images as a data set with masks, splits, "
                  "provenance and datasheet, for ImageFolder, MONAI, nnU-Net or a PACS")
    export.add_argument("run", metavar="RUN", help="the folder a chapter was run into")
    export.add_argument("--to", required=True, metavar="DIR", help="a new folder; for nnU-Net, DatasetXXX_NAME")
    export.add_argument("--format", default="png", help="png (default), nifti (nnU-Net v2), dicom-sc")
    export.add_argument("--licence", default="", metavar="TEXT", help="of the data set (default: what the data allow)")
    export.add_argument("--split", type=float, nargs=3, default=(0.7, 0.1, 0.2), metavar=("TRAIN", "VAL", "TEST"),
                        help="shares, by source patient (default 0.7 0.1 0.2)")
    export.add_argument("--seed", type=int, default=0, metavar="N", help="of the split (default 0)")


def _add_data(commands) -> None:
    data = commands.add_parser("data", help="list, fetch, check and make data sets")
    parts = data.add_subparsers(title="commands", required=True, metavar="COMMAND")
    listing = _add(parts, "list", cli_data.listing, "list the registered data sets, or say more about one")
    listing.add_argument("name", nargs="?", metavar="NAME")
    listing.add_argument("--markdown", action="store_true", help="as the table of the book's page on data sets")
    get = _add(parts, "get", cli_data.get, "download, verify and unpack a data set")
    get.add_argument("name", metavar="NAME")
    get.add_argument("--to", metavar="DIR", help="a new folder (default: the cache)")
    check = _add(parts, "check", cli_data.check, "say what a folder holds and what is wrong with it")
    check.add_argument("path", metavar="DIR")
    phantom = _add(parts, "phantom", cli_data.phantom, "write virtual patients as a data set")
    phantom.add_argument("folder", metavar="DIR", help="a new or empty folder")
    phantom.add_argument("-n", type=int, default=10, help="how many patients (default 10)")
    phantom.add_argument("--seed", type=int, default=0)
    phantom.add_argument("--shape", metavar="Z,Y,X", help="size of each volume, or Y,X of images (default: natural)")
    phantom.add_argument("--label", help="normal, covid or pneumonia (default: mixed)")
    phantom.add_argument("--kind", default="cases", help="cases (NIfTI volumes, default), slices or xrays (PNG)")


def _add_results(commands) -> None:
    results = commands.add_parser("results", help="show recorded results, record a run")
    parts = results.add_subparsers(title="commands", required=True, metavar="COMMAND")
    show = _add(parts, "show", _results_show, "show recorded results, or those of a run")
    show.add_argument("what", nargs="?", metavar="CHAPTER|DIR", help="a chapter, or a run's folder (default: all)")
    record = _add(parts, "record", _results_record, "add a run's numbers to data/results")
    record.add_argument("out", metavar="OUT", help="the folder the chapter was run into")
    record.add_argument("--weights", action="store_true",
                        help="also keep its weights, with a model card, in data/weights")
    record.add_argument("--publish", action="store_true", help="also put the executed notebook's outputs into the book")
    _add(parts, "weights", _results_weights, "list the weights of recorded runs, for --checkpoint recorded")


if __name__ == "__main__":
    entry()
