"""Put the adapters' figures into docs/adapters: ``python -m benchmarks.adapter_pages``.

A page holds ``<!-- times: WORKLOAD, WORKLOAD -->``; what follows it, to the page's end, is written
from results/adapters.json, in that order.
"""

import json
import re
from pathlib import Path
from typing import Any

__all__ = ["PAGES", "RESULTS", "rendered"]

RESULTS = Path(__file__).parent / "results" / "adapters.json"
PAGES = Path(__file__).parents[1] / "docs" / "adapters"
_MARK = re.compile(r"<!-- times: (\w+(?:, \w+)*) -->\n")


def rendered(page: str, workloads: dict[str, dict[str, Any]]) -> str:
    """The page with the figures of its workloads; unchanged where it names none that was run."""
    mark = _MARK.search(page)
    run = [workloads[name] for name in mark[1].split(", ") if name in workloads] if mark else []
    if mark is None or not run:
        return page
    source = "From benchmarks/results/adapters.json, by `python -m benchmarks adapters`."
    parts = ["## Times", *map(times, run), source]
    return page[: mark.end()] + "\n" + "\n\n".join(parts) + "\n"


def times(workload: dict[str, Any]) -> str:
    """What was run on what and where, and one row a contender."""
    run = workload["run"]
    machine, threads = run["machine"], run["settings"]["threads"]
    count = "1 thread" if threads == 1 else f"{threads} threads"
    contenders = workload["contenders"]
    right = any("rows_right" in timing for timing in contenders.values())
    columns = ["", "seconds", "times ours", "processor seconds", "peak memory"]
    columns += ["rows as in float64"] if right else []
    example = workload.get("example")
    data = f"**The tool's own example**, {example}" if example else "Synthetic states"
    lines = [
        f"{data}: {workload['describe']}. CPU ({machine['cpu']}), {count}, medians of "
        f"{workload['rounds']} interleaved rounds{_beside(run)}.",
        "",
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
    ]
    for name, timing in contenders.items():
        memory = timing["peak_extra_mib"]
        cells = [
            name,
            _seconds(timing["wall_median_s"]),
            _digits(1 / timing["ours_over_this_wall"]),
            _seconds(timing["cpu_median_s"]),
            "" if memory is None else f"{max(memory, 0):.0f} MiB",
        ]
        if right:
            cells.append(f"{100 * timing['rows_right']:.1f} %")
        lines.append(f"| {' | '.join(cells)} |")
    lines += [line for timing in contenders.values() for line in _apart(timing)]
    return "\n".join(lines)


def _beside(run: dict[str, Any]) -> str:
    """Says so where the machine had other work."""
    load, threads = run["machine"]["load_average"], run["settings"]["threads"]
    if load is None or load <= threads + 1:
        return ""
    return f", beside other programs (load {load:.1f}): compare processor seconds"


def _apart(timing: dict[str, Any]) -> list[str]:
    """How far a tool's numbers are from ours, where a workload says so."""
    if "largest_difference" not in timing:
        return []
    apart = timing["largest_difference"]
    text = f"differ by {apart:.0e} at most" if apart else "are equal"
    if "largest_difference_without_copies" in timing:
        rest = timing["largest_difference_without_copies"]
        text += f"; in float64, without points that are copies of others, by {rest:.0e}"
    return ["", f"Their numbers and ours {text}."]


def _seconds(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else _digits(value)


def _digits(value: float) -> str:
    """Two significant digits, without an exponent: 0.0031, 0.15, 7.1, 23."""
    return f"{value:.0f}" if value >= 9.95 else f"{float(f'{value:.1e}'):g}"


def main() -> None:
    """Rewrite the pages."""
    content = json.loads(RESULTS.read_text(encoding="utf-8"))
    workloads = {workload["name"]: workload for workload in content["workloads"]}
    for path in sorted(PAGES.glob("*.md")):
        page = path.read_text(encoding="utf-8")
        path.write_text(rendered(page, workloads), encoding="utf-8")


if __name__ == "__main__":
    main()
