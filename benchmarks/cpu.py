"""One layer on the CPU: certified neighbours and ILO beside the public code, faiss and torch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from rich.console import Console

from benchmarks import peers
from benchmarks.data import synthetic_states
from benchmarks.registry import Contender, Workload, compare
from benchmarks.report import describe_run, print_workload, write_json
from ilo_fast import ilo_scores, knn
from ilo_fast.ops.precision import ieee_products
from ilo_fast.ops.products import multiplied

K, THRESHOLD = 5, 3
_CHECKED_ROWS = 2000
_RESULTS = Path(__file__).parent / "results"


@click.command()
@click.option(
    "--public-code",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A checkout of HLTCHKUST/interlingua to run as a peer.",
)
@click.option(
    "--states",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Hidden states [points, dim] as .npy, language-major, instead of synthetic ones.",
)
@click.option("--languages", type=int, default=31, show_default=True)
@click.option("--threads", type=int, default=2, show_default=True)
@click.option("--rounds", type=int, default=5, show_default=True)
@click.option("--quick", is_flag=True, help="A fifth of the points, two rounds.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="JSON file to write; by default results/cpu.json beside this module.",
)
def command(
    public_code: Path | None,
    states: Path | None,
    languages: int,
    threads: int,
    rounds: int,
    quick: bool,
    out: Path | None,
) -> None:
    """Time one layer, certified, beside its peers."""
    console = Console()
    torch.set_num_threads(threads)
    x = load_states(states, languages, quick)
    rounds = min(rounds, 2) if quick else rounds
    workload = one_layer(x, languages, threads, public_code)
    result = compare(workload, rounds, lambda text: console.print(f"[dim]{text}[/dim]"))
    record = describe_run(
        threads=threads,
        rounds=rounds,
        quick=quick,
        k=K,
        threshold=THRESHOLD,
        states=states.name if states else "synthetic",
    )
    print_workload(result, console)
    write_json(out or _RESULTS / "cpu.json", {**record, "workloads": [result]})


def load_states(states: Path | None, languages: int, quick: bool) -> np.ndarray[Any, Any]:
    """float32 [points, dim]: a file's, or synthetic ones of FLORES dev's size."""
    if states is None:
        return synthetic_states(languages, 200 if quick else 997, 384)
    x = np.load(states)
    if x.ndim != 2 or len(x) % languages:
        raise click.BadParameter(
            f"need [points, dim] with points a multiple of {languages}; got {list(x.shape)}",
            param_hint="--states",
        )
    if quick:
        kept = len(x) // languages // 5
        x = x.reshape(languages, -1, x.shape[1])[:, :kept].reshape(-1, x.shape[1])
    return np.ascontiguousarray(x, dtype=np.float32)


def one_layer(
    x: np.ndarray[Any, Any], languages: int, threads: int, public_code: Path | None
) -> Workload:
    """Neighbours of one layer; ours and the public code go on to bridge and reach."""
    n, d = x.shape
    tensor = torch.from_numpy(x)
    names = [f"language {number:02}" for number in range(languages)]
    labels = np.repeat(names, n // languages)
    rows, similarity = exact_rows(x)

    def ours() -> Any:
        found = knn(tensor, K)
        return found, ilo_scores(found, labels, threshold=THRESHOLD)

    contenders = [Contender("ilo_fast, certified", ours, ours=True)]
    search = peers.faiss_flat(x, K, threads)
    if search is not None:
        contenders.append(Contender("faiss-cpu IndexFlatIP", search))
    contenders.append(Contender("torch matmul + topk", peers.chunked_torch(tensor, K)))
    facts: dict[str, Any] = {"points": n, "dim": d, "k": K, "languages": languages}
    if public_code is not None:
        module, facts["public_code_commit"] = peers.load_public_code(public_code)
        contenders.append(
            Contender(
                "public compute_bridge_reach", peers.public_code(module, x, names, K, THRESHOLD)
            )
        )
    contenders.append(Contender("torch.mm n × n × d alone", lambda: product(tensor, torch_mm)))
    contenders.append(Contender("our product n × n × d alone", lambda: product(tensor, multiplied)))

    def check(contender: Contender, answer: Any) -> dict[str, Any]:
        if contender.ours:
            found, scores = answer
            share = right_rows(found.indices[rows].numpy(), rows, similarity)
            if share < 1 or not bool(found.certified.all()):
                raise AssertionError(
                    f"{share:.6f} of rows right, all certified: {bool(found.certified.all())}"
                )
            return {
                "rows_right": share,
                "rows_certified": float(found.certified.double().mean()),
                "rows_repaired": found.stats.rows_repaired[0],
                "open_candidates": found.stats.open_candidates[0],
                "mean_ilo": float(scores.ilo.mean()),
            }
        if isinstance(answer, np.ndarray):
            return {"rows_right": right_rows(answer[rows], rows, similarity)}
        return {}

    return Workload(
        "one_layer",
        f"N = {n}, d = {d}, k = {K}, {threads} threads",
        tuple(contenders),
        check,
        facts,
    )


def exact_rows(x: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """Some rows and their float64 similarities to all points, self at -2."""
    rows = np.sort(np.random.default_rng(0).permutation(len(x))[:_CHECKED_ROWS])
    unit = x.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    similarity = unit[rows] @ unit.T
    similarity[np.arange(len(rows)), rows] = -2
    return rows, similarity


def right_rows(lists: Any, rows: Any, similarity: Any) -> float:
    """Share of rows whose k points are the k most similar ones in float64, ties to 1e-14."""
    kept = np.take_along_axis(similarity, lists, axis=1).min(axis=1)
    best = np.partition(similarity, -lists.shape[1], axis=1)[:, -lists.shape[1]]
    distinct = (np.diff(np.sort(lists, axis=1), axis=1) > 0).all(axis=1)
    own = (lists == rows[:, None]).any(axis=1)
    return float((distinct & ~own & (kept >= best - 1e-14)).mean())


def torch_mm(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    return torch.mm(left, right.T, out=out)


def product(x: torch.Tensor, multiply: Callable[..., torch.Tensor]) -> None:
    """The bare float32 product of all points with all, in tiles that are thrown away."""
    size = min(1024, x.shape[0])
    out = torch.empty(size, size)
    with ieee_products(x.device):
        for i in range(0, x.shape[0] - size + 1, size):
            for j in range(0, x.shape[0] - size + 1, size):
                multiply(x[i : i + size], x[j : j + size], out)
