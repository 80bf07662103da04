"""ReSi's nearest-neighbour similarity measures with our neighbours in them.

>>> import repsim.measures.nearest_neighbor as measures                  # doctest: +SKIP
>>> from ilo_fast.adapters.resi import patched
>>> with patched(measures):                                              # doctest: +SKIP
...     measures.JaccardSimilarity()(R, Rp, "nd")
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from ilo_fast.adapters._shared import float_tensor, replaced
from ilo_fast.arguments import check_choice
from ilo_fast.neighbors import Neighbors, knn
from ilo_fast.overlap import jaccard, rank_similarity, second_order_cosine

__all__ = ["patched"]


@contextmanager
def patched(module: ModuleType) -> Iterator[None]:
    """Replace the neighbours and measures of ``repsim.measures.nearest_neighbor`` in the block.

    Their functions and classes keep signatures and results; ``inner`` is cosine or euclidean.
    Measures must be made inside the block: they keep the function they were made with.
    ``n_jobs`` is accepted and without effect.
    """

    def both(R: Any, Rp: Any, shape: str, k: int, inner: str) -> tuple[Any, Any, Any, Any]:
        x, y = (float_tensor(z, "R").cpu() for z in module.flatten(R, Rp, shape=shape))
        return x, y, _search(x, k, inner), _search(y, k, inner)

    def of_lists(measure: Callable[[Any, Any], np.ndarray]) -> Any:
        def similarity(
            R: Any, Rp: Any, shape: str, k: int = 10, inner: str = "cosine", n_jobs: int = 8
        ) -> float:
            _, _, a, b = both(R, Rp, shape, k, inner)
            return float(measure(a, b)[0])

        return similarity

    def second_order(
        R: Any, Rp: Any, shape: str, k: int = 10, n_jobs: int = 1, n_jobs_neighbors: int = 8
    ) -> float:
        return float(second_order_cosine(*both(R, Rp, shape, k, "cosine"))[0])

    def top_k_neighbors(R: Any, k: int, inner: str, n_jobs: int) -> np.ndarray:
        return np.asarray(_search(float_tensor(R, "R").cpu(), k, inner).indices.numpy())

    with replaced(
        module,
        top_k_neighbors=top_k_neighbors,
        jaccard_similarity=of_lists(jaccard),
        rank_similarity=of_lists(rank_similarity),
        second_order_cosine_similarity=second_order,
    ):
        yield


def _search(x: Any, k: int, inner: str) -> Neighbors:
    check_choice(inner, "inner", ("cosine", "euclidean"))
    return knn(x, k, metric=inner)
