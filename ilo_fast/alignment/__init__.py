"""Which neighbours a point has: translations, languages, hubs, fragments, and chance.

Everything here reads stored neighbour lists, or, for the scores of a language
pair, the cosines of the pair's own points; nothing forms an n × n matrix.
"""

from ilo_fast.alignment.bootstrap import BootstrapIntervals, Interval, bootstrap_intervals
from ilo_fast.alignment.fragments import Components, Fragments, fragments
from ilo_fast.alignment.hubness import Hubness, hubness, k_occurrence
from ilo_fast.alignment.languages import (
    language_order,
    neighbor_counts,
    reach_graph,
    same_language,
)
from ilo_fast.alignment.null import ILONull, ilo_null
from ilo_fast.alignment.pairs import PairScores, aggregate_layers, pair_scores
from ilo_fast.alignment.similarity import csls_retrieval, mexa, retrieval, xsim_error
from ilo_fast.alignment.translation import translation_hit, translation_mrr

__all__ = [
    "BootstrapIntervals",
    "Components",
    "Fragments",
    "Hubness",
    "ILONull",
    "Interval",
    "PairScores",
    "aggregate_layers",
    "bootstrap_intervals",
    "csls_retrieval",
    "fragments",
    "hubness",
    "ilo_null",
    "k_occurrence",
    "language_order",
    "mexa",
    "neighbor_counts",
    "pair_scores",
    "reach_graph",
    "retrieval",
    "same_language",
    "translation_hit",
    "translation_mrr",
    "xsim_error",
]
