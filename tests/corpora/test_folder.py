"""Folders of text files: what is read, and what each fault says."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ilo_fast import load_corpus
from ilo_fast.corpora.lines import decode_lines
from ilo_fast.errors import CorpusError, InputError

GOOD = {"eng_Latn.txt": "One.\nTwo.\n", "deu_Latn.txt": "Eins.\nZwei.\n"}


def refused(match, *args, **kwargs):
    with pytest.raises(InputError, match=match) as caught:
        load_corpus(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return caught.value


def test_reads_languages_sorted_by_name(folder):
    path = folder(GOOD | {"README.md": "no corpus", ".hidden.txt": "x", "._eng_Latn.txt": "x"})
    (path / "directory").mkdir()
    corpus = load_corpus(path)
    assert corpus.languages == ("deu_Latn", "eng_Latn")
    assert corpus.sentences == (("Eins.", "Zwei."), ("One.", "Two."))
    assert (corpus.name, corpus.source) == ("corpus", str(path))
    assert load_corpus(str(path)) == corpus


def test_a_folder_with_a_languages_name_is_named(folder):
    """As an archive's tool leaves one for a file; it would drop a language unseen."""
    path = folder(GOOD)
    (path / "fra_Latn.txt").mkdir()
    refused("fra_Latn.txt: cannot be read: Is a directory", path)
    assert load_corpus(path, languages=["deu_Latn", "eng_Latn"]).n_languages == 2


@pytest.mark.parametrize("suffix", ["txt", "dev", "devtest", "TXT"])
def test_reads_each_suffix(folder, suffix):
    files = {name.replace("txt", suffix): text for name, text in GOOD.items()}
    assert load_corpus(folder(files)).n_points == 4


def test_the_folder_one_stands_in_gives_its_name(folder, monkeypatch):
    monkeypatch.chdir(folder(GOOD, "mine"))
    assert load_corpus(".").name == "mine"


def test_languages_and_limit(folder):
    path = folder(GOOD | {"fra_Latn.txt": "Un.\nDeux.\n"})
    corpus = load_corpus(path, languages=["fra_Latn", "deu_Latn"], limit=1)
    assert corpus.languages == ("fra_Latn", "deu_Latn")
    assert corpus.texts == ("Un.", "Eins.")


@pytest.mark.parametrize("name", [" fra_Latn", "fra_Latn ", "fra\u200b"])
def test_a_file_whose_name_cannot_be_a_languages_is_named_with_its_folder(folder, name):
    path = folder(GOOD | {f"{name}.txt": "Un.\nDeux.\n"})
    error = refused("no language's name: it has blanks at its ends or characters that do", path)
    assert str(error).startswith(f"{path}: file name {name!r} is")
    assert load_corpus(path, languages=["eng_Latn", "deu_Latn"]).n_languages == 2


def test_files_of_other_languages_are_not_read(folder):
    path = folder(GOOD | {"bad.txt": b"\xff\n", "short.txt": "x\n"})
    assert load_corpus(path, languages=["eng_Latn", "deu_Latn"]).n_sentences == 2


@pytest.mark.parametrize(
    "text",
    [
        "One.\nTwo.",
        "One.\nTwo.\n\n  \n",
        "One.\r\nTwo.\r\n",
        "\ufeffOne.\nTwo.\n",
        "\ufeffOne.\r\nTwo.\r\n\r\n",
        "  One. \u00a0\n\tTwo.\u3000\n",
        "One.\r\nTwo.\n",
    ],
)
def test_ends_of_lines_and_files_do_not_matter(folder, text):
    clean = load_corpus(folder(GOOD, "clean"))
    assert load_corpus(folder(GOOD | {"eng_Latn.txt": text})).sha256 == clean.sha256


def test_characters_python_would_split_at_stay_inside_sentences(folder):
    text = "One\u2028two\x0bthree\u0085four\x1cfive.\nTwo.\n"
    corpus = load_corpus(folder(GOOD | {"eng_Latn.txt": text}))
    assert corpus.sentences[1] == (text.split("\n")[0], "Two.")


sentences = st.text(
    st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]), min_size=1, max_size=20
).filter(lambda text: any(c.isalnum() for c in text))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(sentences, min_size=1, max_size=6), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_lines_round_trip(lines, end, mark):
    data = (end.join(lines) + end).encode("utf-8")
    if mark:
        data = b"\xef\xbb\xbf" + data
    elif lines[0].startswith("\ufeff"):
        lines = [lines[0][1:], *lines[1:]]
    assert decode_lines(data, "file") == lines


@settings(max_examples=60)
@given(st.binary(max_size=60))
def test_any_bytes_give_lines_or_a_corpus_error(data):
    try:
        lines = decode_lines(data, "file")
    except CorpusError:
        return
    assert all(not set(line) & set("\n\r\0") for line in lines)


