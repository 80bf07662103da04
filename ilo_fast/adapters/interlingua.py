"""The public ILO code (HLTCHKUST/interlingua) with our neighbours in it.

>>> import src.ilo                                                       # doctest: +SKIP
>>> from ilo_fast.adapters.interlingua import patched
>>> with patched(src.ilo):                                               # doctest: +SKIP
...     frame = src.ilo.derive_metrics(embeddings, langs_exists, model_configs, path, languages)
"""

import statistics
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import torch

from ilo_fast.adapters._shared import replaced
from ilo_fast.ilo import ilo_scores
from ilo_fast.neighbors import knn

__all__ = ["patched"]


@contextmanager
def patched(module: ModuleType, *, reference: bool = False) -> Iterator[None]:
    """Replace the neighbours, bridge and reach of their module ``src.ilo`` inside the block.

    ``get_neighbors_indices`` and ``compute_bridge_reach`` keep their signatures and return types
    and run where the embeddings are, so also on a CPU. ``derive_metrics`` takes any number of
    sentences a language.

    Args:
        module: their ``src.ilo``.
        reference: give their very numbers: float32 arithmetic, the first neighbour dropped as
            self, and ``derive_metrics`` with its 997 rows a language.
    """
    backend = "reference" if reference else "auto"

    def get_neighbors_indices(
        X: Any, neighbor_k: int = 10, metric: str = "euclidean"
    ) -> tuple[np.ndarray, np.ndarray, None]:
        found = knn(X, neighbor_k, metric=metric, backend=backend)
        return _numpy(found.indices), _numpy(found.distances), None

    def compute_bridge_reach(
        emb_by_lang: Mapping[str, Any],
        neighbor_k: int = 10,
        neighbor_threshold: int = 3,
        metric: str = "euclidean",
        device: Any = None,
    ) -> tuple[dict[str, float], dict[str, int]]:
        if not emb_by_lang:
            return {}, {}
        parts = [_tensor(part, device) for part in emb_by_lang.values()]
        labels = [lang for lang, part in zip(emb_by_lang, parts, strict=True) for _ in part]
        found = knn(torch.cat(parts), neighbor_k, metric=metric, backend=backend)
        scores = ilo_scores(found, labels, threshold=neighbor_threshold)
        bridge = dict(zip(scores.languages, scores.bridge[0].tolist(), strict=True))
        reach = dict(zip(scores.languages, scores.reach_count[0].tolist(), strict=True))
        # A language without points has no row in the scores: theirs gives it 0 and 0.
        return (
            {lang: bridge.get(lang, 0.0) for lang in emb_by_lang},
            {lang: reach.get(lang, 0) for lang in emb_by_lang},
        )

    with ExitStack() as stack:
        stack.enter_context(
            replaced(
                module,
                get_neighbors_indices=get_neighbors_indices,
                compute_bridge_reach=compute_bridge_reach,
            )
        )
        if not reference:
            stack.enter_context(replaced(module, derive_metrics=_derive_metrics(module)))
        yield


def _derive_metrics(module: ModuleType) -> Any:
    """Their ``derive_metrics`` for any number of sentences, its two slips mended.

    It cuts 997 rows a language and numbers the languages after dropping some, so that the rows of
    another language are read where not all are analysed.
    """

    def derive_metrics(
        embeddings: Mapping[str, np.ndarray],
        langs_exists: Mapping[str, list[str]],
        model_configs: list[dict[str, Any]],
        output_csv_path: Any,
        langs_analyzed: Any = None,
        bridge_ratio: float = 0.7,
        reach_ratio: float = 0.3,
        selected_layer: int = 10,
        neighbor_k: int = 10,
        neighbor_threshold: int = 3,
        threshold: float = 0.2,
        method: str = "fixed",
        metric: str = "euclidean",
        device: Any = None,
    ) -> Any:
        import pandas as pd

        model = model_configs[0]["name"]
        states, languages = embeddings[model][:, selected_layer, :], langs_exists[model]
        rows, remainder = divmod(len(states), len(languages))
        if remainder:
            raise ValueError(f"{len(states)} rows are not the same number for {languages}")
        chosen = {
            lang: states[number * rows : (number + 1) * rows]
            for number, lang in enumerate(languages)
            if langs_analyzed is None or lang in langs_analyzed
        }
        if not chosen:
            print("None of the loaded languages are in the target analysis list.")  # noqa: T201
            return None
        bridge, reach = module.compute_bridge_reach(
            chosen, neighbor_k, neighbor_threshold, metric, device
        )
        shares = [reach[lang] / (len(chosen) - 1) for lang in chosen]
        scores = [
            statistics.harmonic_mean(pair) for pair in zip(bridge.values(), shares, strict=True)
        ]
        return pd.DataFrame(
            {
                "language": list(chosen),
                "raw_bridge": list(bridge.values()),
                "normalized_bridge": list(bridge.values()),
                "raw_reach": list(reach.values()),
                "normalized_reach": shares,
                "ilo_scores": scores,
                "harm_bridge_reach": scores,
            }
        )

    return derive_metrics


def _tensor(part: Any, device: Any) -> torch.Tensor:
    """Tensors stay where they are; arrays go to the device named, else to a GPU if there is one."""
    if isinstance(part, torch.Tensor):
        return part.to(dtype=torch.float32)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.as_tensor(part, dtype=torch.float32, device=device)


def _numpy(array: Any) -> np.ndarray:
    return array.cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)
