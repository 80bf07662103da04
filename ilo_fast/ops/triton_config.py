"""Launch configurations and the accumulation budget of the tensor cores, each with its reason.

Nothing here touches a device: a configuration follows from the compute capability and the shape,
so that the same call always runs the same kernels and results are reproducible bit by bit.
"""

from dataclasses import dataclass, replace

__all__ = [
    "EXTRA",
    "SLOTS",
    "Accumulation",
    "FilterConfig",
    "RowConfig",
    "accumulation",
    "filter_config",
    "padded_dims",
    "row_config",
]

# One extra chunk of 64 columns carries the low halves of split dimensions and the error bound:
# stored as four blocks of SLOTS columns [P | Q | Q | P], read as [P | Q] on one side of a tile and
# as [Q | P] on the other (see triton_prepare).
SLOTS = 32
EXTRA = 4 * SLOTS


@dataclass(frozen=True)
class Accumulation:
    """How a matrix unit sums products: ``terms`` aligned at once, ``fraction_bits`` kept of each.

    A step adds ``terms`` exact products to the accumulator: all are aligned to the largest
    magnitude and cut after ``fraction_bits`` bits, the sum is cut to float32's 23. ``gamma(k)``
    bounds the error of a product over ``k`` dimensions relative to the largest partial sum
    (docs/exactness-gpu.md, "Accumulation").
    """

    terms: int
    fraction_bits: int
    reason: str

    def gamma(self, dims: int) -> float:
        """Relative error of a sum over ``dims`` dimensions, per unit of the largest partial sum.

        >>> Accumulation(16, 25, "").gamma(4096) < 1.7e-4
        True
        """
        steps = -(-dims // self.terms)
        each = (self.terms + 1) * 2.0**-self.fraction_bits + 2.0**-23
        # A step's largest magnitude exceeds a partial sum by at most what was cut before it.
        return steps * each * (1.0 + steps * each)


_ACCUMULATION = {
    9: Accumulation(16, 24, "Hopper: 16 terms and 25 bits are reported; one bit kept in reserve"),
    8: Accumulation(8, 23, "Ampere and Ada: 8 terms and 24 bits are reported; one in reserve"),
}
# Volta's units (4 terms, no guard bits) are the coarsest known; anything newer, unknown or a CPU
# adding in float32 with one rounding a term is bounded by the same figure.
_COARSEST = Accumulation(4, 23, "the coarsest unit known (Volta), for any other")


def accumulation(major: int) -> Accumulation:
    """The accumulation model of a compute capability's major number (0: Triton's interpreter).

    >>> accumulation(9).terms, accumulation(0).terms
    (16, 4)
    """
    return _ACCUMULATION.get(major, _COARSEST)


@dataclass(frozen=True)
class FilterConfig:
    """One launch of the filter: tile, pipeline, bins. One side is a multiple of the other."""

    block_m: int
    block_n: int
    block_k: int
    warps: int
    stages: int
    bin_width: int
    one_pass: bool
    tma: bool
    reason: str

    @property
    def pair(self) -> int:
        """How far apart the two positions lie that a bin's reduction compares first.

        They are to be in one thread's registers: in a tile of the matrix units a thread has rows
        8 apart; with four warps on 128 rows also 64 apart, and then all rows of a bin of 32 are
        one warp's, so that reducing columns needs no shared memory.
        """
        if self.bin_width == 32 and self.warps == 4 and self.block_m % 128 == 0:
            return 64
        return min(8, self.bin_width // 2)

    @property
    def row_multiple(self) -> int:
        """Points are padded to a multiple of this."""
        return max(self.block_m, self.block_n)


_WIDE = FilterConfig(
    block_m=128,
    block_n=256,
    block_k=64,
    warps=8,
    stages=3,
    bin_width=32,
    one_pass=False,
    tma=True,
    reason="many dimensions: the widest tile reads operands least often; prototypes had it, "
    "this code awaits its timing",
)
_SQUARE = FilterConfig(
    block_m=128,
    block_n=128,
    block_k=64,
    warps=4,
    stages=3,
    bin_width=32,
    one_pass=False,
    tma=True,
    reason="few dimensions: two programs a multiprocessor hide the epilogue; prototypes had it, "
    "two passes are fewer instructions here; this code awaits its timing",
)
_AMPERE = FilterConfig(
    block_m=128,
    block_n=128,
    block_k=32,
    warps=8,
    stages=3,
    bin_width=32,
    one_pass=False,
    tma=False,
    reason="compute capability 8.x and 12: 32 KB of shared memory of at least 99, products in "
    "registers, pointer loads; not run on a card",
)
_SMALL_CARD = replace(
    _AMPERE,
    block_m=64,
    block_n=64,
    warps=4,
    stages=2,
    reason="compute capability 7.5: 16 KB of shared memory, pointer loads; not run on a card",
)
_INTERPRETER = FilterConfig(
    block_m=64,
    block_n=64,
    block_k=64,
    warps=4,
    stages=1,
    bin_width=16,
    one_pass=False,
    tma=False,
    reason="Triton's interpreter: few, small programs",
)


def filter_config(major: int, n: int, d: int, k: int) -> FilterConfig:
    """Choose the filter's launch for a card and a shape.

    Bins shrink when a row would have fewer than eight bins per wanted neighbour: then two
    neighbours often share one and rows go to the repair.

    >>> filter_config(9, 30907, 4096, 5).block_n, filter_config(9, 30907, 576, 5).block_n
    (256, 128)
    >>> filter_config(9, 1024, 4096, 10).bin_width
    8
    """
    if major == 0:
        chosen = _INTERPRETER
    elif major in (9, 10, 11):
        chosen = _WIDE if d >= 2048 and n > 4096 else _SQUARE
    elif major >= 8:
        chosen = _AMPERE
    else:
        chosen = _SMALL_CARD
    width = chosen.bin_width
    while width > 8 and n < 8 * k * width:
        width //= 2
    # Bins of 8 reduce in a thread's own registers: pairs carried through them spill three times
    # as much as a second look at the scores.
    return replace(chosen, bin_width=width, one_pass=chosen.one_pass and width > 8)


@dataclass(frozen=True)
class RowConfig:
    """Launches of the kernels that work on rows of points.

    prepare_rows, prepare_dims: a program's tile of the input. select_rows: rows a program of the
    selection serves (32 and one warp: a row a thread, which finds its entries' places alone);
    select_groups: groups of bins a row's line is drawn from; select_bins: bins listed in one turn
    of a loop, all written out (32 take the compiler seconds). score_rows, score_dims: rows and
    dimensions a program scores at a time. capacity: candidates kept a row. repair_programs:
    programs that share the unproved rows, repair_parts: parts a row is cut in, repair_points,
    repair_dims: points and dimensions scored at a time (a bin at least). sort_rows: rows a program
    of the final sort orders.
    """

    prepare_rows: int
    prepare_dims: int
    prepare_warps: int
    select_rows: int
    select_groups: int
    select_bins: int
    select_warps: int
    score_rows: int
    score_dims: int
    score_warps: int
    capacity: int
    repair_programs: int
    repair_parts: int
    repair_points: int
    repair_dims: int
    sort_rows: int
    reason: str


def row_config(major: int, d: int, k: int) -> RowConfig:
    """Choose the row kernels' launches.

    >>> row_config(9, 4096, 5).capacity, row_config(9, 4096, 128).capacity
    (32, 512)
    """
    groups = max(64, _power_of_two(2 * k))
    capacity = max(32, _power_of_two(2 * k + k // 2))
    if major == 0:
        return RowConfig(
            prepare_rows=128,
            prepare_dims=256,
            prepare_warps=4,
            select_rows=128,
            select_groups=groups,
            select_bins=16,
            select_warps=4,
            score_rows=128,
            score_dims=256,
            score_warps=4,
            capacity=capacity,
            repair_programs=3,
            repair_parts=1,
            repair_points=256,
            repair_dims=256,
            sort_rows=128,
            reason="Triton's interpreter: few programs, each over many rows",
        )
    return RowConfig(
        prepare_rows=1 if d > 1024 else 4,
        prepare_dims=1024 if d > 1024 else min(256, max(64, _power_of_two(d))),
        prepare_warps=4,
        select_rows=max(4, 2048 // groups),
        select_groups=groups,
        select_bins=16,
        select_warps=1,
        score_rows=1,
        score_dims=min(1024, max(64, _power_of_two(d))),
        score_warps=4 if d > 1024 else 2,
        capacity=capacity,
        repair_programs=1056,
        repair_parts=32,
        repair_points=8,
        repair_dims=64,
        sort_rows=max(1, 256 // _power_of_two(k)),
        reason="at most 16 float64 elements a thread: none spills; 8 repair programs a "
        "multiprocessor of 132",
    )


def padded_dims(d: int) -> int:
    """Dimensions of the operand's main part: a multiple of 64, the widest chunk of a tile.

    >>> padded_dims(1), padded_dims(576), padded_dims(577)
    (64, 576, 640)
    """
    return -(-d // 64) * 64


def _power_of_two(value: int) -> int:
    return 1 << max(0, value - 1).bit_length()
