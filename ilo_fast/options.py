"""The options that every way to score shares, checked in one place."""

from dataclasses import dataclass
from typing import Any, Literal

from ilo_fast.activations.packing import check_batch_tokens
from ilo_fast.activations.pooling import PoolSpec, check_pool
from ilo_fast.arguments import at_least_1, check_seed, true_or_false
from ilo_fast.companions import check_metrics
from ilo_fast.errors import InputError
from ilo_fast.ilo import check_neighbors, check_threshold
from ilo_fast.layers import LayerSpec, parse_layers
from ilo_fast.lists import ParallelPoints
from ilo_fast.models.fused import check_fused
from ilo_fast.ops import dispatch
from ilo_fast.ops.request import check_metric

__all__ = ["ScoreOptions"]


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """How points are made, searched and scored; names, meaning and defaults are `ilo_fast.score`'s.

    Each option is checked as the object is made, as far as it can be before there are a model and
    points: whoever is handed one takes it as it is. Numbers and truth values become Python's,
    ``metrics`` a tuple of names as `ilo_fast.companions.check_metrics` gives it.

    Raises:
        InputError, TypeError: naming the option, what was expected and what came.

    >>> ScoreOptions(k=3, reference=True).engine
    'reference'
    >>> ScoreOptions(metric="cosin")
    Traceback (most recent call last):
    ilo_fast.errors.InputError: metric must be one of cosine, euclidean, inner_product; got 'cosin'
    """

    k: int = 5
    threshold: int = 3
    layers: LayerSpec = None
    metric: str = "cosine"
    pool: PoolSpec = "mean"
    batch_tokens: int | Literal["auto"] = "auto"
    backend: str = "auto"
    fused: str = "auto"
    reference: bool = False
    seed: int = 0
    truncate: bool = False
    metrics: Any = ()

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {
            "k": at_least_1(self.k, "k"),
            "threshold": at_least_1(self.threshold, "threshold"),
            "seed": check_seed(self.seed),
        }
        parse_layers(self.layers)
        check_metric(self.metric)
        check_pool(self.pool)
        checked["batch_tokens"] = check_batch_tokens(self.batch_tokens) or "auto"
        dispatch.check_name(self.backend)
        check_fused(self.fused)
        checked["truncate"] = true_or_false(self.truncate, "truncate")
        checked["reference"] = true_or_false(self.reference, "reference")
        if self.reference and self.backend not in ("auto", "reference"):
            raise InputError(
                f"reference=True brings its own backend, got backend={self.backend!r} as well"
            )
        checked["metrics"] = check_metrics(self.metrics)
        vars(self).update(checked)  # past the class's own refusal to be changed

    @property
    def engine(self) -> str:
        """The backend that ``backend`` and ``reference`` ask for together."""
        return "reference" if self.reference else self.backend

    @property
    def pool_name(self) -> str:
        """The pooling's name, as records hold it."""
        return check_pool(self.pool).name

    @property
    def extraction(self) -> dict[str, Any]:
        """Those that `ilo_fast.extract` takes, by name."""
        names = ("layers", "pool", "batch_tokens", "truncate", "fused")
        return {name: getattr(self, name) for name in names}

    def check_text(self, text: ParallelPoints) -> None:
        """That a corpus has the points for ``k`` and the languages for ``threshold``.

        Raises:
            InputError: where not.
        """
        check_neighbors(self.k, text.n_languages, text.n_sentences)
        check_threshold(self.threshold, self.k, text.n_languages)
