"""Inputs that try to break a bound, and float64 truth written independently of the engine."""

import numpy as np

CLOUDS = [
    "gauss", "massive", "near_ties", "half_edges", "one_direction", "subnormal", "huge",
    "mixed_norms", "zeros", "equal",
]  # fmt: skip


def cloud(name: str, n: int, d: int, seed: int = 0) -> np.ndarray:
    """float64 [n, d], exactly representable in float32."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    if name == "massive":  # what language models do: cosines crowd near 1
        x[:, d // 2] = 500 + 20 * rng.standard_normal(n)
        x[:, 0] = -80
    elif name == "near_ties":
        x = rng.standard_normal(d) + 1e-7 * x
    elif name == "half_edges":  # exactly between two float16 numbers: the largest residual
        x = (1 + (2 * rng.integers(0, 512, (n, d)) + 1) * 2.0**-11) * rng.choice([-1, 1], (n, d))
    elif name == "one_direction":
        x = np.outer(1 + rng.random(n), rng.standard_normal(d)) + 1e-3 * x
    elif name == "subnormal":
        x = x * 2.0**-140
    elif name == "huge":
        x = x * 2.0**125 / np.abs(x).max()
    elif name == "mixed_norms":
        x = x * 2.0 ** rng.integers(-20, 20, (n, 1))
    elif name == "zeros":
        x[rng.random(n) < 0.2] = 0
        x[: n // 3, : d // 2] = 0
    elif name == "equal":
        x[:] = x[0]
    with np.errstate(over="ignore"):
        return x.astype(np.float32).astype(np.float64)


def values(x: np.ndarray, metric: str) -> np.ndarray:
    """Distances [n, n] that order as the metric's, in extended precision."""
    z = x.astype(np.longdouble)
    if metric == "cosine":
        norm = np.sqrt((z * z).sum(axis=1, keepdims=True))
        z = np.divide(z, norm, out=np.zeros_like(z), where=norm > 0)
        half = ((z[:, None] - z[None]) ** 2).sum(axis=2) / 2
        zero = norm[:, 0] == 0
        half[zero] = 1
        half[:, zero] = 1
        return half
    if metric == "euclidean":
        return ((z[:, None] - z[None]) ** 2).sum(axis=2) / 2
    return -(z @ z.T)


def neighbours(x: np.ndarray, k: int, metric: str, exclude_self: bool = True) -> np.ndarray:
    """Indices [n, k]: by distance, equal ones (to 1e-13 of the scale) by index."""
    distance = values(x, metric)
    n = len(x)
    if exclude_self:
        distance[np.arange(n), np.arange(n)] = np.inf
    finite = np.where(np.isfinite(distance), distance, 0)
    if metric == "inner_product":
        size = np.sqrt((x.astype(np.longdouble) ** 2).sum(axis=1))
        level = np.outer(size, size) * 1e-13
    else:
        level = np.maximum(finite.max() * 1e-26, finite * 1e-13)
    lists = np.empty((n, k), dtype=np.int64)
    for i in range(n):
        free = np.ones(n, dtype=bool)
        row, out = distance[i], []
        while len(out) < k:
            nearest = row[free].min()
            tier = np.flatnonzero(free & (row - nearest <= level[i]))
            out += tier.tolist()
            free[tier] = False
        lists[i] = out[:k]
    return lists
