"""Put the adapters' figures into docs/adapters: ``python -m benchmarks.adapter_pages``.

A page holds ``<!-- times: WORKLOAD -->``; what follows it, to the page's end, is written from
results/adapters.json.
"""

import json
import re
from pathlib import Path
from typing import Any

__all__ = ["PAGES", "RESULTS", "rendered"]

RESULTS = Path(__file__).parent / "results" / "adapters.json"
PAGES = Path(__file__).parents[1] / "docs" / "adapters"
_MARK = re.compile(r"<!-- times: (\w+) -->\n")


def rendered(page: str, workloads: dict[str, dict[str, Any]]) -> str:
    """The page with the figures of its workload; unchanged where it names none that was run."""
    mark = _MARK.search(page)
    if mark is None or mark[1] not in workloads:
        return page
    return page[: mark.end()] + "\n" + times(workloads[mark[1]])


def times(workload: dict[str, Any]) -> str:
    """A heading, what was run where, and one row a contender."""
    run = workload["run"]
    machine, threads = run["machine"], run["settings"]["threads"]
    count = "1 thread" if threads == 1 else f"{threads} threads"
    contenders = workload["contenders"]
    right = any("rows_right" in timing for timing in contenders.values())
    columns = ["", "seconds", "processor seconds", "peak memory"]
    columns += ["rows as in float64"] if right else []
    lines = [
        "## Times",
        "",
        f"{workload['describe']}; synthetic states; CPU ({machine['cpu']}), {count}, medians of "
        f"{workload['rounds']} interleaved rounds.",
        "",
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
    ]
    for name, timing in contenders.items():
        memory = timing["peak_extra_mib"]
        cells = [
            name,
            f"{timing['wall_median_s']:.2f}",
            f"{timing['cpu_median_s']:.2f}",
            "" if memory is None else f"{memory:.0f} MiB",
        ]
        if right:
            cells.append(f"{100 * timing['rows_right']:.1f} %")
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "From benchmarks/results/adapters.json, by `python -m benchmarks adapters`.", ""]
    return "\n".join(lines)


def main() -> None:
    """Rewrite the pages."""
    content = json.loads(RESULTS.read_text(encoding="utf-8"))
    workloads = {workload["name"]: workload for workload in content["workloads"]}
    for path in sorted(PAGES.glob("*.md")):
        page = path.read_text(encoding="utf-8")
        path.write_text(rendered(page, workloads), encoding="utf-8")


if __name__ == "__main__":
    main()
