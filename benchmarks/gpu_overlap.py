"""Overlap of neighbour lists on a card: all pairs of layers, and two models from their states; and
the scores of all pairs of languages beside a search of the same points."""

import os
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_busy import busy
from benchmarks.gpu_inputs import synthetic
from benchmarks.gpu_race import milliseconds
from ilo_fast import knn
from ilo_fast.alignment import pair_scores
from ilo_fast.alignment.winners import SCORES
from ilo_fast.ops.half_products import served_sums
from ilo_fast.ops.intersect import intersect_torch, intersection_sizes
from ilo_fast.overlap import layer_overlap

__all__ = ["all_pairs", "layers_by_layers", "two_models"]

MOST_MS = 15.0  # 33 × 33 overlaps of 30,907 points, k = 10, from stored lists
TIMES_THEIRS = 200.0  # mutual k-NN of two models of 33 layers, against platonic-rep's loop
K = 10


def layers_by_layers(
    points: int, rounds: int, device: torch.device, failures: list[str], layers: int
) -> dict[str, Any]:
    """Mutual k-NN of every pair of layers from stored lists; counts checked against plain torch."""
    lists = _random_lists(layers, points, device)
    some = lists[:, :997]
    if not torch.equal(
        intersection_sizes(some, some, per_point=True), intersect_torch(some, some, True)
    ) or not torch.equal(intersection_sizes(lists, lists), intersect_torch(lists, lists, False)):
        failures.append("overlap: intersections differ from plain torch's")
    values = layer_overlap(lists).values
    times = [milliseconds(lambda: layer_overlap(lists), device) for _ in range(rounds)]
    middle = sorted(times)[rounds // 2]
    return {
        "name": f"overlap, {layers} × {layers} layers, N = {points}, k = {K}",
        "median_ms": middle,
        "min_ms": min(times),
        "max_ms": max(times),
        "diagonal_is_one": bool((values.diagonal() == 1).all()),
        "target_ms": MOST_MS,
        "meets_target": middle <= MOST_MS,
    }


def all_pairs(
    points: int, d: int, rounds: int, device: torch.device, backend: str, failures: list[str]
) -> dict[str, Any]:
    """Scores of all pairs of 31 languages; those of the first three are checked on the CPU."""
    languages = 31
    sentences = points // languages
    x = synthetic(languages * sentences, d, device)
    labels = np.repeat(np.arange(languages), sentences)
    numbers = np.tile(np.arange(sentences), languages)
    few = 3 * sentences
    here = pair_scores(x[:few], labels[:few], numbers[:few])
    there = pair_scores(x[:few].cpu(), labels[:few], numbers[:few])
    failures += [
        f"pair scores: {name} differs from the CPU's"
        for name in SCORES
        if not np.allclose(getattr(here, name), getattr(there, name), equal_nan=True)
    ]
    pairs = [
        milliseconds(lambda: pair_scores(x, labels, numbers), device) for _ in range(min(rounds, 5))
    ]
    search = [milliseconds(lambda: knn(x, 5, backend=backend), device) for _ in range(rounds)]
    middle, searched = (sorted(times)[len(times) // 2] for times in (pairs, search))
    return {
        "name": f"pair scores of {languages} languages × {sentences} sentences, d = {d}",
        "median_ms": middle,
        "min_ms": min(pairs),
        "max_ms": max(pairs),
        "search_median_ms": searched,
        "over_search": middle / searched,
        "float16_products": served_sums(device) is not None,
        "profile": busy(lambda: pair_scores(x, labels, numbers), device),
    }


def two_models(
    rounds: int,
    device: torch.device,
    backend: str,
    failures: list[str],
    shape: tuple[int, int, int],
) -> dict[str, Any]:
    """Mutual k-NN of two models' layers with the search, beside platonic-rep's compute_score."""
    layers, n, d = shape
    one, two = (
        torch.stack([synthetic(n, d, device, start + seed) for seed in range(layers)])
        for start in (0, 1000)
    )
    one, two = (torch.nn.functional.normalize(x, dim=2) for x in (one, two))

    def ours(engine: str = backend) -> Any:
        found = [knn(x, K, metric="inner_product", backend=engine) for x in (one, two)]
        return layer_overlap(*found).values

    values = ours()
    if (values != ours("torch")).any():
        failures.append("mutual k-NN: another overlap than by plain torch's neighbours")
    times = [milliseconds(ours, device) for _ in range(rounds)]
    middle = sorted(times)[rounds // 2]
    found: dict[str, Any] = {
        "name": f"mutual k-NN of two models, {layers} layers, N = {n}, d = {d}, k = {K}",
        "median_ms": middle,
        "min_ms": min(times),
        "max_ms": max(times),
        "best": float(values.max()),
        "target_times_theirs": TIMES_THEIRS,
    }
    if "ILO_FAST_PLATONIC" not in os.environ:
        return {**found, "not run": {"platonic-rep": "no ILO_FAST_PLATONIC"}}
    from benchmarks.adapter_values import platonic_modules

    _, measure = platonic_modules()
    score: list[float] = []

    def theirs() -> None:
        best, _ = measure.compute_score(list(one), list(two), "mutual_knn", K, normalize=False)
        score.append(float(best))

    elapsed = milliseconds(theirs, device)
    if abs(score[0] - values.max()) > 1e-3:  # float32 order moves a neighbour here and there
        failures.append(f"mutual k-NN: {values.max()} and platonic-rep's {score[0]}")
    found |= {"platonic_rep_ms": elapsed, "platonic_rep_best": score[0]}
    return {
        **found,
        "theirs_over_ours": elapsed / middle,
        "meets_target": elapsed / middle >= TIMES_THEIRS,
    }


def _random_lists(layers: int, n: int, device: torch.device) -> torch.Tensor:
    """int64 ``[layers, n, K]``: neighbours of each point, all different, near ones shared."""
    generator = torch.Generator(device).manual_seed(0)
    gap = max(1, min(n // (K + 1), 4))
    steps = torch.randint(1, gap + 1, (layers, n, K), device=device, generator=generator)
    return (torch.arange(n, device=device)[:, None] + steps.cumsum(dim=2)) % n
