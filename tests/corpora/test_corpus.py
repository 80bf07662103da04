"""`Corpus` itself: order of points, hash, selection, refusal of what is no parallel text."""

import hashlib
import pickle
import string
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ilo_fast import Corpus
from ilo_fast.errors import CorpusError, InputError

THREE = {"eng_Latn": ["One.", "Two."], "deu_Latn": ["Eins.", "Zwei."], "fra_Latn": ["Un.", "Deux."]}

# Sentences that survive stripping: one visible character at least, blanks allowed around it.
sentence = st.builds(
    lambda left, middle, right: left + middle + right,
    st.text(" \t\u3000", max_size=2),
    st.text(string.ascii_letters + "äßжあ\u2028\u200d", min_size=1).filter(
        lambda text: any(c.isalpha() for c in text)
    ),
    st.text(" \n\r\u00a0", max_size=2),
)


@st.composite
def mappings(draw):
    codes = draw(st.lists(st.text("abcXYZ_", min_size=1, max_size=8), min_size=1, unique=True))
    rows = draw(st.integers(1, 5))
    return {code: draw(st.lists(sentence, min_size=rows, max_size=rows)) for code in codes}


def test_points_are_language_major():
    corpus = Corpus.from_mapping(THREE)
    assert Corpus.from_mapping(pd.DataFrame(THREE)) == corpus
    assert corpus.texts == ("One.", "Two.", "Eins.", "Zwei.", "Un.", "Deux.")
    assert tuple(corpus) == corpus.texts
    assert (corpus.n_languages, corpus.n_sentences, corpus.n_points) == (3, 2, 6)
    assert corpus.language_ids.dtype == corpus.sentence_ids.dtype == np.int64
    assert corpus.language_ids.tolist() == [0, 0, 1, 1, 2, 2]
    assert corpus.sentence_ids.tolist() == [0, 1, 0, 1, 0, 1]


def test_other_tables_are_told_how_to_come():
    with pytest.raises(TypeError, match=r"got pyarrow.Table \(of polars .* table.to_pydict\(\)"):
        Corpus.from_mapping(pa.table(THREE))
    assert Corpus.from_mapping(pa.table(THREE).to_pydict()) == Corpus.from_mapping(THREE)
    with pytest.raises(TypeError, match=r"a mapping of languages to sentences .* builtins.list"):
        Corpus.from_mapping(["One.", "Two."])


@settings(max_examples=40)
@given(mappings())
def test_every_point_finds_its_sentence(mapping):
    corpus = Corpus.from_mapping(mapping)
    for point, text in enumerate(corpus.texts):
        code = corpus.languages[corpus.language_ids[point]]
        assert text == mapping[code][corpus.sentence_ids[point]].strip()


@settings(max_examples=30)
@given(mappings())
def test_equality_hash_and_sha256_follow_the_content_only(mapping):
    first = Corpus.from_mapping(mapping, name="a", source="here", licence="CC0-1.0")
    padded = {code: [f"  {text}\t" for text in texts] for code, texts in mapping.items()}
    second = Corpus.from_mapping(padded, name="b", notes=("note",))
    assert first == second
    assert hash(first) == hash(second)
    assert first.sha256 == second.sha256
    changed = {code: [*texts[:-1], texts[-1] + "!"] for code, texts in mapping.items()}
    assert Corpus.from_mapping(changed) != first
    assert Corpus.from_mapping(changed).sha256 != first.sha256


def test_sha256_is_the_documented_one():
    content = '[["eng_Latn","rus_Cyrl"],[["A \\"b\\"."],["Да."]]]'
    corpus = Corpus("x", ("eng_Latn", "rus_Cyrl"), (('A "b".',), ("Да.",)))
    assert corpus.sha256 == hashlib.sha256(content.encode("utf-8")).hexdigest()


def test_sha256_tells_apart_what_concatenation_would_not():
    one = Corpus.from_mapping({"a": ["xy", "z"], "b": ["p", "q"]})
    two = Corpus.from_mapping({"a": ["x", "yz"], "b": ["p", "q"]})
    swapped = Corpus.from_mapping({"b": ["p", "q"], "a": ["xy", "z"]})
    assert len({one.sha256, two.sha256, swapped.sha256}) == 3


def test_survives_pickling_and_is_frozen():
    corpus = Corpus.from_mapping(THREE, source="s", notes=["n"])
    again = pickle.loads(pickle.dumps(corpus))
    assert again == corpus
    assert (again.source, again.notes, again.sha256) == ("s", ("n",), corpus.sha256)
    with pytest.raises(AttributeError):
        corpus.name = "other"


