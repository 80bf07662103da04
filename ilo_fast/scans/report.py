"""A results folder as one HTML page: tables, curves, heat maps, failures, records; no network."""

import base64
import hashlib
import json
import math
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ilo_fast import __version__
from ilo_fast.errors import InputError
from ilo_fast.files import expanded, write_text
from ilo_fast.kept import stack_lists
from ilo_fast.overlap import mutual_knn
from ilo_fast.results import SCORES, grids
from ilo_fast.scans.dataset import Dataset, read_cell, read_rows, reading
from ilo_fast.scans.names import natural
from ilo_fast.scans.tables import SCHEMAS

__all__ = ["report_data", "write_report"]

_DIGITS = 4
_NAMES = ("model", "revision", "corpus", "metric", "k", "threshold", "pool", "dtype")
_SAME = [*_NAMES, "n_points"]


def write_report(results: str | Path, out: str | Path, *, title: str = "ILO scan") -> Path:
    """Write the page; it appears under ``out`` whole or not at all.

    Raises InputError when ``results`` holds no scan, or a scan without any result or failure.
    """
    try:
        import jinja2
    except ImportError as error:
        raise InputError(
            "report: jinja2 is not installed; install it with: pip install 'ilo-fast[scan]'"
        ) from error
    data = report_data(results)
    if not data["cells"] and not data["failures"]:
        raise InputError(f"report: {str(results)!r} holds no result and no failure yet")
    folder = files("ilo_fast.scans") / "templates"
    script = (folder / "report.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string((folder / "report.html").read_text(encoding="utf-8")).render(
        title=title,
        style=_verbatim(jinja2, (folder / "report.css").read_text(encoding="utf-8")),
        script=_verbatim(jinja2, script),
        # Only this very script may run in the page, whatever a name in the data looks like.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=_verbatim(jinja2, _embedded({**data, "title": title})),
    )
    path = expanded(out)
    write_text(path, page)
    return path


def report_data(results: str | Path) -> dict[str, Any]:
    """What the page shows, as plain values; shares are rounded to four digits."""
    dataset = Dataset(results)
    cells = [_cell(dataset, path) for path in dataset.files("scores")]
    cells.sort(key=lambda cell: [natural(str(cell[name])) for name in _NAMES])
    failures = pd.concat(
        [read_rows(path, "failures") for path in dataset.files("failures")]
        or [SCHEMAS["failures"].empty_table().to_pandas()]
    )
    return {
        "generated": datetime.now(UTC).isoformat(timespec="seconds"),
        "package": __version__,
        "scores": list(SCORES),
        "cells": cells,
        "overlaps": _overlaps(dataset, cells),
        "failures": json.loads(failures.to_json(orient="records")),
    }


def _cell(dataset: Dataset, path: Path) -> dict[str, Any]:
    """One result: names, curves over layers, a layers × languages matrix for each score."""
    key, record = read_cell(path, "scores")
    scores = read_rows(path, "scores")
    with reading(path):
        if scores.empty or (scores[_SAME] != scores[_SAME].iloc[0]).any(axis=None):
            raise ValueError(f"its rows must have one {', one '.join(_SAME)}")
        numbers, languages, values = grids(scores, "scores")
    first = scores.iloc[0]
    cell: dict[str, Any] = {
        **{name: first[name] for name in _NAMES},
        "k": int(first["k"]),
        "threshold": int(first["threshold"]),
        "points": int(first["n_points"]) * len(languages),
        "layers": list(numbers),
        "peak": int(np.argmax(values["ilo"].mean(axis=1))),  # before digits are dropped
        "languages": list(languages),
        "heat": {name: [_rounded(row) for row in values[name]] for name in SCORES},
        "certified": float(scores["certified"].mean()),
        "record": record,
        "identity": key["parts"],
        "slot": key["slot"],
        "key": key["key"],
    }
    cell["curves"] = _curves(dataset, path, key["key"], cell)
    return cell


