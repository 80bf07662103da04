"""Tables: the four formats agree, and each fault names its row and column."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ilo_fast import load_corpus
from ilo_fast.errors import CorpusError, InputError

WORDS = {"eng_Latn": ["One.", "Two, too."], "deu_Latn": ["Eins.", "Zwei."]}
TEXT = {
    "tsv": "eng_Latn\tdeu_Latn\nOne.\tEins.\nTwo, too.\tZwei.\n",
    "csv": 'eng_Latn,deu_Latn\nOne.,Eins.\n"Two, too.",Zwei.\n',
    "jsonl": '{"eng_Latn": "One.", "deu_Latn": "Eins."}\n'
    '{"deu_Latn": "Zwei.", "eng_Latn": "Two, too."}\n',
}
FORMATS = [*TEXT, "parquet"]


def write(path, columns):
    """Write columns (``{name: cells}``) in the format of the path's suffix."""
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".tsv":
        lines = [list(columns), *([str(cell) for cell in row.values()] for row in rows)]
        path.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
    else:
        lines = [list(columns), *([str(cell) for cell in row.values()] for row in rows)]
        quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in line) for line in lines]
        path.write_bytes("".join(line + "\n" for line in quoted).encode("utf-8"))
    return path


def refused(match, path, **kwargs):
    with pytest.raises(InputError, match=match) as caught:
        load_corpus(path, **kwargs)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.fixture
def save(tmp_path):
    def save(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return save


def test_all_formats_and_a_folder_are_one_corpus(tmp_path, save, folder):
    paths = [save(f"table.{kind}", text) for kind, text in TEXT.items()]
    paths.append(write(tmp_path / "table.parquet", WORDS))
    paths.append(folder({f"{code}.txt": "\n".join(words) for code, words in WORDS.items()}))
    corpora = [load_corpus(path) for path in paths]
    assert len(set(corpora)) == 1
    assert len({corpus.sha256 for corpus in corpora}) == 1
    assert corpora[0].languages == ("deu_Latn", "eng_Latn")
    assert corpora[0].name == "table"
    assert corpora[0].source == str(paths[0])


cells = st.text(
    st.characters(exclude_characters="\n\r\t\0", exclude_categories=["Cs"]), max_size=12
).map(lambda text: "x" + text + ".")


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None
)
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=5))
def test_any_text_round_trips_in_every_format(tmp_path, rows):
    columns = {"a": [row[0] for row in rows], "b": [row[1] for row in rows]}
    expected = tuple(tuple(column) for column in columns.values())
    for kind in FORMATS:
        assert load_corpus(write(tmp_path / f"t.{kind}", columns)).sentences == expected


@pytest.mark.parametrize("kind", FORMATS)
def test_words_that_look_missing_are_words(tmp_path, kind):
    columns = {"a": ["NA", "null", "None", "nan", "-"], "b": ["N/A", "NULL", "#N/A", "1", "true"]}
    assert load_corpus(write(tmp_path / f"t.{kind}", columns)).sentences[0] == tuple(columns["a"])


@pytest.mark.parametrize("kind", FORMATS)
def test_languages_choose_and_order_columns(tmp_path, kind):
    path = write(tmp_path / f"t.{kind}", {"a": ["1a"], "bad": [""], "c": ["1c"]})
    corpus = load_corpus(path, languages=iter(["c", "a"]))
    assert corpus.languages == ("c", "a")
    assert corpus.texts == ("1c", "1a")
    refused("no 'eng'.*has 3 languages", path, languages=["eng", "a"])
    refused("each once", path, languages=["a", "a"])
    refused("at least 2, got 1", path, languages=["a"])


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", ["id", "ID", "idx", "index", "sentence_id", "Unnamed: 0"])
def test_columns_that_number_rows_are_left_out_and_noted(tmp_path, kind, name):
    path = write(tmp_path / f"t.{kind}", {name: ["s1", "s2"], **WORDS})
    corpus = load_corpus(path)
    assert corpus.languages == ("deu_Latn", "eng_Latn")
    assert corpus.notes == (f"columns left out: {name!r}",)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("numbers", [["0.5", "-3e2"], ["", "7"], ["١", "٢"]])
def test_a_column_of_numbers_is_no_language(tmp_path, kind, numbers):
    path = write(tmp_path / f"table.{kind}", {**WORDS, "score": numbers})
    first = next(number for number, cell in enumerate(numbers, start=1) if cell)
    got = f"'{numbers[first - 1]}' \\(a number, as are all of the column\\)"
    refused(rf"(row|line) {first}, column 'score': expected text, got {got}; if the column", path)
    assert load_corpus(path, languages=list(WORDS)).languages == tuple(WORDS)


