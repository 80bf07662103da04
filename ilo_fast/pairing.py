"""Which sources are compared with which, layer with which layer, and whether they can be at all."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ilo_fast.errors import InputError
from ilo_fast.sources import Source

__all__ = ["match_layers", "notes_on", "pairs_to_compare"]

_MUST_AGREE = ("corpus", "languages", "sentences", "k", "threshold", "metric", "pool")


def pairs_to_compare(
    inputs: Sequence[Sequence[Source]], steps: tuple[int, int] | None = None
) -> list[tuple[Source, Source]]:
    """Which sources are compared with which; checked that they can be.

    Each training's first step (or ``steps``) with its last; then the last of each further input
    with that of the first. Names that would be the same are numbered.
    """
    for number, sources in enumerate(inputs):
        is_list = isinstance(sources, Sequence)
        if not is_list or not all(isinstance(one, Source) for one in sources):
            raise TypeError(
                f"inputs[{number}] must be a list of sources, as read_inputs(paths) and "
                f"from_result(result) of ilo_fast.sources make them; got {type(sources).__name__}"
            )
    if not inputs or not all(inputs):
        raise InputError("compare needs something to compare, got nothing")
    _check_trainings(inputs, steps)
    named = _with_names(inputs)
    pairs, last = [], []
    for sources in named:
        if sources[0].training is None:
            last.append(sources[0])
            continue
        first, final = (sources[0], sources[-1]) if steps is None else _at(sources, steps)
        pairs.append((first, final))
        last.append(final)
    pairs += [(last[0], other) for other in last[1:]]
    if not pairs:
        raise InputError(
            f"compare needs two results or more, or one table of a training; got {last[0].name} "
            "alone"
        )
    for a, b in pairs:
        _check_comparable(a, b)
    for _, b in pairs[1:]:  # the groups are those of one set of languages
        _check_comparable(pairs[0][0], b)
    return pairs


def match_layers(a: Source, b: Source) -> list[tuple[int, int]]:
    """Places in ``a.layers`` and ``b.layers`` that are compared with each other.

    Models equally deep: the layers both have. Otherwise every layer of a, with the layer of b
    whose share of the depth is nearest, the lower one when two are.
    """
    if a.depth == b.depth:
        common = sorted(set(a.layers) & set(b.layers))
        if not common:
            raise InputError(
                f"{a.name} and {b.name} have no layer in common: {list(a.layers)} and "
                f"{list(b.layers)}"
            )
        return [(a.layers.index(layer), b.layers.index(layer)) for layer in common]
    shares = np.array(b.layers) / max(b.depth, 1)
    return [
        (at, int(np.abs(shares - layer / max(a.depth, 1)).argmin()))
        for at, layer in enumerate(a.layers)
    ]


def notes_on(a: Source, b: Source) -> list[str]:
    """What a reader should know of a pair that can be compared all the same."""
    notes = []
    if a.depth != b.depth:
        notes.append(
            f"{a.name} ends at layer {a.depth}, {b.name} at {b.depth}: layers are compared by "
            "relative depth"
        )
        notes += _far_layers(a, b)
    types = [
        s.record.get("model", {}).get("dtype") or s.record.get("extraction", {}).get("dtype")
        for s in (a, b)
    ]
    if None not in types and types[0] != types[1]:
        notes.append(f"{a.name} ran in {types[0]}, {b.name} in {types[1]}")
    if a.backend != b.backend:
        public, other = (a, b) if a.backend == "reference" else (b, a)
        notes.append(
            f"{public.name} has the neighbours of the public code (--reference), {other.name} "
            "exact ones"
        )
    if a.settings.get("corpus") is None or b.settings.get("corpus") is None:
        notes.append(
            f"{a.name} or {b.name} does not say which text it was made of: only languages and "
            "sentence counts were compared"
        )
    return notes


def _far_layers(a: Source, b: Source) -> list[str]:
    """Which layers of a meet a layer of b that is not the nearest of its model, if any do."""
    held = np.array(b.layers) / max(b.depth, 1)
    shares = {layer: layer / max(a.depth, 1) for layer in a.layers}
    apart = {layer: float(np.abs(held - share).min()) for layer, share in shares.items()}
    far = [
        layer
        for layer, share in shares.items()
        if apart[layer] > abs(round(share * b.depth) / max(b.depth, 1) - share) + 1e-9
    ]
    if not far:
        return []
    most = 100 * max(apart[layer] for layer in far)
    return [
        f"{b.name} does not hold all its layers: {', '.join(map(str, far))} of {a.name} met the "
        f"nearest of {', '.join(map(str, b.layers))}, up to {most:.0f} % of the depth away"
    ]


def _check_trainings(inputs: Sequence[Sequence[Source]], steps: tuple[int, int] | None) -> None:
    trainings = [sources for sources in inputs if sources[0].training is not None]
    if steps is not None and not trainings:
        raise InputError("steps: none of the inputs is the table of a training (no step column)")
    for sources in trainings:
        if len(sources) < 2:
            raise InputError(
                f"{sources[0].training}: the table of a training must hold at least two steps, "
                f"it holds step {sources[0].step} alone"
            )


def _at(sources: Sequence[Source], steps: tuple[int, int]) -> tuple[Source, Source]:
    there = {source.step: source for source in sources}
    for step in steps:
        if step not in there:
            raise InputError(
                f"steps: {sources[0].training} holds no step {step}, it holds "
                f"{', '.join(str(known) for known in there)}"
            )
    if steps[0] == steps[1]:
        raise InputError(f"steps must be two different ones, got {steps[0]} twice")
    return there[steps[0]], there[steps[1]]


def _with_names(inputs: Sequence[Sequence[Source]]) -> list[list[Source]]:
    """The same sources, those of equal names told apart by a number."""
    seen: dict[str, int] = {}
    named = []
    for sources in inputs:
        label = sources[0].training or sources[0].name
        seen[label] = seen.get(label, 0) + 1
        mark = "" if seen[label] == 1 else f" ({seen[label]})"
        named.append(
            [
                replace(source, name=source.name.replace(label, label + mark, 1))
                for source in sources
            ]
        )
    return named


def _check_comparable(a: Source, b: Source) -> None:
    """That both are of the same points, scored alike; else an error that names the difference."""
    for name in _MUST_AGREE:
        one, two = a.settings.get(name), b.settings.get(name)
        if name == "languages":
            one, two = set(one or ()), set(two or ())
        if one is None or two is None or one == two:
            continue
        if name == "corpus":
            one, two = _corpus(a), _corpus(b)
        elif name == "languages":
            only = sorted(one - two), sorted(two - one)
            one, two = (", ".join(names) or "no other" for names in only)
            raise InputError(
                f"{a.name} and {b.name} cannot be compared, they differ in languages: only the "
                f"first has {one}; only the second has {two}"
            )
        raise InputError(
            f"{a.name} and {b.name} cannot be compared, they differ in {name}: {one} and {two}"
        )
    if a.lists is not None and b.lists is not None and a.languages != b.languages:
        raise InputError(
            f"{a.name} and {b.name} cannot be compared, their points are in another order: "
            f"languages {list(a.languages)} and {list(b.languages)}"
        )


def _corpus(source: Source) -> str:
    name = source.record.get("corpus", {}).get("name", "a corpus")
    sha = str(source.settings["corpus"])[:12]
    return f"{name} ({len(source.languages)} languages × {source.n_sentences}, sha256 {sha}…)"
