"""How a command speaks and ends: one line for what a user can cause, an exit status, and nothing left running."""

import argparse
import os
import signal
import sys
from collections.abc import Callable

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
