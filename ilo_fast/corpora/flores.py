"""FLORES+ from the Hugging Face hub, through the ``datasets`` extra.

The data set is gated: its owners ask every user to accept their conditions, so that the text stays
out of training data. It has one configuration a language, with the columns ``id`` and ``text``
among others, and the splits ``dev`` (997 sentences) and ``devtest`` (1012).
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ilo_fast.corpora.corpus import Corpus, choose_languages, is_blank, some
from ilo_fast.corpora.languages import PAPER_LANGUAGES
from ilo_fast.errors import CorpusError, InputError, causes

__all__ = ["FLORES_LICENCE", "REPOSITORY", "read_flores"]

REPOSITORY = "openlanguagedata/flores_plus"
FLORES_LICENCE = "CC-BY-SA-4.0"

# FLORES+ renamed some codes of FLORES-200; both are understood.
_RENAMED = {"tgl_Latn": "fil_Latn", "zho_Hans": "cmn_Hans", "zho_Hant": "cmn_Hant"}

_FOLDER_INSTEAD = (
    "or give a folder with one <language>.txt (or .dev, .devtest) per language instead of 'flores'"
)


def read_flores(
    languages: Iterable[str] | None = None, *, revision: str | None = None, split: str = "dev"
) -> Corpus:
    """Download (or take from the cache) and align FLORES+; see `load_corpus`.

    Sentences are ordered by their ``id``, which must be the same in every language.

    Raises:
        CorpusError: without the extra, access or network, or on sentences that do not align.
        InputError: on an unknown language or split.
    """
    if split not in ("dev", "devtest"):
        raise InputError(f"split: expected dev or devtest for FLORES+, got {split!r}")
    datasets = _library()
    configs = list(_ask(lambda: datasets.get_dataset_config_names(REPOSITORY, revision=revision)))
    available = set(configs)
    names = {
        **{code: code for code in configs},
        **{old: new for old, new in _RENAMED.items() if new in available and old not in available},
    }
    wanted = PAPER_LANGUAGES if languages is None else languages
    chosen = choose_languages(wanted, sorted(names), where="FLORES+")
    twice = [new for new, count in Counter(names[code] for code in chosen).items() if count > 1]
    if twice:
        raise InputError(f"languages: given under their old and their new code: {some(twice)}")
    columns: dict[str, tuple[str, ...]] = {}
    first_ids: list[Any] = []
    for code in chosen:
        rows = _ask(
            lambda config=names[code]: datasets.load_dataset(
                REPOSITORY, config, split=split, revision=revision
            )
        )
        ids, columns[code] = _sentences(rows, code, split)
        first_ids = first_ids or ids
        if ids != first_ids:
            raise CorpusError(
                f"FLORES+ {split}: {code} has other sentence ids than {chosen[0]} "
                f"({len(ids)} and {len(first_ids)} sentences); leave one out with "
                "languages= (--languages)"
            )
    renamed = [f"{code} is {names[code]} in FLORES+" for code in chosen if names[code] != code]
    return Corpus(
        f"flores_plus-{split}",
        chosen,
        tuple(columns.values()),
        source=f"{REPOSITORY}@{revision or 'main'}, split {split}",
        licence=FLORES_LICENCE,
        notes=("evaluation data: never train on it", *renamed),
    )


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise CorpusError(
            "FLORES+ needs the datasets package: pip install 'ilo-fast[datasets]', "
            + _FOLDER_INSTEAD
            + (" (the folder 'flores' here is reached as './flores')" * Path("flores").is_dir())
        ) from error
    return datasets


def _ask(call: Any) -> Any:
    """Run one call of the library; whatever it raises becomes a message about what to do."""
    try:
        return call()
    except Exception as error:
        raise CorpusError(_explain(error)) from error


def _explain(error: Exception) -> str:
    """Which of the three usual obstacles it was: the gate, the network, or something else."""
    chain = causes(error)
    text = " ".join(f"{type(e).__name__} {e}" for e in chain).lower()
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    page = f"https://huggingface.co/datasets/{REPOSITORY}"
    if "revision '" in text and "doesn't exist" in text:
        return f"revision: no such revision of {REPOSITORY} ({reason})"
    if re.search(r"gated|\b401\b|\b403\b|authenticated|datasetnotfounderror", text):
        return (
            f"FLORES+ is gated: accept its conditions at {page}, then log in with `hf auth login` "
            f"or set HF_TOKEN, {_FOLDER_INSTEAD} ({reason})"
        )
    if any(isinstance(e, ConnectionError | TimeoutError) for e in chain) or any(
        word in text for word in ("offline", "connect", "reach", "timeout", "timed out", "resolve")
    ):
        return f"FLORES+ cannot be reached: connect to the network, {_FOLDER_INSTEAD} ({reason})"
    return f"FLORES+ cannot be loaded: {type(error).__name__}: {reason}; {_FOLDER_INSTEAD}"


def _sentences(rows: Any, code: str, split: str) -> tuple[list[Any], tuple[str, ...]]:
    missing = [name for name in ("id", "text") if name not in rows.column_names]
    if missing:
        raise CorpusError(
            f"FLORES+ {split}, {code}: expected columns id and text, got "
            f"{some(list(rows.column_names))}"
        )
    pairs = sorted(zip(rows["id"], rows["text"], strict=True), key=lambda pair: pair[0])
    ids = [number for number, _ in pairs]
    if len(set(ids)) != len(ids):
        raise CorpusError(f"FLORES+ {split}, {code}: sentence ids occur more than once")
    empty = [f"id {number}" for number, text in pairs if not text or is_blank(text)]
    if empty:
        raise CorpusError(f"FLORES+ {split}, {code}: empty sentences: {some(empty)}")
    return ids, tuple(text for _, text in pairs)