def test_repr_does_not_print_the_text():
    corpus = Corpus.from_mapping({"a": ["secret"] * 1000, "b": ["geheim"] * 1000})
    assert repr(corpus) == "Corpus('corpus', 2 languages × 1,000 sentences)"


def test_record_is_plain():
    corpus = Corpus.from_mapping(THREE, name="n", source="s", licence="CC0-1.0")
    record = replace(corpus, notes=("odd",)).record
    assert record["notes"] == ["odd"]
    assert record["languages"] == list(THREE)
    assert (record["name"], record["source"], record["licence"]) == ("n", "s", "CC0-1.0")
    assert record["sentences"] == 2
    assert len(record["sha256"]) == 64


def test_select_keeps_the_order_asked_for_and_the_description():
    corpus = Corpus.from_mapping(THREE, name="n", source="s", licence="l", notes=("x",))
    chosen = corpus.select(["fra_Latn", "eng_Latn"], limit=np.int64(1))
    assert chosen.texts == ("Un.", "One.")
    assert (chosen.name, chosen.source, chosen.licence, chosen.notes) == ("n", "s", "l", ("x",))
    assert corpus.select() is corpus
    assert corpus.select(iter(["deu_Latn"])).languages == ("deu_Latn",)


@pytest.mark.parametrize(
    ("languages", "message"),
    [
        (["eng_Latin"], r"no 'eng_Latin', nearest: eng_Latn.*has 3 languages"),
        (["German"], r"no 'German', nearest: deu_Latn"),
        (["FRENCH"], r"no 'FRENCH', nearest: fra_Latn"),
        (["en"], r"no 'en', nearest: eng_Latn"),
        (["quz"], r"no 'quz' \("),
        (["eng_Latn", "deu_Latn", "eng_Latn"], r"each once, given more often: eng_Latn"),
        ([], r"at least one"),
        ([""], r"got ''"),
        (["eng_Latn "], r"got 'eng_Latn '"),
    ],
)
def test_select_refuses_languages(languages, message):
    with pytest.raises(InputError, match=message):
        Corpus.from_mapping(THREE).select(languages)


def test_many_unknown_languages_make_a_short_message():
    with pytest.raises(InputError, match="and 995 more") as caught:
        Corpus.from_mapping(THREE).select([f"q{n}" for n in range(1000)])
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("languages", ["eng_Latn", b"eng_Latn", [1], [None], 3])
def test_select_refuses_types_of_languages(languages):
    with pytest.raises(TypeError):
        Corpus.from_mapping(THREE).select(languages)


@pytest.mark.parametrize("limit", [0, -1, 3, 10**30])
def test_select_refuses_limits(limit):
    with pytest.raises(InputError, match=r"limit: expected .*got"):
        Corpus.from_mapping(THREE).select(limit=limit)


@pytest.mark.parametrize("limit", [True, 1.0, "1", [1]])
def test_select_refuses_types_of_limits(limit):
    with pytest.raises(TypeError, match="limit: expected a whole number"):
        Corpus.from_mapping(THREE).select(limit=limit)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"a": ["x", "y"], "b": ["x"]}, "same number in every language, got a 2, b 1"),
        ({"a": [], "b": []}, "at least one per language"),
        ({"a": ["x", " \t"], "b": ["x", "y"]}, "a: sentence 2 is empty"),
        ({"a": ["x"], "b": ["\u200b\ufeff\u3000"]}, "b: sentence 1 is empty"),
        ({"a": ["x"], "b": ["y \ud800"]}, r"b: sentence 1 is no valid Unicode.*U\+D800"),
        ({"a": ["x"], "b": ["y\0z"]}, "b: sentence 1 holds a NUL character"),
    ],
)
def test_refuses_text_that_is_not_parallel(mapping, message):
    with pytest.raises(CorpusError, match=message):
        Corpus.from_mapping(mapping)


def test_refuses_wrong_shapes():
    with pytest.raises(CorpusError, match="one sequence per language, 2, got 1"):
        Corpus("x", ("a", "b"), (("x",),))
    with pytest.raises(CorpusError, match="one sequence per language, 1, got 2"):
        Corpus("x", ("a",), (("x",), ("y",)))
    with pytest.raises(TypeError, match="got one string"):
        Corpus.from_mapping({"a": "xyz", "b": "uvw"})
    with pytest.raises(TypeError, match="sentence 1 is 3"):
        Corpus.from_mapping({"a": [3], "b": [4]})
    with pytest.raises(InputError, match="more often: a"):
        Corpus("x", ("a", "a"), (("x",), ("y",)))


def test_unencoded_and_unassigned_characters_are_text():
    corpus = Corpus.from_mapping({"a": ["\ue000\ue001"], "b": ["\U0001fbff"]})
    assert corpus.texts[0] == "\ue000\ue001"
