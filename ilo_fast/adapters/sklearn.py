"""scikit-learn's nearest neighbours with our search behind them.

The classes are scikit-learn's own with the search of the k nearest replaced: parameters, checks,
tags, cloning, pickling and output formats are theirs, and so are radius searches.
"""

import math
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn import neighbors
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from ilo_fast.arguments import check_choice
from ilo_fast.arrays import as_tensor
from ilo_fast.flat_index import FlatIndex
from ilo_fast.neighbors import knn
from ilo_fast.vectors import unit_rows

__all__ = ["KNeighborsTransformer", "NearestNeighbors", "kneighbors_graph"]

_METRICS = {"cosine": "cosine", "euclidean": "euclidean", "l2": "euclidean"}
_BLOCK = 1 << 22


class _ExactSearch:
    """Replaces ``_fit`` and ``kneighbors`` of an estimator with scikit-learn's parameters."""

    n_neighbors: Any
    metric: Any
    p: Any
    metric_params: Any
    n_samples_fit_: int
    effective_metric_: str
    _fit_X: Any

    def _fit(self, X: Any, y: Any = None) -> Any:
        if issparse(X):
            raise TypeError("Sparse data was passed, but dense data is required: X.toarray()")
        plain = self.metric == "minkowski" and self.p == 2
        if self.metric_params or not (plain or self.metric in _METRICS):
            raise ValueError(
                "metric must be cosine, euclidean, l2 or minkowski with p=2 and no metric_params; "
                f"got {self.metric!r} with p={self.p} and metric_params={self.metric_params}"
            )
        super()._fit(X, y)  # type: ignore[misc]
        self._fit_method, self._tree = "brute", None
        self._index: FlatIndex | None = None
        return self

    def kneighbors(
        self, X: Any = None, n_neighbors: int | None = None, return_distance: bool = True
    ) -> Any:
        """Find the k nearest fitted points, as ``sklearn.neighbors.NearestNeighbors`` does.

        With ``X=None`` a fitted point is left out of its own list, by index. Every list is proved
        to be that of float64 arithmetic; equal distances come by the lower index.

        Args:
            X: queries ``[m, d]``, or None for the fitted points themselves.
            n_neighbors: None takes the constructor's.
            return_distance: False returns the indices alone.

        Returns:
            ``(distances, indices)``, float64 (float32 by cosine where points and queries are) and
            int64 ``[m, n_neighbors]``.
        """
        check_is_fitted(self)
        k = self.n_neighbors if n_neighbors is None else n_neighbors
        if not isinstance(k, (int, np.integer)):
            raise TypeError(f"n_neighbors does not take {type(k)} value, enter integer value")
        if k <= 0:
            raise ValueError(f"Expected n_neighbors > 0. Got {k}")
        base = np.asarray(self._fit_X)
        own = X is None or X is self._fit_X
        queries = base if own else validate_data(self, X, reset=False, order="C")
        if k > self.n_samples_fit_ - (X is None):
            raise ValueError(
                f"Expected n_neighbors {'<' if X is None else '<='} n_samples_fit, but "
                f"n_neighbors = {k}, n_samples_fit = {self.n_samples_fit_}, "
                f"n_samples = {queries.shape[0]}"
            )
        metric = _METRICS.get(self.effective_metric_, "euclidean")
        if own:
            indices = self._among_fitted(_floats(base), int(k), metric, X is not None)
        else:
            if self._index is None:
                self._index = FlatIndex(base.shape[1], metric)
                self._index.add(_floats(base))
            indices = self._index.neighbors(_floats(queries), int(k)).indices
        if not return_distance:
            return indices
        distances = _distances(queries, base, indices, metric)
        if own and X is not None:
            distances[:, 0] = 0.0
        return distances, indices

    def _among_fitted(self, x: np.ndarray, k: int, metric: str, with_self: bool) -> np.ndarray:
        """Neighbours among the fitted points; with self, it is first, also among its copies."""
        own = np.arange(x.shape[0])[:, None]
        others = k - with_self
        indices = knn(x, others, metric=metric).indices if others else own[:, :0]
        return np.concatenate([own, indices], axis=1) if with_self else np.asarray(indices)

    def __getstate__(self) -> Any:
        state: Any = super().__getstate__()
        return {**state, "_index": None} if "_index" in state else state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.input_tags.sparse = False
        return tags


class NearestNeighbors(_ExactSearch, neighbors.NearestNeighbors):  # type: ignore[misc]
    """``sklearn.neighbors.NearestNeighbors`` with an exact, certified search.

    ``metric`` is cosine, euclidean, l2 or minkowski with ``p=2``; ``algorithm``, ``leaf_size`` and
    ``n_jobs`` are accepted and without effect on the k nearest. Input is dense.

    >>> import numpy as np
    >>> model = NearestNeighbors(n_neighbors=1).fit(np.array([[0.0], [3.0], [1.0]]))
    >>> model.kneighbors()[1].tolist()
    [[2], [2], [0]]
    """


