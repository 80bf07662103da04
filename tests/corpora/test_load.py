"""`load_corpus`: which reader serves, and arguments that fit none."""

from pathlib import Path

import pandas as pd
import pytest

from ilo_fast import Corpus, load_corpus
from ilo_fast.errors import CorpusError, InputError


def test_a_corpus_passes_through_and_is_selected_from():
    demo = load_corpus("demo")
    assert load_corpus(demo) is demo
    assert load_corpus(demo, languages=["rus_Cyrl", "arb_Arab"], limit=2).n_points == 4
    with pytest.raises(CorpusError, match="at least 2 languages"):
        load_corpus(Corpus.from_mapping({"a": ["x"]}))


def test_a_folder_named_like_a_built_in_is_reached_by_its_path(folder, monkeypatch):
    path = folder({"a.txt": "x\n", "b.txt": "y\n"}, "demo")
    monkeypatch.chdir(path.parent)
    assert load_corpus("./demo").texts == ("x", "y")
    assert load_corpus(Path("demo")).texts == ("x", "y")
    assert load_corpus("demo").n_languages == 16


@pytest.mark.parametrize("spec", ["", "no/such", "Demo", "x\0y", "x" * 5000, "hub/corpus"])
def test_specs_that_name_nothing(spec):
    with pytest.raises(InputError, match=r"corpus: .*expected a folder with one") as caught:
        load_corpus(spec)
    assert "'demo'" in str(caught.value)


def test_a_name_that_is_no_utf8_is_refused():
    """Records and pictures name the corpus."""
    with pytest.raises(InputError, match=r"^corpus: expected a name in UTF-8, got 'c\\udcff'"):
        load_corpus("c\udcff")


@pytest.mark.parametrize("name", ["eng_Latn.txt", "t.xlsx", "t.json", "t"])
def test_files_of_no_known_kind(tmp_path, name):
    (tmp_path / name).write_text("x")
    with pytest.raises(CorpusError, match=r"file of no known kind.*\.tsv, \.csv, \.jsonl"):
        load_corpus(tmp_path / name)


@pytest.mark.parametrize("name", ["t.tsv", "t.csv", "t.jsonl", "t.parquet", "text/eng_Latn.txt"])
def test_what_has_no_end_is_not_read(tmp_path, name):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "deu_Latn.txt").write_text("eins\n")
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(InputError, match=rf"{name}' is a pipe or a device, expected a file"):
        load_corpus(tmp_path / name.partition("/")[0])


@pytest.mark.parametrize("spec", [None, 3, ["demo"], {"a": ["x"]}, b"demo"])
def test_specs_of_other_types(spec):
    with pytest.raises(TypeError, match="corpus: expected a folder"):
        load_corpus(spec)


def test_a_table_in_memory_is_told_the_way():
    table = pd.DataFrame({"eng_Latn": ["Hello."], "deu_Latn": ["Hallo."]})
    with pytest.raises(TypeError, match=r"Corpus\.from_mapping makes of .* pandas table; got Data"):
        load_corpus(table)
    assert load_corpus(Corpus.from_mapping(table)).languages == ("eng_Latn", "deu_Latn")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"languages": []}, "languages: expected at least 2, got 0"),
        ({"languages": ["eng_Latn"]}, "languages: expected at least 2, got 1"),
        ({"languages": ["eng_Latn", "eng_Latn"]}, "each once.*eng_Latn"),
        ({"languages": ["eng_Latn", "elven"]}, "no 'elven'.*the demo corpus has 16 languages"),
        ({"limit": 0}, "limit: expected at least 1 sentence, got 0"),
        ({"limit": 41}, "limit: expected 1 to 40, the sentences of corpus 'demo', got 41"),
        ({"revision": "main"}, "revision: only 'flores' has revisions"),
        ({"split": "dev"}, "split: the demo corpus has no splits"),
        ({"split": "train"}, "split must be one of"),
    ],
)
def test_arguments_that_do_not_fit(arguments, message):
    with pytest.raises(InputError, match=message):
        load_corpus("demo", **arguments)


@pytest.mark.parametrize("languages", ["eng_Latn", b"eng_Latn"])
def test_one_string_is_not_a_list_of_languages(languages):
    with pytest.raises(TypeError, match="languages: expected a sequence of names"):
        load_corpus("demo", languages=languages)


def test_the_limit_is_checked_before_anything_is_read(tmp_path):
    with pytest.raises(TypeError, match="limit: expected a whole number"):
        load_corpus(tmp_path / "nowhere", limit="3")


def test_tables_and_corpora_have_no_splits(tmp_path):
    (tmp_path / "t.tsv").write_text("a\tb\nx\ty\n")
    for spec in (tmp_path / "t.tsv", load_corpus("demo")):
        with pytest.raises(InputError, match="has no splits"):
            load_corpus(spec, split="dev")
