"""How much do two results differ, layer by layer and language by language, and how surely?"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ilo_fast import environment
from ilo_fast.arguments import at_least_0, at_least_1, between_0_and_1, check_seed
from ilo_fast.difference_rows import COLUMNS, difference_rows
from ilo_fast.errors import InputError
from ilo_fast.files import check_utf8, expanded, staged
from ilo_fast.groups import language_groups
from ilo_fast.overlap import LayerOverlap, layer_overlap
from ilo_fast.pairing import match_layers, notes_on, pairs_to_compare
from ilo_fast.shown import Shown, counted
from ilo_fast.sources import Source
from ilo_fast.tables import read_table, write_table

__all__ = ["COLUMNS", "Comparison", "LayerPair", "compare", "left_behind"]

_BESIDE = re.compile(r"(differences|groups|overlap)(-\d+)?\.png|overlap\.(parquet|csv)")


@dataclass(frozen=True, eq=False, repr=False)
class LayerPair(Shown):
    """Two sources over the same points: names, layers, metric, and layers × layers overlap."""

    a: str
    b: str
    layers_a: tuple[int, ...]
    layers_b: tuple[int, ...]
    metric: str
    overlap: LayerOverlap


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Differences between results, b minus a.

    Attributes:
        table: one row per (pair, layer, language group, score), columns `COLUMNS`. ``layer`` is
            a's and ``layer_b`` the one of b it was compared with; ``kind`` is ``all``,
            ``script``, ``family``, ``branch`` or ``language`` and ``group`` its name;
            ``difference`` is the group's mean of b minus that of a, between ``low`` and ``high``;
            ``over`` says what was drawn for that interval, ``sentences`` or ``languages``, and is
            ``none`` (low and high NaN) where there is nothing to draw from: a single language
            without neighbour lists.
        overlaps: of each pair that has neighbour lists or states on both sides.
        record: inputs, options, notes, versions.
    """

    table: pd.DataFrame
    overlaps: tuple[LayerPair, ...] = ()
    record: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Comparison({counted(len(self.table), 'row')}: pairs {self.pairs()})"

    def pairs(self) -> list[tuple[str, str]]:
        """The names compared, in order."""
        found = self.table[["a", "b"]].drop_duplicates()
        return list(found.itertuples(index=False, name=None))

    def of(self, a: str, b: str) -> pd.DataFrame:
        """The rows of one pair."""
        return self.table[(self.table["a"] == a) & (self.table["b"] == b)]

    def overlap_table(self) -> pd.DataFrame:
        """One row per (pair, layer of a, layer of b): ``mutual_knn`` and, with permutations, its
        p value and calibrated score."""
        parts = []
        for pair in self.overlaps:
            rows, columns = pair.overlap.values.shape
            part = pd.DataFrame(
                {
                    "a": pair.a,
                    "b": pair.b,
                    "layer_a": np.repeat(pair.layers_a, columns),
                    "layer_b": np.tile(pair.layers_b, rows),
                    "mutual_knn": pair.overlap.values.ravel(),
                }
            )
            if pair.overlap.calibration is not None:
                part["p"] = pair.overlap.calibration.p_value.ravel()
                part["calibrated"] = pair.overlap.calibration.score.ravel()
            parts.append(part)
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def save(self, folder: str | Path, *, plots: bool = True, by: str = "family") -> list[Path]:
        """Write ``compare.parquet`` and ``.csv``, ``overlap.parquet`` and ``.csv`` where there are
        overlaps, and, with ``plots``, pictures, which are numbered from the second pair on.

        All appear under their names at the end, or none does. Pictures and overlaps that another
        comparison wrote there go away with its table, whose record names them under ``files``;
        other files stay. Returns the paths.
        """
        folder = expanded(folder)
        check_utf8(folder, "folder")
        environment.require_space(folder, len(self.table) * 600 + (8 << 20))
        earlier, same = left_behind(folder, self.record)
        with staged(folder, obsolete=() if same else earlier) as temporary:
            if self.overlaps:
                write_table(self.overlap_table(), self.record, temporary, "overlap")
            if plots:
                self._draw(temporary, by)
            beside = {path.name for path in temporary.iterdir()}.union(earlier if same else ())
            record = {**self.record, "files": sorted(beside)}
            write_table(self.table, record, temporary, "compare")
            names = sorted(path.name for path in temporary.iterdir())
        return [folder / name for name in names]

    def _draw(self, folder: Path, by: str) -> None:
        from ilo_fast import plots as draw

        for number, (a, b) in enumerate(self.pairs(), start=1):
            ending = ".png" if number == 1 else f"-{number}.png"
            rows = self.of(a, b)
            draw.save(draw.differences(rows), folder / f"differences{ending}")
            draw.save(draw.group_differences(rows, by=by), folder / f"groups{ending}")
        for number, pair in enumerate(self.overlaps, start=1):
            ending = ".png" if number == 1 else f"-{number}.png"
            ax = draw.overlap(
                pair.overlap.values,
                (pair.layers_a, pair.layers_b),
                names=(pair.a, pair.b),
                chance=pair.overlap.k / (pair.overlap.n - 1),
                k=pair.overlap.k,
                metric=pair.metric,
            )
            draw.save(ax, folder / f"overlap{ending}")


