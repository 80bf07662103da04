"""Exact, fast neighbourhood metrics of language-model hidden states.

The public names and modules load on first use, so that ``import ilo_fast`` and
``ilo-fast --help`` stay quick and touch no device.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ilo_fast import activations as activations
    from ilo_fast import adapters as adapters
    from ilo_fast import alignment as alignment
    from ilo_fast import calibration as calibration
    from ilo_fast import cka as cka
    from ilo_fast import corpora as corpora
    from ilo_fast import errors as errors
    from ilo_fast import finetune as finetune
    from ilo_fast import ilo as ilo
    from ilo_fast import models as models
    from ilo_fast import overlap as overlap
    from ilo_fast import plots as plots
    from ilo_fast import results as results
    from ilo_fast import scans as scans
    from ilo_fast import sharded as sharded
    from ilo_fast.activations import ActivationStore, extract, tap
    from ilo_fast.corpora import Corpus, load_corpus
    from ilo_fast.flat_index import FlatIndex
    from ilo_fast.ilo import ILOScores, ilo_scores
    from ilo_fast.neighbors import Neighbors, knn
    from ilo_fast.pipeline import score
    from ilo_fast.results import Result
    from ilo_fast.scans import scan as scan
    from ilo_fast.stored import score_states
    from ilo_fast.streaming_ilo import ILO

__version__ = "0.1.0"

_PUBLIC = {
    "ILO": "ilo_fast.streaming_ilo",
    "ActivationStore": "ilo_fast.activations",
    "Corpus": "ilo_fast.corpora",
    "FlatIndex": "ilo_fast.flat_index",
    "ILOScores": "ilo_fast.ilo",
    "Neighbors": "ilo_fast.neighbors",
    "Result": "ilo_fast.results",
    "extract": "ilo_fast.activations",
    "ilo_scores": "ilo_fast.ilo",
    "knn": "ilo_fast.neighbors",
    "load_corpus": "ilo_fast.corpora",
    "scan": "ilo_fast.scans",
    "score": "ilo_fast.pipeline",
    "score_states": "ilo_fast.stored",
    "tap": "ilo_fast.activations",
}

_MODULES = {
    "activations",
    "adapters",
    "alignment",
    "calibration",
    "cka",
    "corpora",
    "errors",
    "finetune",
    "ilo",
    "models",
    "overlap",
    "plots",
    "results",
    "scans",
    "sharded",
}

# Without scan: a star import and help() would fail where its extra is not installed.
__all__ = [
    "ILO",
    "ActivationStore",
    "Corpus",
    "FlatIndex",
    "ILOScores",
    "Neighbors",
    "Result",
    "__version__",
    "extract",
    "ilo_scores",
    "knn",
    "load_corpus",
    "score",
    "score_states",
    "tap",
]


if not TYPE_CHECKING:  # a type checker knows the names above, and that there are no others

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return import_module(f"ilo_fast.{name}")
        if name not in _PUBLIC:
            raise AttributeError(f"module 'ilo_fast' has no attribute {name!r}")
        value = getattr(import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES} - {"scans"})  # as in __all__
