"""How a command speaks and ends: one line for what a user can cause, an exit status, and nothing left running."""

import argparse
import os
import signal
import sys
from collections.abc import Callable

from covlib.config import PROFILES
from covlib.errors import ConfigError, CovlibError


class Stopped(KeyboardInterrupt):
    """By SIGTERM."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the words given in one line, as ConfigError."""

    def error(self, message):
        raise ConfigError(f"{message} (see {self.prog} --help)")


def heed_requests_to_end() -> None:
    """Let SIGTERM (of a queue, or of a shell that closes) end this process as Ctrl-C does, so that the kernel of a
    chapter, and what it started, end too."""
    def end(number, frame) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one is not to cut off what is being ended
        raise Stopped

    signal.signal(signal.SIGTERM, end)


def guarded(work: Callable[[], int]) -> int:
    """The exit status that ``work`` gives; what a user can cause ends in one line and a status of its own."""
    try:
        return work()
    except CovlibError as error:
        print(f"covlib: error: {error}", file=sys.stderr)
        for step in getattr(error, "steps", ()):
            print(f"  {step}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print("\ncovlib: stopped", file=sys.stderr)
        return 143 if isinstance(stop, Stopped) else 130
    except BrokenPipeError:  # the reader of our output (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


# ---- the words of commands -------------------------------------------------------------------------------------------


def arg(*flags: str, **settings) -> tuple:
    """An argument of a command, as ``add_argument`` wants it."""
    return flags, settings


# Options that several commands have. ``covlib run`` must know which were given: its defaults are the chapter's.
PROFILE = arg("--profile", default="cpu", help=", ".join(f"{p} (default)" if p == "cpu" else p for p in PROFILES))
DATA = arg("--data", default="phantom", help="phantom (virtual patients, default), a folder, or a registered source's "
            "name")
LAYOUT = arg("--layout", metavar="HOW", help="how the folder is to be read where two readings are possible: a "
              "layout's name, its folders from the outside (class/patient/series), FOLDER=MEANING (masks=infection, "
              "group_a=covid, old=skip); commas between")
SEED = arg("--seed", type=int, default=0, metavar="N", help="random seed (default 0)")
DEVICE = arg("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
NO_RESUME = arg("--no-resume", dest="resume", action="store_false", help="start anew even if OUT holds a cut-off run")
SET = arg("--set", action="append", default=[], metavar="FIELD=VALUE", help="change a setting of the chapter; to "
           "sweep a chapter, FIELD=VALUE,VALUE,... runs it with each")
PSEUDONYMS = arg("--pseudonyms", action=argparse.BooleanOptionalAction, default=None, help="in place of the names of "
                 "patients, sources and files; the key is DIR-key.csv, beside DIR (default: for own folders)")
PARAMETER = arg("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                 help="any parameter of the chapter; to sweep it, VALUE,VALUE,... runs it with each")


def command(commands, name: str, do, text: str, *arguments: tuple) -> None:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(do=do)
    for flags, settings in arguments:
        parser.add_argument(*flags, **settings)


def group(commands, name: str, text: str):
    """A command that has commands of its own."""
    return commands.add_parser(name, help=text).add_subparsers(title="commands", required=True, metavar="COMMAND")