class KNeighborsTransformer(_ExactSearch, neighbors.KNeighborsTransformer):  # type: ignore[misc]
    """``sklearn.neighbors.KNeighborsTransformer`` with an exact, certified search.

    Parameters and restrictions as for `NearestNeighbors`. `fit_transform` puts every point first
    in its own row, also where others are equal to it.

    >>> import numpy as np
    >>> KNeighborsTransformer(n_neighbors=1).fit_transform(np.array([[0.0], [3.0], [1.0]])).nnz
    6
    """

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """Fit and return the graph of the points themselves, a CSR matrix ``[n, n]``.

        Every row has ``n_neighbors + 1`` entries in distance mode and ``n_neighbors`` in
        connectivity mode, the point itself among them, nearest first.
        """
        self.fit(X)
        return self.transform(self._fit_X)


def kneighbors_graph(
    X: Any,
    n_neighbors: int,
    *,
    mode: str = "connectivity",
    metric: str = "minkowski",
    p: float = 2,
    metric_params: dict[str, Any] | None = None,
    include_self: bool | str = False,
    n_jobs: int | None = None,
) -> Any:
    """``sklearn.neighbors.kneighbors_graph`` with an exact, certified search.

    Args:
        X: points ``[n, d]``, or a fitted `NearestNeighbors` or `KNeighborsTransformer`.
        n_neighbors: neighbours a point.
        mode: ``"connectivity"`` (ones) or ``"distance"``.
        metric, p, metric_params, n_jobs: as for `NearestNeighbors`; a fitted one's must be these.
        include_self: whether a point counts as its own first neighbour; ``"auto"``: in
            connectivity mode only.

    Returns:
        CSR matrix ``[n, n]`` with ``n_neighbors`` entries a row.

    Raises:
        ValueError: a metric that is not served or not the fitted X's, another mode or
            include_self, or more neighbours than there are points.
        TypeError: X is another estimator, scikit-learn's own `NearestNeighbors` among them.

    >>> import numpy as np
    >>> kneighbors_graph(np.array([[0.0], [3.0], [1.0]]), 1).toarray().tolist()
    [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    check_choice(mode, "mode", ("connectivity", "distance"))
    if include_self != "auto" and not isinstance(include_self, bool | np.bool_):
        raise ValueError(f"include_self must be True, False or 'auto'; got {include_self!r}")
    if isinstance(X, _ExactSearch):
        check_is_fitted(X)
        asked = {"metric": metric, "p": p, "metric_params": metric_params}
        for name, value in asked.items():
            fitted = getattr(X, name)
            if value != fitted:
                raise ValueError(f"{name} must be the fitted X's, {fitted!r}; got {value!r}")
    elif isinstance(X, BaseEstimator):
        raise TypeError(
            "X must be points or a NearestNeighbors of this module, as scikit-learn's own would "
            f"search its own way; got {type(X).__module__}.{type(X).__name__}"
        )
    else:
        X = NearestNeighbors(
            n_neighbors=n_neighbors, metric=metric, p=p, metric_params=metric_params, n_jobs=n_jobs
        ).fit(X)
    include = mode == "connectivity" if include_self == "auto" else include_self
    return X.kneighbors_graph(X._fit_X if include else None, n_neighbors, mode=mode)


def _floats(x: np.ndarray) -> np.ndarray:
    return x if x.dtype.kind == "f" and x.dtype.itemsize <= 8 else x.astype(np.float64)


def _distances(queries: Any, base: Any, indices: np.ndarray, metric: str) -> np.ndarray:
    """Distances of the pairs found, by float64 arithmetic, in the dtype scikit-learn gives."""
    small = metric == "cosine" and queries.dtype == base.dtype == np.float32
    left, right = (as_tensor(np.asarray(x, dtype=np.float64), "X") for x in (queries, base))
    unit = 1.0
    if metric == "cosine":
        left, right = unit_rows(left), unit_rows(right)
        zero, zero_too = (~z.any(dim=1) for z in (left, right))
    else:
        largest = max(float(left.abs().amax()), float(right.abs().amax()))
        unit = 2.0 ** (math.frexp(largest)[1] - 1)
    result = np.empty(indices.shape, dtype=np.float32 if small else np.float64)
    step = max(1, _BLOCK // (indices.shape[1] * base.shape[1]))
    for start in range(0, indices.shape[0], step):
        rows = slice(start, start + step)
        near = torch.from_numpy(indices[rows])
        apart = left[rows, None] / unit - right[near] / unit  # its squares stay finite
        distances = torch.linalg.vector_norm(apart, dim=2)
        if metric == "cosine":  # |x - y|^2 / 2 of unit vectors is exactly 0 between copies
            distances = distances.square_().mul_(0.5)
            distances[zero[rows, None] | zero_too[near]] = 1.0
        else:
            distances *= unit
        result[rows] = distances.numpy()
    return result
