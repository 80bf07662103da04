"""Foreign tools as they come and with our neighbours in them, on the CPU."""

import json
import os
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console

from benchmarks import adapter_examples as examples
from benchmarks import adapter_lists as lists
from benchmarks import adapter_values as values
from benchmarks.registry import Workload, compare
from benchmarks.report import describe_run, print_workload, write_json

_RESULTS = Path(__file__).parent / "results"
_DISTRIBUTIONS = (
    "scikit-learn",
    "umap-learn",
    "scanpy",
    "scib-metrics",
    "pytorch-metric-learning",
    "calibrated-similarity",
    "torchmetrics",
    "dadapy",
    "faiss-cpu",
    "torchaudio",
    "torch-geometric",
)


@click.command()
@click.option("--only", multiple=True, help="Names of workloads; all that can run by default.")
@click.option("--threads", type=int, default=2, show_default=True)
@click.option("--rounds", type=int, default=3, show_default=True)
@click.option("--quick", is_flag=True, help="A quarter of the points, one round.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="JSON file to write; by default results/adapters.json beside this module.",
)
def command(
    only: tuple[str, ...], threads: int, rounds: int, quick: bool, out: Path | None
) -> None:
    """Time every tool that is installed beside itself with our neighbours.

    ILO_FAST_INTERLINGUA, ILO_FAST_PLATONIC and ILO_FAST_RESI name checkouts of tools without a
    package. REP_SIM names the folder in which ReSi keeps data sets and models; its demo trains
    models there the first time.
    """
    unknown = set(only) - WORKLOADS.keys()
    if unknown:
        raise click.BadParameter(f"no workload {', '.join(unknown)}", param_hint="--only")
    console = Console()
    torch.set_num_threads(threads)
    path = out or _RESULTS / "adapters.json"
    for name in only or WORKLOADS:
        needs, make = WORKLOADS[name]
        missing = [need for need in needs if not there(need)]
        if missing:
            console.print(f"[dim]{name}: not run, no {', '.join(missing)}[/dim]")
            continue
        result = compare(make(4 if quick else 1, threads), 1 if quick else rounds)
        print_workload(result, console)
        run = describe_run(threads=threads, rounds=rounds, quick=quick)
        run["versions"] |= _versions()
        _add(path, {**result, "run": run})


def _versions() -> dict[str, str]:
    found = {}
    for package in _DISTRIBUTIONS:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _add(path: Path, result: dict[str, Any]) -> None:
    """Put a workload in the file, in place of an older run of it: tools need environments apart."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"workloads": []}
    kept = [old for old in content["workloads"] if old["name"] != result["name"]]
    order = list(WORKLOADS)
    workloads = sorted([*kept, result], key=lambda workload: order.index(workload["name"]))
    write_json(path, {"workloads": workloads})


def there(need: str) -> bool:
    """Whether a module, or an environment variable by its capitals, can be had."""
    return need in os.environ if need.isupper() else find_spec(need) is not None


# name → what it needs (a module, or an environment variable), how it is made
WORKLOADS: dict[str, tuple[tuple[str, ...], Callable[[int, int], Workload]]] = {
    "sklearn": (("sklearn",), lists.sklearn),
    "faiss": (("faiss",), lists.faiss),
    "umap": (("umap",), lists.umap),
    "scanpy": (("scanpy",), lists.scanpy),
    "scib": (("scib_metrics",), lists.scib),
    "metric_learning": (("pytorch_metric_learning", "faiss"), lists.metric_learning),
    "interlingua": (("ILO_FAST_INTERLINGUA",), values.interlingua),
    "platonic_example": (("ILO_FAST_PLATONIC",), examples.platonic_example),
    "platonic": (("ILO_FAST_PLATONIC",), values.platonic),
    "calibrated_example": (("calibrated_similarity",), examples.calibrated_example),
    "calibrated_knn_example": (("calibrated_similarity",), examples.calibrated_knn_example),
    "calibrated": (("calibrated_similarity",), values.calibrated),
    "torchmetrics": (("torchmetrics",), values.torchmetrics),
    "resi_example": (
        ("ILO_FAST_RESI", "REP_SIM", "einops", "loguru", "torch_geometric", "torcheval"),
        examples.resi_example,
    ),
    "resi": (("ILO_FAST_RESI", "einops", "loguru"), values.resi),
    "dadapy_example": (("dadapy",), examples.dadapy_example),
    "dadapy_notebook": (("dadapy",), examples.dadapy_notebook),
    "dadapy": (("dadapy",), values.dadapy),
}
