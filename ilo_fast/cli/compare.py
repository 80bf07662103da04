"""``ilo-fast compare``: the differences between results, layer by layer."""

import sys
from collections.abc import Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilo_fast.cli.options import WritablePath, debug, state_options
from ilo_fast.shown import counted

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from ilo_fast.compare import Comparison, LayerPair

__all__ = ["compare"]

_BY = ("script", "family", "branch", "language")


@click.command(short_help="Differences between results, layer by layer.")
@click.argument("inputs", nargs=-1, required=True, metavar="A B [C ...]")
@click.option(
    "--out",
    type=WritablePath(file_okay=False, path_type=Path),
    required=True,
    help="Folder for the tables and pictures.",
)
@click.option(
    "--by",
    type=click.Choice(_BY),
    default="family",
    show_default=True,
    help="Language groups to print and draw; the table holds all.",
)
@click.option(
    "--steps",
    metavar="FIRST,LAST",
    help="Steps of a training to compare; its first and last when left out.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Bootstrap draws.",
)
@click.option(
    "--level",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="Coverage of the intervals.",
)
@click.option(
    "--permutations",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Draws of the overlap's null, for its p values; wants neighbour lists or states.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of all draws.")
@state_options
@click.option("--no-plots", is_flag=True, help="Write no pictures.")
@debug
def compare(
    inputs: tuple[str, ...],
    out: Path,
    by: str,
    steps: str | None,
    samples: int,
    level: float,
    permutations: int,
    seed: int,
    k: int | None,
    threshold: int | None,
    metric: str | None,
    no_plots: bool,
) -> None:
    """Compare results with the first, A: differences per layer and language group, with intervals.

    Each input is a folder of results, a .parquet table of scores, a folder of stored states, or the
    table that a training's callback wrote, of which the change from first to last step is given
    (one such table may stand alone). Same text, k, threshold and metric are required.
    """
    from ilo_fast.compare import compare as run
    from ilo_fast.compare import left_behind
    from ilo_fast.files import present
    from ilo_fast.sources import from_states_beside, read_inputs

    chosen = _steps(steps)
    sources = read_inputs(inputs, k=k, threshold=threshold, metric=metric)
    for at, (path, found_there) in enumerate(zip(inputs, sources, strict=True)):
        if found_there[0].lists is None:  # states in the same folder tell the neighbours
            sources[at] = [from_states_beside(source, path) for source in found_there]
    found = run(
        sources, steps=chosen, samples=samples, level=level, permutations=permutations, seed=seed
    )
    found = replace(found, record={"command": sys.argv[:], **found.record})
    earlier = present(out, left_behind(out, found.record)[0])
    paths = found.save(out, plots=not no_plots, by=by)
    _show(found, by, paths, [path for path in earlier if not path.exists()])


def _steps(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise click.BadParameter(f"expected two steps as 0,400, got {text!r}", param_hint="--steps")
    return int(parts[0]), int(parts[1])


def _show(found: "Comparison", by: str, paths: list[Path], removed: list[Path]) -> None:
    """Each pair's layers and groups, the best overlap, the files written and removed."""
    from ilo_fast.cli.display import make_console, plain, show_files

    console, level = make_console(), f"{100 * found.record['options']['level']:g} %"
    for a, b in found.pairs():
        plain(console, f"{b} minus {a}")
        rows = found.of(a, b)
        console.print(_of_layers(rows[rows["kind"] == "all"], level))
        console.print(_of_groups(rows[(rows["kind"] == by) & (rows["score"] == "ilo")], by))
    for pair in found.overlaps:
        plain(console, _most_shared(pair))
    for note in found.record["notes"]:
        plain(console, f"Note: {note}")
    show_files(console, paths, removed)


def _of_layers(rows: "pd.DataFrame", level: str) -> "Table":
    """One row a pair of layers."""
    from rich.table import Table

    title, over = "Means over languages", rows["over"].iloc[0]
    if over != "none":
        title += f"; in brackets the {level} interval over {over}, * where it leaves out 0"
    table = Table(title=title, title_justify="left")
    table.add_column("layer", justify="right")
    for name in ("ILO", "bridge", "reach", "translation\nhit"):
        table.add_column(name, justify="right", no_wrap=True)
    same = bool((rows["layer"] == rows["layer_b"]).all())
    for (layer, layer_b), part in rows.groupby(["layer", "layer_b"], sort=True):
        of = {row["score"]: row for row in part.to_dict("records")}
        table.add_row(
            f"{layer}" if same else f"{layer} : {layer_b}",
            _with_interval(of["ilo"]),
            *(f"{of[s]['difference']:+.3f}" for s in ("bridge", "reach", "translation_hit")),
        )
    return table


def _of_groups(rows: "pd.DataFrame", by: str) -> "Table":
    """One row a group of languages: its mean, and its layer of largest change."""
    from rich.table import Table

    table = Table(title=f"ILO by {by}", title_justify="left")
    table.add_column(by)
    for name in ("languages", "mean over\nlayers", "at layer", "largest change"):
        table.add_column(name, justify="right", no_wrap=name == "largest change")
    for group, part in rows.groupby("group", sort=False):
        largest = max(part.to_dict("records"), key=lambda row: abs(row["difference"]))
        table.add_row(
            str(group),
            str(largest["languages"]),
            f"{part['difference'].mean():+.3f}",
            str(largest["layer"]),
            _with_interval(largest),
        )
    return table


def _most_shared(pair: "LayerPair") -> str:
    """The layers of two models that share most neighbours."""
    values = pair.overlap.values
    row, column = divmod(int(values.argmax()), values.shape[1])
    as_much = int((values == values.max()).sum()) - 1
    others = f", as at {counted(as_much, 'other pair')}" if as_much else ""
    sure = "" if pair.overlap.best is None else f", p = {float(pair.overlap.best.p_value):.3g}"
    return (
        f"{pair.a} and {pair.b} share most neighbours at layers {pair.layers_a[row]} and "
        f"{pair.layers_b[column]}: {values[row, column]:.3f}{others} (unrelated lists: "
        f"{pair.overlap.k / (pair.overlap.n - 1):.2g}{sure})"
    )


def _with_interval(row: Mapping[Hashable, Any]) -> str:
    """A difference, its interval where it has one, and a star where that leaves out zero."""
    difference, low, high = (float(row[name]) for name in ("difference", "low", "high"))
    if low != low:  # NaN: nothing to draw from
        return f"{difference:+.3f}"
    star = " *" if low > 0 or high < 0 else "  "
    return f"{difference:+.3f} [{low:+.3f}, {high:+.3f}]{star}"
