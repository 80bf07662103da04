"""What a comparison reads: tables and lists that are damaged, lacking or not of one run."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from made_results import result, store

from ilo_fast import knn, score
from ilo_fast.compare import compare
from ilo_fast.errors import InputError
from ilo_fast.results import SCHEMA, Result
from ilo_fast.sources import (
    from_result,
    from_states_beside,
    from_store,
    read_inputs,
    read_sources,
)
from ilo_fast.stored import about, score_states
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


def test_states_are_searched_as_asked_for():
    kept = store()
    source = from_store(
        kept, "a", k=4, threshold=2, metric="euclidean", layers=[2, 0], backend="reference"
    )
    assert (source.layers, source.depth) == ((0, 2), 2)
    assert (source.record["model"], source.record["corpus"]) == about(kept, "a")
    how = ("k", "threshold", "metric", "pool")
    assert [source.settings[name] for name in how] == [4, 2, "euclidean", "mean"]
    for layer, lists in zip(source.layers, source.lists, strict=True):
        expected = knn(kept.states[layer], 4, metric="euclidean").indices
        np.testing.assert_array_equal(lists, expected)


def test_neighbours_are_found_again_by_the_backend_of_the_scores():
    for options in ({"reference": True}, {"backend": "reference"}, {"backend": "torch"}, {}):
        [source] = from_result(Result(result().table, {"options": options}), "a")
        assert source.backend == ("reference" if "reference" in str(options) else "auto")


def test_states_beside_scores_are_those_of_the_run(tmp_path, tiny_model, corpus_folder):
    kept = tmp_path / "kept"
    scored = score(tiny_model, corpus_folder, k=4, states=kept, layers="1:")
    [source] = from_result(scored, "a")
    with_states = from_states_beside(source, kept)
    assert from_states_beside(with_states, kept) is with_states
    assert with_states.states.layers == with_states.layers == (1, 2, 3)
    assert with_states.settings["k"] == 4
    wider = replace(source, layers=(0, 1, 2, 3))
    for other, change in (
        (wider, {}),
        (source, {"corpus": "of another text"}),
        (source, {"pool": "last"}),
    ):
        other = replace(other, settings={**other.settings, **change})
        with pytest.raises(InputError, match="the hidden states are of another run than the score"):
            from_states_beside(other, kept)
    trained = {**source.record, "model": {**source.record["model"], "weights_sha256": "ab"}}
    with pytest.raises(InputError, match="the hidden states are of another run than the scores"):
        from_states_beside(replace(source, record=trained), kept)


def test_states_are_scored_as_the_tables_among_them(tmp_path, tiny_model, corpus_folder):
    kept, made = tmp_path / "kept", tmp_path / "made.parquet"
    options = {"k": 4, "threshold": 2, "metric": "euclidean"}
    score(tiny_model, corpus_folder, states=kept, **options).write_parquet(made)

    def settings(paths, **given):
        found = [source for sources in read_inputs(paths, **given) for source in sources]
        return [{name: source.settings[name] for name in options} for source in found]

    assert settings([kept, made]) == [options, options]
    assert settings([kept, kept]) == [{"k": 5, "threshold": 3, "metric": "cosine"}] * 2
    assert settings([kept], **options) == [options]
    for name, value in (("k", 3), ("threshold", 1), ("metric", "cosine")):
        with pytest.raises(InputError, match=f"{name}: made was scored with {options[name]}"):
            read_inputs([kept, made], **{name: value})
