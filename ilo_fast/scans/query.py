"""Reading a results folder: pandas tables, and SQL by DuckDB."""

import json
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from ilo_fast.arguments import check_choice
from ilo_fast.errors import InputError
from ilo_fast.scans.dataset import Dataset, read_cell, read_rows
from ilo_fast.scans.tables import SCHEMAS

__all__ = ["VIEWS", "connect", "query", "read_table"]

_FORMAT = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)

VIEWS = ("scores", "layers", "languages", "pairs", "neighbors", "failures", "runs")
"""What queries may read."""

_CELL = "model, revision, corpus, pool, dtype, metric, k, threshold"
_LANGUAGES = f"""
    select {_CELL}, language, any_value(n_points) as n_points, avg(ilo) as ilo_mean,
           max(ilo) as ilo_peak, arg_max(layer, ilo order by layer) as layer_peak,
           avg(bridge) as bridge, avg(reach) as reach, avg(translation_hit) as translation_hit,
           avg(same_language) as same_language, key
    from scores group by {_CELL}, key, language order by {_CELL}, key, language
"""  # by key too: dtype auto and the one that it stood for, where a configuration names none, are
# two results of equal columns


def connect(folder: str | Path) -> Any:
    """A DuckDB connection, in memory, with `VIEWS` over a results folder.

    SQL run on it reads these tables and nothing else: no files, no network, no extensions.
    """
    dataset = Dataset(folder)
    try:
        import duckdb
    except ImportError as error:
        raise InputError(
            "query: DuckDB is not installed; install it with: pip install 'ilo-fast[scan]'"
        ) from error
    connection = duckdb.connect(":memory:", config={"python_enable_replacements": False})
    for table in SCHEMAS:
        rows = connection.from_arrow(_files(dataset, table))
        if table not in ("scores", "failures"):
            # A cell's other tables count once its scores are there, which are written last.
            rows = rows.filter("key in (select key from scores)")
        rows.create_view(table)
    connection.execute(f"create view languages as {_LANGUAGES}")
    connection.register("runs", _runs(dataset))
    connection.execute("set enable_external_access = false")
    connection.execute("set lock_configuration = true")
    return connection


def query(folder: str | Path, sql: str) -> pd.DataFrame:
    """Run one SQL statement over a results folder.

    Raises InputError with DuckDB's words on SQL that cannot be run, and on none or several.
    """
    connection = connect(folder)
    import duckdb

    try:
        statements = connection.extract_statements(sql)
        if len(statements) != 1:
            raise InputError(f"query: expected one SQL statement, got {len(statements)}")
        return _answer(connection, statements[0])
    except duckdb.Error as error:
        if "Arrow" in str(error):  # it says what is damaged, but not which file
            for table in SCHEMAS:
                for path in Dataset(folder).files(table):
                    read_rows(path, table)
        raise InputError(f"query: {error}") from error
    finally:
        connection.close()


def read_table(folder: str | Path, table: str = "scores") -> pd.DataFrame:
    """One of `VIEWS` as a pandas table."""
    check_choice(table, "table", VIEWS)
    return query(folder, f"select * from {table}")


def _answer(connection: Any, statement: Any) -> pd.DataFrame:
    """In a thread of its own: what DuckDB does of Ctrl-C itself may wait for the query's end."""
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(lambda: _to_pandas(connection.execute(statement)))
        try:
            return answer.result()
        except KeyboardInterrupt:
            while not answer.done():  # an interrupt before the query runs would be lost
                connection.interrupt()
                wait([answer], timeout=0.1)
            raise


def _to_pandas(answer: Any) -> pd.DataFrame:
    kinds = [str(column[1]) for column in answer.description or ()]
    found: pd.DataFrame = answer.df()
    for column, kind in zip(found.columns, kinds, strict=True):
        # what DuckDB sums integers to, and pandas has as float64
        if kind == "HUGEINT" and (found[column].abs() < 2**53).all():
            found[column] = found[column].astype("int64")
    return found


def _files(dataset: Dataset, table: str) -> Any:
    paths = [str(path) for path in dataset.files(table)]
    if not paths:
        return SCHEMAS[table].empty_table()
    for path in dataset.files(table):
        read_cell(path, table)  # a column that is not there would be empty
    return ds.dataset(paths, schema=SCHEMAS[table], format=_FORMAT)


def _runs(dataset: Dataset) -> pa.Table:
    """One row a result: its key, its run record as JSON, its file of scores."""
    rows = []
    for path in dataset.files("scores"):
        cell, record = read_cell(path, "scores")
        text = json.dumps(record, ensure_ascii=False)
        rows.append({"key": cell["key"], "record": text, "file": str(path)})
    columns = ("key", "record", "file")
    return pa.Table.from_pylist(rows, pa.schema(dict.fromkeys(columns, pa.string())))
