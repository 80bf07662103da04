"""What a comparison reads: tables and lists that are damaged, lacking or not of one run."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from made_results import result, store

from ilo_fast.compare import compare
from ilo_fast.errors import InputError
from ilo_fast.results import SCHEMA, Result
from ilo_fast.sources import from_result, read_sources
from ilo_fast.stored import score_states
from ilo_fast.tables import read_table, write_parquet


def test_unusable_tables_and_numbers():
    with pytest.raises(InputError, match="needs two results or more, or one table of a training"):
        compare([from_result(result())])
    with pytest.raises(InputError, match="something to compare, got nothing"):
        compare([])
    table = result().table
    mixed = table.assign(k=np.where(table["layer"] == 0, 4, 5))
    with pytest.raises(InputError, match=r"must hold one k, it holds \[4, 5\]"):
        from_result(Result(mixed, {}), "x")
    with pytest.raises(InputError, match="x: the table holds layer 0 of eng_Latn more than once"):
        from_result(Result(pd.concat([table, table]), {}), "x")
    with pytest.raises(InputError, match="x: the table lacks bridge of some layers"):
        from_result(Result(table.drop(index=3), {}), "x")
    two = [from_result(result()), from_result(result())]
    with pytest.raises(InputError, match="level must lie between 0 and 1"):
        compare(two, level=1.0)
    with pytest.raises(TypeError, match="level must be a number; got '95 %'"):
        compare(two, level="95 %")
    with pytest.raises(InputError, match="samples must be at least 1"):
        compare(two, samples=0)
    with pytest.raises(InputError, match=r"seed must be at least 0 and below .*; got -1"):
        compare(two, seed=-1)


def test_depths_that_cannot_be():
    for depth in (2, -1, "4", 4.0, None):
        record = {"model": {"n_layers": depth}}
        with pytest.raises(InputError, match=r"x: the table holds layers 0 to 3, its model has "):
            from_result(Result(result().table, record), "x")
    deep = Result(result(0.1).table, {"model": {"n_layers": 10**15}})  # no list of all its layers
    found = compare([from_result(result(), "a"), from_result(deep, "b")])
    assert any("b does not hold all its layers" in note for note in found.record["notes"])


def test_an_empty_table_is_named(tmp_path):
    for name, columns in (("scores", {}), ("alignment", {"step": 0})):
        path = tmp_path / f"{name}.parquet"
        Result(result().table.assign(**columns).iloc[:0], {}).write_parquet(path)
        with pytest.raises(InputError, match=rf"{name}\.parquet' holds no scores"):
            read_sources(path)


def with_lists(folder):
    """A result with neighbour lists and metrics of its layers."""
    scored = score_states(
        store(sentences=10), k=3, threshold=2, metrics="neighbors,intervals,pairs,fragments"
    )
    scored.save(folder, plots=False)
    return folder


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("neighbors", lambda t: t.drop(columns="neighbors"), "lacks the columns neighbors"),
        ("neighbors", lambda t: t.iloc[1:], "it has 149 rows"),
        ("neighbors", lambda t: t.assign(layer=t["layer"] + 1), r"it has the layers \[1, 2, 3\]"),
        ("neighbors", lambda t: t.assign(point=0), "some points are not there"),
        ("neighbors", lambda t: t.assign(point=t["point"].astype(str)), "point must be of type"),
        ("neighbors", lambda t: t.assign(neighbors=[[0, 1]] * len(t)), "neighbors must be of type"),
        ("neighbors", lambda t: with_list(t, [1, 2]), "some lists are not of 3"),
        ("neighbors", lambda t: with_list(t, [1, 2, 50]), "some neighbours are none of the points"),
        ("neighbors", lambda t: with_list(t, [1, 2, -1]), "some neighbours are none of the points"),
        ("neighbors", lambda t: with_list(t, None), "neighbors lacks values"),
        ("layer_metrics", lambda t: t.iloc[1:], r"its layers must be \[0, 1, 2\]"),
        ("layer_metrics", lambda t: pd.concat([t, t]), r"its layers must be \[0, 1, 2\]"),
        ("layer_metrics", lambda t: t.drop(columns="reach_low"), "lacks the column reach_low"),
        ("pair_metrics", lambda t: t.assign(share="x"), "its column share must hold numbers"),
        ("language_metrics", lambda t: t.drop(columns="layer"), "lacks the columns layer"),
    ],
)
def test_a_damaged_table_beside_scores_is_named(tmp_path, name, change, message):
    path = with_lists(tmp_path) / f"{name}.parquet"
    table, record = read_table(path)
    types = {"neighbors": pa.list_(pa.int32())} if message.startswith("some") else {}
    write_parquet(change(table), record, path, types if name == "neighbors" else {})
    with pytest.raises(InputError, match=rf"{name}\.parquet' .*{message}"):
        read_sources(tmp_path)


def with_list(table, neighbors):
    lists = [np.asarray(one, dtype=np.int32) for one in table["neighbors"]]
    lists[5] = neighbors if neighbors is None else np.array(neighbors, dtype=np.int32)
    return table.assign(neighbors=lists)


def test_points_of_any_number_take_no_memory(tmp_path):
    path = with_lists(tmp_path) / "scores.parquet"
    table, record = read_table(path)
    write_parquet(table.assign(n_points=1 << 50), record, path, SCHEMA)
    with pytest.raises(InputError, match=r"neighbors\.parquet' must hold 3 neighbours of "):
        read_sources(tmp_path)


def test_folders_that_hold_nothing(tmp_path):
    with pytest.raises(InputError, match=r"holds neither scores\.parquet"):
        read_sources(tmp_path)
    with pytest.raises(InputError, match="no result file at"):
        read_sources(tmp_path / "none.parquet")
