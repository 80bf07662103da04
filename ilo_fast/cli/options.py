"""Options shared by commands, and the checks of their text."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ilo_fast.errors import InputError
from ilo_fast.layers import parse_layers

__all__ = [
    "WritablePath",
    "debug",
    "device",
    "metric_options",
    "names",
    "run_options",
    "state_options",
]


class WritablePath(click.Path):
    """A path to write to; an empty one, which an unset shell variable gives, would be ".".

    Files appear by being renamed, which would take the place of a link or a device: a link stands
    for what it leads to, a device is refused.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("expected a path, got an empty text", param, ctx)
        path = os.path.expanduser(value)  # shells leave the "~" of --out=~/x
        path = os.path.realpath(path) if os.path.islink(path) else path
        if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
            self.fail(f"expected a file or folder, {value!r} is neither", param, ctx)
        return super().convert(path, param, ctx)


_Command = TypeVar("_Command", bound=Callable[..., Any])


def layers_text(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Callback: text that `ilo_fast.layers.parse_layers` takes, or None."""
    try:
        parse_layers(value)
    except InputError as error:
        raise click.BadParameter(str(error), ctx, param) from error
    return value


def names(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str] | None:
    """Callback: names between commas, or None."""
    if value is None:
        return None
    parts = [part.strip() for part in value.split(",")]
    if not all(parts):
        raise click.BadParameter(f"expected names between commas, got {value!r}", ctx, param)
    return parts


def tokens(ctx: click.Context, param: click.Parameter, value: str) -> str | int:
    """Callback: 'auto' or a whole number of at least 1."""
    if value == "auto":
        return value
    if not value.isdecimal() or int(value) < 1:
        raise click.BadParameter(
            f"expected 'auto' or a whole number of at least 1, got {value!r}", ctx, param
        )
    return int(value)


debug = click.option(
    "--debug", is_flag=True, expose_value=False, help="Show the traceback of an error."
)
device = click.option(
    "--device",
    default="auto",
    show_default=True,
    help="Where to compute: auto, cpu, cuda, cuda:1, or balanced, over all CUDA cards.",
)


def metric_options(command: _Command) -> _Command:
    """The options that define the score."""
    return _apply(
        command,
        click.option(
            "--k",
            "-k",
            type=click.IntRange(min=1),
            default=5,
            show_default=True,
            help="Neighbours of each sentence.",
        ),
        click.option(
            "--threshold",
            type=click.IntRange(min=1),
            default=3,
            show_default=True,
            help="Other languages among the neighbours that make a sentence a bridge.",
        ),
        click.option(
            "--metric",
            type=click.Choice(["cosine", "euclidean", "inner_product"]),
            default="cosine",
            show_default=True,
            help="What makes neighbours near.",
        ),
        click.option(
            "--layers",
            callback=layers_text,
            metavar="0,5,10:20",
            help="Layers as numbers and Python slices, '0,5,10:20' (20 left out) or '-1'; 0 is the "
            "embedding output, -1 the last. All when left out.",
        ),
        click.option(
            "--pool",
            type=click.Choice(["mean", "last", "weighted"]),
            default="mean",
            show_default=True,
            help="How the tokens of a sentence become one point.",
        ),
    )


def run_options(command: _Command) -> _Command:
    """The options that say where and how to compute."""
    return _apply(
        command,
        device,
        click.option(
            "--dtype",
            type=click.Choice(["auto", "float32", "bfloat16", "float16", "float64"]),
            default="auto",
            show_default=True,
            help="Of the forward pass; auto is the checkpoint's own.",
        ),
        click.option(
            "--batch-tokens",
            callback=tokens,
            metavar="auto|N",
            default="auto",
            show_default=True,
            help="Tokens in one forward pass.",
        ),
        click.option(
            "--backend",
            default="auto",
            show_default=True,
            help="Of the neighbour search; `ilo-fast env` lists the choices. One that cannot serve "
            "is an error.",
        ),
        click.option(
            "--fused",
            type=click.Choice(["auto", "off", "liger", "compile"]),
            default="auto",
            show_default=True,
            help="Fused kernels in the forward pass: auto where the extra `liger` serves a 16-bit "
            "model on CUDA; compile has torch compile the layers. These two are errors where they "
            "cannot serve.",
        ),
        click.option(
            "--reference",
            is_flag=True,
            help="Reproduce the paper's public code, rounding and quirks included.",
        ),
        click.option(
            "--states",
            type=WritablePath(file_okay=False, path_type=Path),
            help="Keep the hidden states in this folder: an interrupted run goes on there, a later "
            "one with another k, threshold or metric reads them, compare and plot take it.",
        ),
        click.option("--seed", type=int, default=0, show_default=True, help="For what is random."),
        click.option("--no-plots", is_flag=True, help="Write no pictures."),
        click.option("--quiet", "-q", is_flag=True, help="No progress on standard error."),
        debug,
    )


def state_options(command: _Command) -> _Command:
    """How to score stored states; tables of scores carry all this."""
    return _apply(
        command,
        click.option(
            "--k",
            "-k",
            type=click.IntRange(min=1),
            help="Neighbours of each sentence, for stored states; as in the tables, or 5.",
        ),
        click.option(
            "--threshold",
            type=click.IntRange(min=1),
            help="Other languages that make a bridge, for stored states; as in the tables, or 3.",
        ),
        click.option(
            "--metric",
            type=click.Choice(["cosine", "euclidean", "inner_product"]),
            help="What makes neighbours near, for stored states; as in the tables, or cosine.",
        ),
    )


def _apply(command: _Command, *options: Callable[[_Command], _Command]) -> _Command:
    for option in reversed(options):
        command = option(command)
    return command