def compare(
    inputs: Sequence[Sequence[Source]],
    *,
    steps: tuple[int, int] | None = None,
    samples: int = 1000,
    level: float = 0.95,
    permutations: int = 0,
    seed: int = 0,
) -> Comparison:
    """Compare results: each with the first, and each training with its own beginning.

    Where both sides have neighbour lists, differences come from `score_change`, a paired
    bootstrap over sentences with the lists fixed. Where one has scores alone, the interval draws
    the group's languages with replacement, the same ones on both sides: it says how far the mean
    hangs on which languages are in the group, and knows nothing of sentences.

    Models of different depth are compared by relative depth: each layer of a with the layer of b
    nearest to it as a share of the model's depth.

    Args:
        inputs: what `ilo_fast.sources.read_inputs` gave for paths, or
            `ilo_fast.sources.from_result` for each result.
        steps: of a training, to compare instead of its first and last.
        samples: bootstrap draws.
        level: coverage of the intervals, between 0 and 1.
        permutations: draws of the null of the overlap; 0 for none. They want neighbour lists on
            both sides of a pair.
        seed: of all draws.

    Returns:
        A `Comparison`.

    Raises:
        InputError: when there is nothing to compare, or the inputs differ in corpus, languages,
            sentences, k, threshold, metric or pooling, naming the difference; when no pair has
            the neighbour lists that ``permutations`` ask for.
        TypeError: on inputs that are no lists of sources.

    >>> from ilo_fast.sources import from_result
    >>> from ilo_fast.results import COLUMNS, Result
    >>> def result(model, ilo):
    ...     row = [model, 0, "eng_Latn", 9, 5, 3, "cosine", 0.5, 1.0, 11, ilo, 0.25, 0.4, 1.0]
    ...     return Result(pd.DataFrame([row], columns=list(COLUMNS)), {})
    >>> found = compare([from_result(result("a", 0.5)), from_result(result("b", 0.75))]).table
    >>> float(found[(found["kind"] == "all") & (found["score"] == "ilo")]["difference"].iloc[0])
    0.25
    """
    samples, seed = at_least_1(samples, "samples"), check_seed(seed)
    level = between_0_and_1(level, "level")
    permutations = at_least_0(permutations, "permutations")
    chosen = pairs_to_compare(inputs, steps)
    if permutations and all(a.lists is None or b.lists is None for a, b in chosen):
        raise InputError(
            "permutations are draws of the overlap's null, which wants neighbour lists (`ilo-fast "
            "score --metrics neighbors`) or hidden states (--states) on both sides; none of the "
            "pairs has them"
        )
    groups = language_groups(chosen[0][0].languages)
    rows, overlaps, notes = [], [], []
    for a, b in chosen:
        matched = match_layers(a, b)
        rows.append(difference_rows(a, b, matched, groups, samples=samples, level=level, seed=seed))
        notes += notes_on(a, b)
        if a.lists is not None and b.lists is not None:
            shared = layer_overlap(a.lists, b.lists, permutations=permutations, seed=seed)
            overlaps.append(
                LayerPair(a.name, b.name, a.layers, b.layers, a.settings["metric"], shared)
            )
    record = {
        "kind": "compare",
        "finished": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "inputs": [_described(source) for source in _distinct(chosen)],
        "options": {
            "samples": samples,
            "level": level,
            "permutations": permutations,
            "seed": seed,
        },
        "notes": list(dict.fromkeys(notes)),
        **environment.describe(),
    }
    return Comparison(pd.concat(rows, ignore_index=True), tuple(overlaps), record)


def left_behind(folder: Path, record: Mapping[str, Any]) -> tuple[list[str], bool]:
    """What a comparison in ``folder`` wrote besides its table, and whether it is that of
    ``record``, whose pictures are still right."""
    try:
        _, earlier = read_table(folder / "compare.parquet")
    except InputError:
        return [], False  # nothing says that files are ours
    if earlier.get("kind") != "compare":
        return [], False
    keys = ("finished", "inputs", "options")
    same = earlier.get("finished") is not None and all(
        earlier.get(key) == record.get(key) for key in keys
    )
    files = earlier.get("files")
    named = [str(name) for name in files] if isinstance(files, list) else []
    return [name for name in named if _BESIDE.fullmatch(name)], same


def _distinct(pairs: Sequence[tuple[Source, Source]]) -> list[Source]:
    return list({source.name: source for pair in pairs for source in pair}.values())


def _described(source: Source) -> dict[str, Any]:
    record = source.record
    return {
        "name": source.name,
        "step": source.step,
        "model": record.get("model", {}).get("name"),
        "corpus": record.get("corpus", {}).get("name"),
        "neighbours": source.lists is not None,
        **{key: source.settings.get(key) for key in ("k", "threshold", "metric", "pool")},
        "corpus_sha256": source.settings.get("corpus"),
    }