def _curves(dataset: Dataset, path: Path, key: str, cell: dict[str, Any]) -> dict[str, Any]:
    """Means over languages by layer, with intervals and null where they were made."""
    beside = dataset.folder.joinpath("layers", *path.parts[-3:])
    table = read_rows(beside, "layers") if beside.exists() else None
    if table is None or not (table["key"] == key).all():  # a scan was stopped between the two
        return {name: {"mean": _rounded(np.mean(cell["heat"][name], axis=1))} for name in SCORES}
    table = table.sort_values("layer", kind="stable")
    with reading(beside):
        if table["layer"].tolist() != cell["layers"]:
            raise ValueError(f"its layers must be {cell['layers']}")
    curves: dict[str, Any] = {}
    for name in SCORES:
        curves[name] = {"mean": _rounded(table[name])}
        if table[f"{name}_low"].notna().all():
            curves[name]["low"] = _rounded(table[f"{name}_low"])
            curves[name]["high"] = _rounded(table[f"{name}_high"])
    if table["ilo_null"].notna().all():
        for column in ("null", "null_sd", "p", "p_lower"):
            curves["ilo"][column] = _rounded(table[f"ilo_{column}"])
    return curves


def _overlaps(dataset: Dataset, cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mutual k-NN of models, each at the layer where its mean ILO peaks, where lists were kept."""
    groups: dict[tuple[Any, ...], list[tuple[dict[str, Any], int, Any]]] = {}
    slots = {path.stem: path for path in dataset.files("neighbors")}
    for cell in cells:
        if (
            cell["slot"] not in slots
            or read_cell(slots[cell["slot"]], "neighbors")[0]["key"] != cell["key"]
        ):
            continue  # none were kept, or a scan was stopped between the two
        peak = cell["layers"][cell["peak"]]
        columns, rows = ["point", "neighbors"], [("layer", "=", peak)]
        table = read_rows(slots[cell["slot"]], "neighbors", columns=columns, filters=rows)
        with reading(slots[cell["slot"]]):
            lists = stack_lists(table, cell["points"], cell["k"])
        place = (cell["corpus"], cell["identity"]["corpus"], cell["metric"], cell["k"])
        groups.setdefault(place, []).append((cell, peak, lists))
    found = []
    for (corpus, _, metric, k), members in groups.items():
        if len(members) < 2:
            continue
        values = np.eye(len(members))
        for i, (_, _, one) in enumerate(members):
            for j in range(i):
                values[i, j] = values[j, i] = mutual_knn(one, members[j][2])[0]
        found.append(
            {
                "corpus": corpus,
                "metric": metric,
                "k": k,
                "chance": round(k / (len(members[0][2]) - 1), 6),
                "models": _titles([cell for cell, _, _ in members]),
                "layers": [peak for _, peak, _ in members],
                "values": [_rounded(row) for row in values],
            }
        )
    return found


def _titles(cells: list[dict[str, Any]]) -> list[str]:
    """Model and revision of each, and where those are there twice, what tells them apart."""
    names = [
        f"{cell['model']}@{cell['revision']}" if cell["revision"] else str(cell["model"])
        for cell in cells
    ]
    titles = []
    for own, cell in zip(names, cells, strict=True):
        twins = [other for name, other in zip(names, cells, strict=True) if name == own]
        for key, shown in (("threshold", "threshold={}"), ("pool", "{}"), ("dtype", "{}")):
            if len({twin[key] for twin in twins}) > 1:
                own += ", " + shown.format(cell[key])
        titles.append(own)
    return titles


def _rounded(values: Iterable[float]) -> list[float | None]:
    return [round(float(v), _DIGITS) if math.isfinite(v) else None for v in values]


def _embedded(data: dict[str, Any]) -> str:
    """JSON that no HTML parser can be led astray by."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _verbatim(jinja2: Any, text: str) -> Any:
    """Our own style and script, and data that `_embedded` made harmless."""
    return jinja2.utils.markupsafe.Markup(text)
