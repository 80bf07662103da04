"""Which neighbours a point has: translations, languages, hubs, fragments, and chance.

Everything here reads stored neighbour lists, or, for the metrics of a language
pair, the similarities of the pair's own points; nothing forms an n × n matrix.
"""

from ilo_fast.alignment.languages import same_language
from ilo_fast.alignment.translation import translation_hit, translation_mrr

__all__ = [
    "same_language",
    "translation_hit",
    "translation_mrr",
]
