"""The ``ilo-fast`` command. Nothing heavy is imported until a command runs."""

import _thread
import errno
import gc
import io
import os
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from ilo_fast import __version__
from ilo_fast.cli.compare import compare
from ilo_fast.cli.demo import demo
from ilo_fast.cli.env import env
from ilo_fast.cli.freeze import freeze
from ilo_fast.cli.plot import plot
from ilo_fast.cli.query import query
from ilo_fast.cli.report import report
from ilo_fast.cli.scan import scan
from ilo_fast.cli.score import score
from ilo_fast.errors import InputError
from ilo_fast.files import check_utf8

__all__ = ["cli", "main"]

_BAD_INPUT, _FAILED, _INTERRUPTED = 2, 1, 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="ilo-fast")
def cli() -> None:
    """Where inside a multilingual model the same sentence looks the same in every language.

    Scores each layer and language of a model on a parallel corpus, by the Interlingual Local
    Overlap (ILO) of the hidden states' exact nearest neighbours.
    """


cli.add_command(score)
cli.add_command(demo)
cli.add_command(compare)
cli.add_command(plot)
cli.add_command(env)
cli.add_command(freeze)
cli.add_command(scan)
cli.add_command(query)
cli.add_command(report)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit status.

    0: done. 2: bad input, said in one line on standard error. 130: interrupted. 1: a failure that
    is not the user's, said in one line too. ``--debug`` adds the traceback.
    """
    gc.set_threshold(10_000)  # imports make many objects and no garbage
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(_run(given or ["--help"]))


def _run(given: list[str]) -> int:
    debug = "--debug" in given
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what it cannot encode is shown as "?"
            stream.reconfigure(errors="replace")
    try:
        for word in given:  # records hold the command, in UTF-8
            check_utf8(word, "command line")
        # Not cli.main(), which prints lines of its own when interrupted.
        with _interrupts_repeated(), cli.make_context("ilo-fast", given) as context:
            cli.invoke(context)
        return 0
    except click.exceptions.Exit as request:
        return int(request.exit_code)
    except click.ClickException as error:
        return _say(error.format_message(), _BAD_INPUT, debug)
    except (click.Abort, KeyboardInterrupt):
        again = "; the same command goes on from there" if _resumable(given) else ""
        return _say(f"interrupted; nothing was left half-written{again}", _INTERRUPTED, debug)
    except InputError as error:
        return _say(str(error), _BAD_INPUT, debug)
    except BrokenPipeError:  # who read our output has gone; what is left of it goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    except OSError as error:
        what = "no space left on the disk" if error.errno == errno.ENOSPC else str(error)
        return _say(what, _BAD_INPUT, debug)
    except Exception as error:
        where = "" if debug else " (--debug shows where)"
        return _say(f"{type(error).__name__}: {error}{where}", _FAILED, debug)


def _resumable(given: Sequence[str]) -> bool:
    """Whether a command keeps what it has done."""
    states = any(word.partition("=")[0] == "--states" for word in given)
    return given[0] == "scan" or states


@contextmanager
def _interrupts_repeated() -> Iterator[None]:
    """Send Ctrl-C again where Python could only print and drop it.

    That is what becomes of an exception within a destructor or a weak reference's callback, and
    importing torch and transformers runs many of those.
    """

    def heard(dropped: Any) -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            threading.Timer(0.05, _thread.interrupt_main).start()
        else:
            sys.__unraisablehook__(dropped)

    before, sys.unraisablehook = sys.unraisablehook, heard
    try:
        yield
    finally:
        sys.unraisablehook = before


def _say(text: str, status: int, debug: bool) -> int:
    """One line on standard error, after the traceback where it was asked for."""
    if debug:
        traceback.print_exc()
    click.echo(f"ilo-fast: {' '.join(text.split())}", err=True)
    return status