@pytest.mark.parametrize("kind", FORMATS)
def test_some_sentences_may_be_numbers(tmp_path, kind):
    columns = {**WORDS, "fra_Latn": ["2024", "nan"], "ita_Latn": ["NaN", "Infinity"]}
    path = write(tmp_path / f"table.{kind}", columns)
    assert load_corpus(path).texts[4:] == ("2024", "nan", "NaN", "Infinity")


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_row_numbers_may_be_numbers(tmp_path, kind):
    assert load_corpus(write(tmp_path / f"t.{kind}", {"id": [1, 2], **WORDS})).n_points == 4


def test_the_unnamed_index_of_pandas_is_left_out(save):
    corpus = load_corpus(save("t.csv", ",eng_Latn,deu_Latn\n0,One.,Eins.\n1,Two.,Zwei.\n"))
    assert corpus.languages == ("deu_Latn", "eng_Latn")


@pytest.mark.parametrize("kind", FORMATS)
def test_indonesian_is_not_taken_for_a_row_number(tmp_path, kind):
    path = write(tmp_path / f"t.{kind}", {"en": ["Good day."], "id": ["Selamat siang."]})
    refused("column 'id' holds sentences.*languages=", path)
    assert load_corpus(path, languages=["id", "en"]).texts == ("Selamat siang.", "Good day.")


@pytest.mark.parametrize("kind", FORMATS)
def test_empty_cells_name_row_and_column(tmp_path, kind):
    path = write(tmp_path / f"t.{kind}", {"a": ["x", " ", "z"], "b": ["x", "y", "\u200b"]})
    unit = "line" if kind == "jsonl" else "row"
    refused(rf"empty sentences: {unit} 2, column 'a', {unit} 3, column 'b'", path)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_missing_and_foreign_values_name_row_and_column(tmp_path, kind):
    unit = "line" if kind == "jsonl" else "row"
    path = write(tmp_path / f"t.{kind}", {"a": ["x", None], "b": ["x", "y"]})
    refused(rf"missing or empty sentences: {unit} 2, column 'a'", path)
    path = write(tmp_path / f"t.{kind}", {"a": ["x"], "b": ["y"], "score": [0.5]})
    refused(rf"{unit} 1, column 'score': expected text, got 0\.5 \(float\).*languages=", path)
    assert load_corpus(path, languages=["b", "a"]).texts == ("y", "x")


@pytest.mark.parametrize("kind", FORMATS)
def test_nul_characters_are_refused_in_every_format(tmp_path, kind):
    """Tokenizers differ: some drop them, others give them a token of their own."""
    path = write(tmp_path / f"t.{kind}", {"a": ["x", "y"], "b": ["x", "y\0z"]})
    where = {"jsonl": "line 2, column 'b':", "parquet": "row 2, column 'b':"}
    refused(f"{where.get(kind, 'line 3')} holds a NUL character", path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.tsv", "", "is empty; expected a header"),
        ("t.csv", "\n\n", "is empty; expected a header"),
        ("t.jsonl", "\n", "is empty; expected one JSON object"),
        ("t.tsv", "a\tb\n", "no rows"),
        ("t.csv", "id\n1\n", "no language columns"),
        ("t.csv", "a\nx\n", r"at least 2 languages, got 1 \(a\)"),
        ("t.tsv", "a\tb\nx\n", r"row 1 below the header has 1 cell, expected 2 \(a, b\)"),
        ("t.csv", "a,b\nx,y\nx,y,z\n", "row 2 below the header has 3 cells, expected 2"),
        ("t.csv", "a,b\nx,y\n\nx,y\n", "row 2 below the header has 0 cells, expected 2"),
        ("t.tsv", "a\tb\ta\nx\ty\tz\n", "column names occur more than once: 'a'"),
        ("t.csv", 'a,b\nx,"y\n', "line 2: unexpected end of data"),
        ("t.csv", 'a,b\nx,"y"z\n', "line 2: "),
        ("t.csv", 'a,b\n"1\n2",x\nx,"y\n' + "v,w\n" * 9, "row 2 below .* begins in line 4: unex"),
        ("t.csv", "\na,b\nx,y\n", "line 1 is blank; expected a header"),
        ("t.tsv", "\na\tb\nx\ty\n", "line 1 is blank; expected a header"),
        ("t.csv", "a\tb\nx\ty\n", r"column name 'a\\tb' is no .* tabs .* is a \.tsv file"),
        ("t.csv", "a,b\u200b\nx,y\n", r"column name 'b\\u200b' is no language's name.* not show$"),
        ("t.csv", "a,b\nx," + "y" * 200_000 + "\n", "field larger than field limit"),
        ("t.csv", "a,b\nx,\xff\n".encode("latin-1"), "line 2 is not UTF-8"),
        ("t.tsv", "a\tb\nx\ty\n".encode("utf-16"), "is UTF-16"),
        ("t.jsonl", '{"a": "x"\n', "line 1 is not a JSON object"),
        ("t.jsonl", '["a", "b"]\n', r"line 1: expected a JSON object.*got \['a', 'b'\]"),
        ("t.jsonl", '{"a":"x","b":"y"}\n\n{"a":"x","b":"y"}\n', "line 2 is not a JSON object"),
        ("t.jsonl", '{"a":"x"}\n{"a" 3}\n', "line 2 is not .*: Expecting .* at character 6$"),
        ("t.jsonl", '{"a": "x", "a": "y"}\n', "line 1 .*: a key occurs more than once: 'a'"),
        ("t.jsonl", "[" * 100_000 + "\n", "line 1 is not a JSON object"),
        ("t.jsonl", '{"a": "x", "b": "y"}\n{"a": "x"}\n', "line 2, column 'b'"),
        ("t.jsonl", '{"a": "x", "b": "y"}\n{"a":"x","b":"y","c":"z"}\n', "line 1, column 'c'"),
        ("t.jsonl", '{"a": "x", "b": "\\ud800"}\n', "line 1, column 'b': no valid Unicode"),
        ("t.jsonl", '{"a": "x", "b": NaN}\n', "column 'b': expected text, got nan"),
        ("t.jsonl", '{"a": "x", " a": "y"}\n', "column names occur more than once: 'a'"),
        ("t.parquet", b"PAR1 no such thing", "is no readable Parquet file"),
        ("t.parquet", b"", "is no readable Parquet file"),
    ],
)
def test_broken_tables(save, name, content, message):
    assert isinstance(refused(message, save(name, content)), CorpusError)


