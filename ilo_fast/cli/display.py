"""Results and environment as tables on standard output."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ilo_fast.shown import counted

if TYPE_CHECKING:
    import pandas as pd

    from ilo_fast.results import Result

__all__ = ["bar", "make_console", "plain", "show", "show_environment", "show_files"]

_WIDTH_OF_PIPES = 100  # where there is no terminal to ask
_LEAST_WIDTH = 80
_BAR_CELLS = 16  # keeps the table within that
_SHOWN_LANGUAGES = 5
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def show(result: "Result", paths: Iterable[Path], removed: Iterable[Path] = ()) -> None:
    """The run in a line, a table of layers, the languages at the peak, the files written.

    ``removed``: what went away with the scores of an earlier run.
    """
    console = make_console()
    means = result.layers()
    highest = float(means["ilo"].max())
    peaks = means["layer"][means["ilo"] == highest].tolist() if highest > 0 else []
    peak = peaks[0] if peaks else None
    plain(console, _headline(result))
    console.print(_layer_table(means, peak, _can_draw_blocks(console)))
    if peak is None:
        plain(console, "ILO is 0 in every layer: no point is a bridge")
    else:
        for line in _languages_at(result.table, peak, peaks[1:]):
            plain(console, line)
    show_files(console, paths, removed)


def show_files(console: Console, paths: Iterable[Path], removed: Iterable[Path]) -> None:
    """The files written, and those of an earlier run that went away."""
    written, gone = list(paths), ", ".join(path.name for path in removed)
    if written:
        names = ", ".join(path.name for path in written)
        plain(console, f"Written to {written[0].parent}: {names}")
    if gone:
        plain(console, f"Removed, as of an earlier run: {gone}")


def bar(share: float, cells: int, *, blocks: bool) -> str:
    """A bar of at most ``cells`` characters for a share between 0 and 1.

    >>> from ilo_fast.cli.display import bar
    >>> bar(0.5, 8, blocks=False)
    '####'
    >>> bar(0.56, 4, blocks=True)
    '██▏'
    """
    if not blocks:
        return "#" * round(share * cells)
    whole, part = divmod(int(share * cells * 8), 8)
    return "█" * whole + _EIGHTHS[part].strip()


def show_environment() -> None:
    """Versions, devices and backends."""
    from ilo_fast.environment import describe, devices
    from ilo_fast.ops import dispatch

    console = make_console()
    found = describe()
    table = Table("what", "version", title="Versions", title_justify="left")
    table.add_row("python", found["python"])
    table.add_row("platform", found["platform"])
    for name, version in found["versions"].items():
        table.add_row(name, version or "not installed")
    console.print(table)
    table = Table("device", "name", "memory", title="Devices", title_justify="left")
    found_devices = devices()
    for device in found_devices:
        memory = f"{device.memory / 2**30:.1f} GiB" if device.memory else ""
        table.add_row(device.id, device.name, memory)
    console.print(table)
    table = Table("backend", "what it does", title="Neighbour search", title_justify="left")
    for name, what in dispatch.described():
        table.add_row(name, what)
    console.print(table)
    for device in found_devices:
        for line in (f"auto: {dispatch.explain(device.id)}", *dispatch.explain_kernels(device.id)):
            plain(console, line)


def make_console(width: int = _WIDTH_OF_PIPES) -> Console:
    """Of the terminal, or of a fixed width where there is none.

    Tables need 80 columns; a narrower terminal breaks their lines, where columns would lose digits.
    """
    console = Console()
    return Console(width=max(console.width, _LEAST_WIDTH) if console.is_terminal else width)


def plain(console: Console, line: str) -> None:
    """Print a line as it is: no markup, no colours, no breaks."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _can_draw_blocks(console: Console) -> bool:
    try:
        _EIGHTHS.encode(console.encoding)
    except UnicodeEncodeError:
        return False
    return True


def _headline(result: "Result") -> str:
    record = result.record
    model, corpus, device = record["model"], record["corpus"], record["device"]
    seconds = sum(record["timeline"].values())
    proved = float(result.table["certified"].mean())
    share = "all" if proved == 1 else "none" if proved == 0 else f"{proved:.2%}"
    return (
        f"{model['name']} on {corpus['name']} ({counted(len(corpus['languages']), 'language')} × "
        f"{counted(corpus['sentences'], 'sentence')}): {model['dtype']} on {device['id']} "
        f"({device['name']}), neighbours by {record['backend']['name']} ({share} proved exact), "
        f"{seconds:.1f} s{_kept(record['extraction'])}"
    )


def _kept(extraction: Mapping[str, Any]) -> str:
    """Which hidden states were there already."""
    if extraction.get("states") == "read":
        return "; hidden states read, not made"
    if extraction.get("states") == "resumed":
        kept, all_of_them = extraction["sentences_kept"], extraction["sentences"]
        return (
            f"; hidden states of {kept:,} of {counted(all_of_them, 'sentence')} were there already"
        )
    return ""


def _layer_table(means: "pd.DataFrame", peak: int | None, blocks: bool) -> Table:
    table = Table(
        title="Means over languages; layer 0 is the embedding output", title_justify="left"
    )
    table.add_column("layer", justify="right")
    table.add_column("ILO", justify="right")
    table.add_column("", min_width=_BAR_CELLS, no_wrap=True)
    for name in ("bridge", "reach", "translation\nhit", "same\nlanguage"):
        table.add_column(name, justify="right")
    tallest = max(float(means["ilo"].max()), 1e-9)
    for row in means.to_dict("records"):
        at_peak = row["layer"] == peak
        drawn = Text(
            bar(row["ilo"] / tallest, _BAR_CELLS, blocks=blocks),
            style="bold green" if at_peak else "cyan",
        )
        table.add_row(
            f"{row['layer']}{' *' if at_peak else '  '}",
            f"{row['ilo']:.4f}",
            drawn,
            f"{row['bridge']:.3f}",
            f"{row['reach']:.3f}",
            f"{row['translation_hit']:.3f}",
            f"{row['same_language']:.3f}",
            style="bold" if at_peak else None,
        )
    return table


def _languages_at(table: "pd.DataFrame", layer: int, as_high: list[int]) -> list[str]:
    """The languages most and least overlapping at one layer, the first of the highest."""
    ranked = table[table["layer"] == layer].sort_values(
        ["ilo", "language"], ascending=[False, True], kind="stable"
    )
    count = min(_SHOWN_LANGUAGES, (len(ranked) + 1) // 2)

    def listed(rows: "pd.DataFrame") -> str:
        return ", ".join(
            f"{language} {ilo:.3f}"
            for language, ilo in zip(rows["language"], rows["ilo"], strict=True)
        )

    others = ", ".join(map(str, as_high))
    tied = f", as high at layer{'s' * (len(as_high) > 1)} {others}" if as_high else ""
    return [
        f"* ILO peaks at layer {layer}{tied}. Highest there: {listed(ranked.head(count))}",
        f"  Lowest there: {listed(ranked.tail(len(ranked) - count).tail(count))}",
    ]
