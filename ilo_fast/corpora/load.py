"""`load_corpus`: every kind of corpus by one name."""

import os
from collections.abc import Iterable
from typing import SupportsIndex

from ilo_fast.arguments import check_choice
from ilo_fast.corpora.builtin import read_demo
from ilo_fast.corpora.corpus import Corpus, check_limit
from ilo_fast.corpora.flores import read_flores
from ilo_fast.corpora.folder import SPLITS, read_folder
from ilo_fast.corpora.table import TABLES, read_table
from ilo_fast.errors import CorpusError, InputError
from ilo_fast.files import check_utf8, expanded

__all__ = ["load_corpus"]

_FORMS = (
    "a folder with one <language>.txt per language, a table ("
    + ", ".join(TABLES)
    + ") with one column per language, 'flores' or 'demo'"
)


def load_corpus(
    spec: str | os.PathLike[str] | Corpus,
    *,
    languages: Iterable[str] | None = None,
    limit: SupportsIndex | None = None,
    revision: str | None = None,
    split: str | None = None,
) -> Corpus:
    """Read a parallel corpus.

    Without ``languages`` they come sorted by name, so that equal text gives equal points (and an
    equal ``sha256``) wherever it was read; with it, in the order given. Whole files are checked
    even where ``limit`` keeps their first lines only; files and columns of languages not asked for
    are not read.

    Args:
        spec: ``"demo"`` (built in), ``"flores"`` (FLORES+, needs the ``datasets`` extra), a folder
            holding one ``<language>.txt``, ``.dev`` or ``.devtest`` file per language aligned by
            line, a ``.tsv``, ``.csv``, ``.jsonl`` or ``.parquet`` table with one column per
            language, or a `Corpus`. A folder named "demo" is reached as ``"./demo"``.
        languages: which of its languages, at least 2; None for all (for FLORES+: the 31 of the
            ILO paper).
        limit: only the first so many sentences.
        revision: branch, tag or commit of the FLORES+ dataset.
        split: ``"dev"`` or ``"devtest"`` of FLORES+ (dev by default), or the suffix to read in a
            folder that holds files of more than one.

    Raises:
        CorpusError: on a corpus that is missing, misaligned or has unusable sentences; the message
            names the file and line, or the row and column.
        InputError: (of which `CorpusError` is one, and itself a ValueError) on arguments that do
            not fit the corpus.

    >>> from ilo_fast import load_corpus
    >>> demo = load_corpus("demo", languages=["eng_Latn", "deu_Latn"], limit=3)
    >>> demo.languages, demo.n_points
    (('eng_Latn', 'deu_Latn'), 6)
    >>> demo.texts[3]
    'Der Bäcker öffnet seinen Laden, bevor die Sonne aufgeht.'
    """
    if languages is not None and not isinstance(languages, str | bytes):
        languages = tuple(languages)
        if len(languages) < 2:
            raise InputError(f"languages: expected at least 2, got {len(languages)}")
    if limit is not None:
        check_limit(limit)  # before anything is read or downloaded
    if split is not None:
        check_choice(split, "split", SPLITS)
    corpus = _read(spec, languages, revision, split)
    if corpus.n_languages < 2:
        raise CorpusError(
            f"{corpus.source or corpus.name}: expected at least 2 languages, "
            f"got {corpus.n_languages} ({corpus.languages[0]})"
        )
    return corpus.select(limit=limit)


def _read(
    spec: str | os.PathLike[str] | Corpus,
    languages: Iterable[str] | None,
    revision: str | None,
    split: str | None,
) -> Corpus:
    if isinstance(spec, str) and spec == "flores":
        return read_flores(languages, revision=revision, split="dev" if split is None else split)
    if revision is not None:
        raise InputError(f"revision: only 'flores' has revisions, got {revision!r} for {spec!r}")
    if isinstance(spec, Corpus):
        _no_split(split, "a Corpus")
        return spec.select(languages)
    if not isinstance(spec, str | os.PathLike):
        raise TypeError(
            f"corpus: expected {_FORMS}, or a Corpus, which Corpus.from_mapping makes of a mapping "
            f"or a pandas table; got {type(spec).__name__}"
        )
    if spec == "demo":
        _no_split(split, "the demo corpus")
        return read_demo(languages)
    if not os.fspath(spec):
        raise InputError(f"corpus: expected {_FORMS}; got an empty string")
    path = expanded(spec)
    check_utf8(path, "corpus")
    if os.path.isdir(path):  # unlike Path.is_dir, False for names too long to exist
        return read_folder(path, languages, split)
    if not os.path.exists(path):
        raise CorpusError(f"corpus: no such file or folder: {str(path)!r}; expected {_FORMS}")
    if path.suffix.lower() not in TABLES:
        raise CorpusError(f"corpus: {str(path)!r} is a file of no known kind; expected {_FORMS}")
    _no_split(split, "a table")
    return read_table(path, languages)


def _no_split(split: str | None, what: str) -> None:
    if split is not None:
        raise InputError(f"split: {what} has no splits, got {split!r}")
