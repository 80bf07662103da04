"""Scores of all pairs of languages on the CPU, beside the search and the formulas in float64.

All contenders work on one layer's states in one process. The formulas in float64 are those of
`ilo_fast.alignment.similarity`, a pair at a time, for the first languages; their scores must be
ours. The search for neighbours of the same points says what a pass over all cosines costs.

    python -m benchmarks pairs
"""

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from rich.console import Console

from benchmarks.cpu import load_states
from benchmarks.registry import Contender, Workload, compare
from benchmarks.report import describe_run, print_workload, write_json
from ilo_fast import knn
from ilo_fast.alignment import PairScores, csls_retrieval, mexa, pair_scores, retrieval, xsim_error
from ilo_fast.alignment.winners import SCORES

K = 5
FEW = 6  # languages whose pairs the formulas go through in float64
_RESULTS = Path(__file__).parent / "results"


@click.command()
@click.option(
    "--states",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Hidden states [points, dim] as .npy, language-major, instead of synthetic ones.",
)
@click.option("--languages", type=int, default=31, show_default=True)
@click.option("--threads", type=int, default=2, show_default=True)
@click.option("--rounds", type=int, default=3, show_default=True)
@click.option("--quick", is_flag=True, help="A fifth of the points, two rounds.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=_RESULTS / "pairs.json",
    help="JSON file to write; by default results/pairs.json beside this module.",
)
def command(
    states: Path | None, languages: int, threads: int, rounds: int, quick: bool, out: Path
) -> None:
    """Time the scores of all pairs of languages of one layer."""
    console = Console()
    torch.set_num_threads(threads)
    x = torch.from_numpy(load_states(states, languages, quick))
    rounds = min(rounds, 2) if quick else rounds
    note = lambda text: console.print(f"[dim]{text}[/dim]")  # noqa: E731
    few = min(FEW, languages)
    workloads = [
        all_pairs(x, languages, threads),
        all_pairs(x[: len(x) // languages * few], few, threads, formulas=True),
    ]
    results = [compare(workload, rounds, note) for workload in workloads]
    record = describe_run(
        threads=threads,
        rounds=rounds,
        quick=quick,
        states=states.name if states else "synthetic",
    )
    for result in results:
        print_workload(result, console)
    write_json(out, {**record, "workloads": results})


def all_pairs(x: torch.Tensor, languages: int, threads: int, *, formulas: bool = False) -> Workload:
    """All pairs of languages with as many sentences each; ``x [languages * sentences, d]``."""
    n, d = x.shape
    sentences = n // languages
    labels = np.repeat(np.arange(languages), sentences)
    numbers = np.tile(np.arange(sentences), languages)
    unit = torch.nn.functional.normalize(x.double(), dim=1).view(languages, sentences, d)
    found: list[PairScores] = []

    def ours() -> PairScores:
        return pair_scores(x, labels, numbers)

    def pair_by_pair() -> dict[str, np.ndarray[Any, Any]]:
        scores = {name: np.full((languages, languages), np.nan) for name in SCORES}
        for a in range(languages):
            for b in range(a + 1, languages):
                for i, j in ((a, b), (b, a)):
                    cosines = unit[i] @ unit[j].T
                    scores["retrieval"][i, j] = retrieval(cosines)
                    scores["xsim_ratio"][i, j] = xsim_error(cosines)
                    scores["xsim_distance"][i, j] = xsim_error(cosines, margin="distance")
                    scores["csls"][i, j] = csls_retrieval(cosines)
                    scores["mexa"][i, j] = mexa(cosines)
        return scores

    def check(contender: Contender, answer: Any) -> dict[str, Any]:
        if contender.ours:
            found.append(answer)
            return {"mean_retrieval": float(np.nanmean(answer.retrieval))}
        if isinstance(answer, dict):
            for name, values in answer.items():
                np.testing.assert_allclose(getattr(found[0], name)[0], values, atol=1e-12)
            return {"equal to ours": True}
        return {}

    contenders = [
        Contender("ilo_fast pair_scores", ours, ours=True),
        Contender("ilo_fast knn, the same points", lambda: knn(x, K)),
    ]
    if formulas:
        contenders.append(Contender("float64 formulas, a pair at a time", pair_by_pair))
    return Workload(
        f"all_pairs of {languages} languages",
        f"{languages} languages × {sentences} sentences, d = {d}, {threads} threads",
        tuple(contenders),
        check,
        {"points": n, "dim": d, "languages": languages},
    )
