"""`Corpus`: the same sentences in several languages, and its points in language-major order."""

import difflib
import hashlib
import json
import operator
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from ilo_fast.corpora.languages import language
from ilo_fast.errors import CorpusError, InputError
from ilo_fast.shown import counted

__all__ = ["Corpus", "check_limit", "choose_languages", "is_blank", "some"]

# Blanks of all widths, line ends, controls, and format characters such as zero-width joiners; not
# private-use and unassigned ones, which a newer or unencoded script may need.
_INVISIBLE = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf"})


@dataclass(frozen=True, repr=False)
class Corpus:
    """Parallel text: sentence ``j`` of every language says the same thing.

    Points are numbered language by language: point ``i`` is sentence ``i % n_sentences`` of
    language ``i // n_sentences``. Two corpora are equal when their languages and sentences are;
    name, source, licence and notes only describe them.

    Args:
        name: a short label for tables and plots.
        languages: distinct, non-empty labels, usually FLORES codes such as ``eng_Latn``.
        sentences: for each language its sentences, all languages equally many. White space at
            both ends is stripped; nothing else about the text is changed.
        source: where the text was read (a path, a dataset and its revision).
        licence: of the text, where known.
        notes: what a reader of the results should know, such as columns left out.

    Raises:
        CorpusError: on unequal lengths, empty sentences, or text that is no valid Unicode.
        InputError: on no languages, an empty label, or a label given twice.
        TypeError: on labels or sentences that are no strings.

    >>> from ilo_fast import Corpus
    >>> words = (("Hello.", "Bye."), ("Hallo.", "Tschüss."))
    >>> greetings = Corpus("greetings", ("eng_Latn", "deu_Latn"), words)
    >>> greetings.n_sentences, greetings.n_points, greetings.texts[2]
    (2, 4, 'Hallo.')
    >>> greetings.language_ids.tolist(), greetings.sentence_ids.tolist()
    ([0, 0, 1, 1], [0, 1, 0, 1])
    >>> greetings.select(limit=1).texts
    ('Hello.', 'Hallo.')
    """

    name: str = field(compare=False)
    languages: tuple[str, ...]
    sentences: tuple[tuple[str, ...], ...]
    source: str = field(default="", compare=False)
    licence: str | None = field(default=None, compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)

    if TYPE_CHECKING:  # lists will do: what is kept are tuples

        def __init__(
            self,
            name: str,
            languages: Iterable[str],
            sentences: Sequence[Iterable[str]],
            source: str = "",
            licence: str | None = None,
            notes: Iterable[str] = (),
        ) -> None: ...

    def __post_init__(self) -> None:
        # Frozen, so the cleaned values go in through object.__setattr__.
        object.__setattr__(self, "languages", _labels(self.languages))
        object.__setattr__(self, "notes", tuple(self.notes))
        sentences = tuple(
            _sentences(code, column)
            for code, column in zip(self.languages, self.sentences, strict=False)
        )
        if len(self.sentences) != len(self.languages):
            raise CorpusError(
                f"sentences: expected one sequence per language, {len(self.languages)}, "
                f"got {len(self.sentences)}"
            )
        counts = {code: len(column) for code, column in zip(self.languages, sentences, strict=True)}
        if len(set(counts.values())) != 1:
            listed = ", ".join(f"{code} {count}" for code, count in counts.items())
            raise CorpusError(
                f"sentences: expected the same number in every language, got {listed}"
            )
        if not sentences[0]:
            raise CorpusError("sentences: expected at least one per language, got none")
        object.__setattr__(self, "sentences", sentences)

    @classmethod
    def from_mapping(
        cls, sentences: Mapping[str, Iterable[str]], *, name: str = "corpus", **described: Any
    ) -> "Corpus":
        """A corpus from ``{language: sentences}`` or a pandas table of one column per language.

        ``described`` may hold ``source``, ``licence`` and ``notes``. Raises TypeError on another
        kind of table, otherwise as `Corpus` does.

        >>> from ilo_fast import Corpus
        >>> Corpus.from_mapping({"eng_Latn": ["Hello. "], "fra_Latn": ["Salut."]}).texts
        ('Hello.', 'Salut.')
        """
        if not hasattr(sentences, "keys"):
            raise TypeError(
                "sentences: expected a mapping of languages to sentences or a pandas table, got "
                f"{type(sentences).__module__.partition('.')[0]}.{type(sentences).__name__} (of "
                "polars give table.to_dict(as_series=False), of pyarrow table.to_pydict())"
            )
        given = [sentences[language] for language in sentences]  # a table has no values()
        columns = [column if isinstance(column, str) else tuple(column) for column in given]
        return cls(name, list(sentences), columns, **described)

    @property
    def n_languages(self) -> int:
        """Number of languages."""
        return len(self.languages)

    def __repr__(self) -> str:
        return (
            f"Corpus({self.name!r}, {counted(self.n_languages, 'language')} × "
            f"{counted(self.n_sentences, 'sentence')})"
        )

    @property
    def n_sentences(self) -> int:
        """Sentences per language."""
        return len(self.sentences[0])

    @property
    def n_points(self) -> int:
        """Languages times sentences."""
        return self.n_languages * self.n_sentences

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """All sentences, language-major."""
        return tuple(text for column in self.sentences for text in column)

    @property
    def language_ids(self) -> npt.NDArray[np.int64]:
        """int64 ``[points]``: position in ``languages`` of each point's language."""
        return np.repeat(np.arange(self.n_languages, dtype=np.int64), self.n_sentences)

    @property
    def sentence_ids(self) -> npt.NDArray[np.int64]:
        """int64 ``[points]``: number of each point's sentence, counted from 0."""
        return np.tile(np.arange(self.n_sentences, dtype=np.int64), self.n_languages)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 (hex) of languages and sentences, whatever they were read from.

        It is that of the UTF-8 text ``json.dumps([languages, sentences], ensure_ascii=False,
        separators=(",", ":"))``.
        """
        content = json.dumps(
            [self.languages, self.sentences], ensure_ascii=False, separators=(",", ":")
        )
        return hashlib.sha256(content.encode("utf-8")).hexdigest()

    @property
    def record(self) -> dict[str, Any]:
        """What a result says about its corpus; plain values, ready for JSON."""
        return {
            "name": self.name,
            "source": self.source,
            "licence": self.licence,
            "notes": list(self.notes),
            "languages": list(self.languages),
            "sentences": self.n_sentences,
            "sha256": self.sha256,
        }

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)

    def select(
        self, languages: Iterable[str] | None = None, limit: SupportsIndex | None = None
    ) -> "Corpus":
        """The corpus with only these languages, in this order, and the first ``limit`` sentences.

        Raises:
            InputError: on an unknown or repeated language, none at all, or a limit that is below 1
                or above the sentences there are.
        """
        chosen = choose_languages(languages, self.languages, where=f"corpus {self.name!r}")
        first = self.n_sentences
        if limit is not None:
            first = check_limit(limit, self.n_sentences, where=f"corpus {self.name!r}")
        if chosen == self.languages and first == self.n_sentences:
            return self
        columns = dict(zip(self.languages, self.sentences, strict=True))
        return Corpus(
            name=self.name,
            languages=chosen,
            sentences=tuple(columns[code][:first] for code in chosen),
            source=self.source,
            licence=self.licence,
            notes=self.notes,
        )


def choose_languages(
    languages: Iterable[str] | None, available: Sequence[str], *, where: str
) -> tuple[str, ...]:
    """The asked-for languages as a tuple, checked against those there are; None means all."""
    if languages is None:
        return tuple(available)
    if isinstance(languages, str | bytes):
        raise TypeError(
            f"languages: expected a sequence of names such as ['eng_Latn', 'deu_Latn'], "
            f"got the single string {languages!r}"
        )
    chosen = _labels(languages)
    there = set(available)
    unknown = [code for code in chosen if code not in there]
    if unknown:
        hints = "; ".join(_hint(code, available) for code in unknown[:5])
        more = f"; and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise InputError(
            f"languages: {hints}{more} ({where} has {counted(len(available), 'language')})"
        )
    return chosen


def check_limit(limit: SupportsIndex, available: int | None = None, *, where: str = "") -> int:
    """The number of sentences to keep, against how many there are where that is known."""
    try:
        count = operator.index(limit)
    except TypeError:
        count = None
    if count is None or isinstance(limit, bool):
        raise TypeError(f"limit: expected a whole number of sentences, got {limit!r}")
    if count < 1:
        raise InputError(f"limit: expected at least 1 sentence, got {count}")
    if available is not None and count > available:
        raise InputError(f"limit: expected 1 to {available}, the sentences of {where}, got {count}")
    return count


def is_blank(text: str) -> bool:
    """Whether a sentence shows nothing: only white space, controls and zero-width characters."""
    return all(unicodedata.category(character) in _INVISIBLE for character in text)


def some(items: Sequence[str], most: int = 8) -> str:
    """The first items, and how many more there are."""
    shown = ", ".join(items[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"


def _hint(asked: str, available: Sequence[str]) -> str:
    # People write "German" or "de" as well as "deu_Latin", so compare with names and beginnings.
    spellings = {code.lower(): code for code in available}
    spellings |= {language(code).name.lower(): code for code in available}
    close = difflib.get_close_matches(asked.lower(), spellings, n=6, cutoff=0.6)
    close += [s for s in spellings if s[:2] == asked[:2].lower() and s not in close]
    nearest = list(dict.fromkeys(spellings[spelling] for spelling in close))[:3]
    return f"no {asked!r}" + (f", nearest: {', '.join(nearest)}" if nearest else "")


def _labels(languages: Iterable[str]) -> tuple[str, ...]:
    labels = tuple(languages)
    for label in labels:
        if not isinstance(label, str):
            raise TypeError(f"languages: expected strings, got {label!r} ({type(label).__name__})")
        if not label or label != label.strip() or not label.isprintable():
            raise InputError(f"languages: expected names without blanks at the ends, got {label!r}")
    if not labels:
        raise InputError("languages: expected at least one, got none")
    twice = sorted(label for label, count in Counter(labels).items() if count > 1)
    if twice:
        raise InputError(f"languages: expected each once, given more often: {some(twice)}")
    return labels


def _sentences(code: str, column: Iterable[str]) -> tuple[str, ...]:
    if isinstance(column, str | bytes):
        raise TypeError(f"sentences of {code}: expected a sequence of strings, got one string")
    cleaned = []
    for number, text in enumerate(column, start=1):
        if not isinstance(text, str):
            raise TypeError(
                f"sentences of {code}: expected strings, sentence {number} is {text!r} "
                f"({type(text).__name__})"
            )
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise CorpusError(
                f"sentences of {code}: sentence {number} is no valid Unicode: it holds the "
                f"lone surrogate U+{ord(text[error.start]):04X}"
            ) from error
        if is_blank(text):
            raise CorpusError(f"sentences of {code}: sentence {number} is empty")
        if "\0" in text:  # some tokenizers drop it, others give it a token of its own
            raise CorpusError(f"sentences of {code}: sentence {number} holds a NUL character")
        cleaned.append(text.strip())
    return tuple(cleaned)
