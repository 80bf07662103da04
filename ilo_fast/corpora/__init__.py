"""Parallel corpora: the same sentences in several languages.

`load_corpus` reads them, `Corpus` holds them, `language` tells name, family and script of a code.
"""

from ilo_fast.corpora.corpus import Corpus
from ilo_fast.corpora.languages import Language, language, order_languages
from ilo_fast.corpora.load import load_corpus

__all__ = ["Corpus", "Language", "language", "load_corpus", "order_languages"]
