"""The built-in corpus: complete, in the right scripts, nothing repeated, the same for everyone."""

import re
import unicodedata
from collections import Counter
from importlib.resources import files

import numpy as np
import pytest

from ilo_fast import load_corpus
from ilo_fast.corpora import language

SHA256 = "97540c327cc287b87d2d64957f8f5f7d7b5d940189087ebe6339c47ff02499c9"

# Unicode ranges by hand rather than from a library: what each language's letters may be.
RANGES = {
    "Latn": [(0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x17F)],
    "Cyrl": [(0x400, 0x4FF)],
    "Grek": [(0x370, 0x3FF), (0x1F00, 0x1FFF)],
    "Arab": [(0x600, 0x6FF)],
    "Deva": [(0x900, 0x97F)],
    "Beng": [(0x980, 0x9FF)],
    "Thai": [(0xE00, 0xE7F)],
    "Hang": [(0xAC00, 0xD7A3)],
    "Hans": [(0x4E00, 0x9FFF)],
    "Jpan": [(0x3040, 0x30FF), (0x4E00, 0x9FFF), (0x3005, 0x3007)],
}


@pytest.fixture(scope="module")
def demo():
    return load_corpus("demo")


@pytest.fixture(scope="module")
def by_language(demo):
    return dict(zip(demo.languages, demo.sentences, strict=True))


def test_size_and_description(demo):
    assert (demo.n_languages, demo.n_sentences) == (16, 40)
    assert len({language(code).script for code in demo.languages}) == 10
    assert demo.languages == tuple(sorted(demo.languages))
    assert demo.licence == "Apache-2.0"
    assert demo.sha256 == SHA256


def test_its_folder_is_the_same_corpus(demo):
    path = files("ilo_fast.corpora") / "demo"
    assert load_corpus(path).sha256 == demo.sha256
    assert "Apache-2.0" in (path / "README.md").read_text(encoding="utf-8")


def test_selection_reads_the_same_text(demo):
    pair = ["zho_Hans", "eng_Latn"]
    assert load_corpus("demo", languages=pair, limit=7) == demo.select(pair, 7)


def test_every_letter_is_of_the_languages_script(by_language):
    for code, sentences in by_language.items():
        ranges = RANGES[language(code).script]
        for text in sentences:
            for character in text:
                if unicodedata.category(character)[0] in "LM":
                    inside = any(low <= ord(character) <= high for low, high in ranges)
                    assert inside, (code, text, character)


def test_japanese_and_chinese_differ_in_script(by_language):
    kana = re.compile("[\u3040-\u30ff]")
    assert all(kana.search(text) for text in by_language["jpn_Jpan"])
    assert not any(kana.search(text) for text in by_language["zho_Hans"])


def test_ukrainian_and_russian_use_their_own_letters(by_language):
    assert not any(set(text.lower()) & set("іїєґ") for text in by_language["rus_Cyrl"])
    assert not any(set(text.lower()) & set("ыэъё") for text in by_language["ukr_Cyrl"])


def test_no_sentence_twice_not_even_across_languages(demo):
    repeated = [text for text, count in Counter(demo.texts).items() if count > 1]
    assert repeated == []


def test_no_digits_and_stored_clean(demo):
    for text in demo.texts:
        assert text == text.strip()
        assert text == unicodedata.normalize("NFC", text)
        assert not any(unicodedata.category(c).startswith("N") for c in text), text
        assert "  " not in text


def test_lengths_are_those_of_plain_sentences(by_language):
    words = [len(text.split()) for text in by_language["eng_Latn"]]
    assert min(words) == 5
    assert max(words) == 16
    for code, sentences in by_language.items():
        if code not in ("zho_Hans", "jpn_Jpan", "tha_Thai"):
            assert max(len(text.split()) for text in sentences) <= 18, code


def test_lengths_go_together(by_language):
    """A line out of place would break the correlation of lengths between languages."""
    lengths = {code: np.array([len(t) for t in texts]) for code, texts in by_language.items()}
    for code, values in lengths.items():
        aligned = np.corrcoef(values, lengths["eng_Latn"])[0, 1]
        shifted = max(
            np.corrcoef(np.roll(values, shift), lengths["eng_Latn"])[0, 1] for shift in (1, -1)
        )
        assert aligned > 0.65, code
        assert aligned > shifted + 0.4, code


def test_questions_stand_on_the_same_lines(by_language):
    marks = {
        "ell_Grek": ";",
        "arb_Arab": "؟",
        "zho_Hans": "？",
        "jpn_Jpan": "か。",
        "tha_Thai": ("เท่าไร", "ไหม"),
    }
    for code, sentences in by_language.items():
        ends = marks.get(code, "?")
        assert [n for n, text in enumerate(sentences) if text.endswith(ends)] == [11, 30], code


def test_capitalised_words_are_no_names(by_language):
    """Inside English sentences only I and Mondays are written with a capital."""
    inside = {
        word.strip(".,?")
        for text in by_language["eng_Latn"]
        for word in text.split()[1:]
        if word[0].isupper()
    }
    assert inside == {"I", "Mondays"}