def test_misaligned_names_each_odd_file_and_what_was_expected(folder):
    files = {f"l{n}.txt": "a\nb\nc\n" for n in range(4)}
    error = refused("not aligned", folder(files | {"odd.txt": "a\n", "long.txt": "a\nb\nc\nd\n"}))
    assert isinstance(error, CorpusError)
    for part in ("expected 3 lines as in 4 of 6 files", "odd.txt has 1", "long.txt has 4"):
        assert part in str(error)
    assert "l0.txt" not in str(error)


def test_misaligned_without_a_majority_lists_all(folder):
    error = refused("not aligned", folder({"a.txt": "x\n", "b.txt": "x\ny\n"}))
    assert "a.txt has 1, b.txt has 2" in str(error)


def test_misaligned_even_within_the_limit(folder):
    refused("long.txt has 3", folder(GOOD | {"long.txt": "a\nb\nc\n"}), limit=1)


def test_an_empty_file_is_misaligned_and_only_empty_files_are_no_corpus(folder):
    refused("empty.txt has 0", folder(GOOD | {"empty.txt": ""}))
    refused("no sentences: a.txt, b.txt hold no text", folder({"a.txt": "", "b.txt": "\n\n"}, "e"))


def test_empty_sentences_name_files_and_lines(folder):
    error = refused(
        "empty sentences",
        folder({"a.txt": "x\n\n \nz\n", "b.txt": "x\ny\n\u200b\nz\n", "c.txt": "x\ny\nz\nw\n"}),
    )
    assert "a.txt lines 2, 3; b.txt line 3" in str(error)


def test_a_hundred_empty_lines_make_a_short_message(folder):
    text = "x\n" + "\n" * 100 + "y\n"
    error = refused("and 92 more", folder({"a.txt": text, "b.txt": text}))
    assert len(str(error)) < 500


def test_not_utf8_names_file_line_and_byte(folder):
    path = folder(GOOD | {"fra_Latn.txt": "Un.\nd\xe9j\xe0\n".encode("latin-1")})
    refused(r"fra_Latn\.txt: line 2 is not UTF-8: its byte 2 is 0xE9", path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("One.\nTwo.\n".encode("utf-16"), "is UTF-16, expected UTF-8"),
        ("One.\nTwo.\n".encode("utf-32"), "is UTF-32, expected UTF-8"),
        ("One.\nTwo.\n".encode("utf-16-le"), "line 1 holds a NUL character"),
        (b"One.\nT\0wo.\n", "line 2 holds a NUL character"),
        (b"One.\rTwo.\r", "line 1 holds a carriage return"),
        (b"\xef\xbb\xbfOne.\n\xed\xa0\x80\n", "line 2 is not UTF-8: its byte 1 is 0xED"),
        (b"One.\n\xc0\x80\n", "line 2 is not UTF-8: its byte 1 is 0xC0"),
        (b"\x1f\x8b\x08\x00\x00", "not UTF-8"),
    ],
)
def test_other_encodings_are_named(folder, data, message):
    refused(f"eng_Latn.txt: .*{message}", folder(GOOD | {"eng_Latn.txt": data}))


def test_several_suffixes_need_a_split(folder):
    path = folder(
        {f"{code}.{split}": f"{split}\n" for code in ("a", "b") for split in ("dev", "devtest")}
    )
    refused(r"2 \.dev, 2 \.devtest files; .*split='dev' or 'devtest'", path)
    assert load_corpus(path, split="devtest").texts == ("devtest", "devtest")
    refused(r"no \.txt files.*there are \.dev, \.devtest", path, split="txt")
    refused(r"split must be one of txt, dev, devtest; got 'test'", path, split="test")


def test_one_language_in_two_spellings(folder):
    refused("one language twice", folder({"a.txt": "x\n", "a.TXT": "y\n", "b.txt": "z\n"}))


def test_missing_and_empty_folders(folder, tmp_path):
    refused("no such file or folder", tmp_path / "nowhere")
    refused(r"no \.txt, \.dev or \.devtest files", folder({"a.pdf": "x"}))
    outer = tmp_path / "flores"
    for split in ("dev", "devtest"):
        (outer / split).mkdir(parents=True)
        (outer / split / f"a.{split}").write_text("x\n")
    refused("did you mean its folder dev or devtest", outer)


def test_a_broken_link_is_not_a_language_less(folder):
    path = folder(GOOD)
    os.symlink(path / "gone", path / "fra_Latn.txt")
    refused(r"fra_Latn\.txt: cannot be read: No such file", path)


@pytest.mark.skipif(os.geteuid() == 0, reason="needs a user other than root: make test as one")
def test_a_file_without_permission(folder):
    path = folder(GOOD)
    (path / "eng_Latn.txt").chmod(0)
    refused(r"eng_Latn\.txt: cannot be read: Permission denied", path)


def test_one_language_is_no_parallel_corpus(folder):
    refused(r"at least 2 languages, got 1 \(a\)", folder({"a.txt": "x\n"}))


def test_unknown_language_lists_the_nearest(folder):
    refused(
        "no 'eng_Latin', nearest: eng_Latn.*has 2 languages",
        folder(GOOD),
        languages=["eng_Latin", "deu_Latn"],
    )
