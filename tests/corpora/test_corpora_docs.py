"""docs/corpora.md: its example files are loaded as real files, its Python is run."""

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ilo_fast import load_corpus

PAGE = Path(__file__).parents[2] / "docs" / "corpora.md"
EXPECTED = (("Guten Morgen.", "Die Suppe ist kalt."), ("Good morning.", "The soup is cold."))


@pytest.fixture(scope="module")
def page():
    return PAGE.read_text(encoding="utf-8")


@pytest.fixture
def examples(page, tmp_path):
    files = re.findall(r"^`([\w.]+)`\n\n```text\n(.*?)```", page, flags=re.MULTILINE | re.DOTALL)
    for name, content in files:
        (tmp_path / name).write_text(content, encoding="utf-8")
    assert len(files) == 5
    return tmp_path


def test_the_folder_of_the_page(examples):
    corpus = load_corpus(examples)
    assert corpus.languages == ("deu_Latn", "eng_Latn")
    assert corpus.sentences == EXPECTED


def test_the_tables_of_the_page(examples):
    columns = dict(zip(("deu_Latn", "eng_Latn"), EXPECTED, strict=True))
    pq.write_table(pa.table(columns), examples / "table.parquet")
    for kind in ("tsv", "csv", "jsonl", "parquet"):
        corpus = load_corpus(examples / f"table.{kind}")
        assert corpus.sentences == EXPECTED, kind
        assert corpus.sha256 == load_corpus(examples).sha256


def test_the_python_of_the_page_runs(page, capsys):
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 3
    scope = {}
    for block in blocks:
        exec(block, scope)
        if "print(" in block:
            said = re.findall(r"print\(.*\)  # (.*)", block)
            assert capsys.readouterr().out.splitlines() == said
    assert scope["corpus"].n_points == 2


def test_the_columns_left_out_are_those_of_the_page(page):
    from ilo_fast.corpora.table import ID_COLUMNS

    for name in ID_COLUMNS:
        if name.isidentifier() and not name.startswith("__"):
            assert f"`{name}`" in page
