"""The filter for queries among other points: which pairs its bounds leave open.

A strip of queries is multiplied with all base points, a tile at a time, and every bin of
consecutive base points (they stand in a fixed random order) gives one maximum a query. Bins that
reach a query's threshold are looked into in the product, which is still there: strips are small
enough to stay near the processor. The argument is that of docs/exactness.md, section 5.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ilo_fast.ops.centred import Centred, lifted_terms
from ilo_fast.ops.points import Points, block_rows
from ilo_fast.ops.products import multiplied
from ilo_fast.ops.workers import for_spans, mapped, worker_count

__all__ = ["Side", "base_side", "open_pairs", "query_side"]

_STRIP_BYTES = {"cpu": 8 << 20, "cuda": 256 << 20}  # a product; each worker has one
_TILE = {"cpu": 1 << 10, "cuda": 1 << 15}  # base points of one product
_MOST_ROWS = {"cpu": 256, "cuda": 1 << 13}
_FEWEST_ROWS = 32  # of a float32 strip: with fewer the product is bound by memory
_BIN = 32
_BINS_PER_K = 8  # fewer bins than this times k, and most of them would be open
_SEED = 20250311
# Below every form value, for which |d| <= 1 does not hold here (inner_product's b grows as |m||d|),
# and far from float32's overflow.
_NEVER = -1.0e37


@dataclass(frozen=True)
class Side:
    """One side of the product, in float32 or float64, with the slack of every row.

    rows: ``[n, d + 2]``, ``(d, b', 1)`` for queries and ``(d, 1, b')`` for base points, the latter
    padded to whole bins with rows that are never near. order: the distinct point a row holds. The
    product of a query's row and a base point's satisfies the inequalities of ``Operands``.
    """

    rows: torch.Tensor
    slack: torch.Tensor
    order: torch.Tensor


def query_side(points: Points, form: Centred, dtype: torch.dtype) -> Side:
    """The queries, in their own order."""
    order = torch.arange(points.u, device=points.z.device)
    return _side(points, form, dtype, order, points.u, (-2, -1))


def base_side(points: Points, form: Centred, dtype: torch.dtype) -> Side:
    """The base points, in a fixed random order: near neighbours fall into different bins."""
    generator = torch.Generator().manual_seed(_SEED)
    order = torch.randperm(points.u, generator=generator, device="cpu").to(points.z.device)
    return _side(points, form, dtype, order, -(-points.u // _BIN) * _BIN, (-1, -2))


def _side(
    points: Points,
    form: Centred,
    dtype: torch.dtype,
    order: torch.Tensor,
    padded: int,
    places: tuple[int, int],
) -> Side:
    """``places``: the columns of ``b'`` and of 1."""
    u, dim = points.z.shape
    if dtype == torch.float32:
        lifted, slack = lifted_terms(points, form)
    else:
        lifted, slack = form.b + form.slack, 2.0 * form.slack
    rows = torch.empty(padded, dim + 2, dtype=dtype, device=points.z.device)
    rows[u:] = 0.0
    rows[u:, places[0]] = _NEVER
    rows[:u, places[0]] = lifted[order]
    rows[:, places[1]] = 1.0

    def cast(part: slice) -> None:
        rows[part, :dim] = form.rows(points.z.index_select(0, order[part]))

    for_spans(cast, u, block_rows(rows.device, dim))
    padded_slack = torch.zeros(padded, dtype=dtype, device=rows.device)
    padded_slack[:u] = slack[order]
    return Side(rows, padded_slack, order)


def open_pairs(
    asked: Side, base: Side, rows: torch.Tensor, k: int, limit: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Pairs that may be among the row's k best or tie with them, strip by strip of ``rows``.

    Yields ``(row, col, crowded)``: pairs of a query and a distinct base point, sorted by query, and
    the queries with more than ``limit`` of them, whose pairs are left out.
    """
    padded, u = base.rows.shape[0], base.order.shape[0]
    width = _BIN if u >= _BIN * _BINS_PER_K * k else 1
    loosest = base.slack.view(-1, width).amax(dim=1)
    kind = rows.device.type
    tile = _TILE.get(kind, _TILE["cuda"])
    buffers = threading.local()  # a product a worker

    def strip(some: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        count = some.shape[0]
        if not hasattr(buffers, "product"):
            buffers.product = asked.rows.new_empty(padded * count)
        product: torch.Tensor = buffers.product[: padded * count].view(padded, count)
        maxima = product if width == 1 else product.new_empty(padded // width, count)
        left = asked.rows[some]
        for start in range(0, padded, tile):
            part = slice(start, min(start + tile, padded))
            made = product[part]
            made.copy_(multiplied(base.rows[part], left, made))
            if width > 1:
                bins = slice(part.start // width, part.stop // width)
                torch.amax(made.view(-1, width, count), dim=1, out=maxima[bins])
        highest = maxima.T.contiguous()
        kth = torch.topk(highest - loosest, k, dim=1).values[:, -1]
        threshold = kth - asked.slack[some]
        is_open = highest >= threshold[:, None]
        crowded = is_open.sum(dim=1) > limit  # every open bin holds an open pair
        row, col = (is_open & ~crowded[:, None]).nonzero().unbind(1)
        if width > 1:
            inside = product.view(-1, width, count)[col, :, row] >= threshold[row, None]
            pair, slot = inside.nonzero().unbind(1)
            row, col = row[pair], col[pair] * width + slot
            more = torch.bincount(row, minlength=count) > limit
            kept = ~more[row]
            row, col, crowded = row[kept], col[kept], crowded | more
        return some[row], base.order[col], some[crowded]

    yield from mapped(strip, torch.split(rows, _strip_rows(rows, base.rows)))


def _strip_rows(rows: torch.Tensor, base: torch.Tensor) -> int:
    """Queries of a strip: its product keeps to a budget, and every thread has a share."""
    kind = rows.device.type
    fewest = _FEWEST_ROWS if base.dtype == torch.float32 else 1
    budget = _STRIP_BYTES.get(kind, _STRIP_BYTES["cuda"])
    fitting = max(fewest, budget // (base.element_size() * base.shape[0]))
    strip = min(fitting, _MOST_ROWS.get(kind, _MOST_ROWS["cuda"]))
    if kind == "cpu":
        strip = min(strip, max(fewest, -(-rows.shape[0] // worker_count())))
    return strip