def test_parquet_columns_of_one_name(tmp_path):
    table = pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["a", "a"])
    pq.write_table(table, tmp_path / "t.parquet")
    refused("column names occur more than once: 'a'", tmp_path / "t.parquet")


def test_parquet_text_in_another_encoding_is_named(tmp_path):
    ends = pa.py_buffer(np.array([0, 2], dtype=np.int32))
    text = pa.StringArray.from_buffers(1, ends, pa.py_buffer(b"\xff\xfe"))
    pq.write_table(pa.table({"a": text, "b": ["x"]}), tmp_path / "t.parquet")
    refused("holds text that is not UTF-8", tmp_path / "t.parquet")


@pytest.mark.parametrize("kind", TEXT)
def test_the_case_of_a_suffix_does_not_matter(save, kind):
    assert load_corpus(save(f"table.{kind.upper()}", TEXT[kind])).n_points == 4


def test_blanks_around_the_names_of_parquet_columns_do_not_matter(tmp_path):
    pq.write_table(pa.table({" b ": ["y"], "a": ["x"], "c ": ["z"]}), tmp_path / "t.parquet")
    assert load_corpus(tmp_path / "t.parquet").sentences == (("x",), ("y",), ("z",))
    chosen = load_corpus(tmp_path / "t.parquet", languages=["c", "b"])
    assert chosen.sentences == (("z",), ("y",))


def test_damaged_text_of_a_parquet_file_is_noticed(tmp_path):
    path = tmp_path / "t.parquet"
    how = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(pa.table({"a": ["one"], "b": ["eins"]}), path, write_page_checksum=True, **how)
    path.write_bytes(path.read_bytes().replace(b"eins", b"zwei"))
    refused("is no readable Parquet file: .*checksum", path)


def test_parquet_strings_of_every_kind(tmp_path):
    kinds = {"a": pa.large_string(), "b": pa.dictionary(pa.int8(), pa.string()), "c": pa.string()}
    table = pa.table({name: pa.array(["x", "y"]).cast(kind) for name, kind in kinds.items()})
    pq.write_table(table, tmp_path / "t.parquet")
    assert load_corpus(tmp_path / "t.parquet").sentences == (("x", "y"),) * 3


def test_many_faults_make_a_short_message(tmp_path):
    path = write(tmp_path / "t.tsv", {"a": ["x"] * 500, "b": [""] * 499 + ["y"]})
    assert len(str(refused("and 491 more", path))) < 500


def test_ends_of_lines_and_marks_do_not_matter(save):
    for text in (TEXT["csv"].replace("\n", "\r\n"), "\ufeff" + TEXT["csv"], TEXT["csv"] + "\n,\n"):
        assert load_corpus(save("t.csv", text)).texts == ("Eins.", "Zwei.", "One.", "Two, too.")


def test_csv_cells_may_hold_line_breaks(save):
    corpus = load_corpus(save("t.csv", 'a,b\n"One\ntwo",x\nThree,y\n'))
    assert corpus.sentences == (("One\ntwo", "Three"), ("x", "y"))


def test_tsv_keeps_quotes_and_says_so(save):
    corpus = load_corpus(save("t.tsv", 'a\tb\n"Hi," she said.\tx\n"Quoted."\ty\n'))
    assert corpus.sentences[0] == ('"Hi," she said.', '"Quoted."')
    assert corpus.notes == (
        "1 cells begin and end with a double quote, which a .tsv file keeps as text",
    )
