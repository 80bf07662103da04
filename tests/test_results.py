"""The result: its columns, its files and what a failure leaves behind."""

import errno
import json
import os
import shutil
from collections import namedtuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import RECORD, make_result

from ilo_fast import plots, results
from ilo_fast.errors import InputError
from ilo_fast.results import COLUMNS, Result, read_parquet
from ilo_fast.tables import write_parquet

CONTRACT = [
    "model",
    "layer",
    "language",
    "n_points",
    "k",
    "threshold",
    "metric",
    "bridge",
    "reach",
    "reach_count",
    "ilo",
    "translation_hit",
    "same_language",
    "certified",
]
FILES = ["languages.png", "layers.png", "run.json", "scores.csv", "scores.parquet"]


def test_columns_are_the_contract():
    assert list(COLUMNS) == CONTRACT
    assert list(make_result().to_pandas().columns) == CONTRACT


def test_to_pandas_is_a_copy():
    result = make_result()
    copy = result.to_pandas()
    copy["ilo"] = -1.0
    assert (result.table["ilo"] >= 0).all()


def test_parquet_round_trip(tmp_path):
    result = make_result()
    path = result.write_parquet(tmp_path / "deep" / "r.parquet")
    back = Result.read_parquet(path)
    pd.testing.assert_frame_equal(back.table, result.table, check_exact=True)
    assert back.record == result.record
    assert json.loads(pq.read_schema(path).metadata[b"ilo_fast"]) == result.record


def test_csv_round_trip(tmp_path):
    result = make_result()
    path = result.write_csv(tmp_path / "deep" / "r.csv")
    pd.testing.assert_frame_equal(
        pd.read_csv(path, engine="pyarrow"), result.table, check_exact=True
    )


@settings(max_examples=20, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])), st.integers() | st.text("aé'\"\n")
    ),
)
def test_any_name_and_record_round_trip(tmp_path_factory, model, record):
    result = Result(make_result(model=model).table, record)
    back = read_parquet(result.write_parquet(tmp_path_factory.mktemp("r") / "r.parquet"))
    assert back.model == model
    assert back.record == record


def test_files_have_fixed_types_and_csv_all_digits(tmp_path):
    result = make_result()
    result.save(tmp_path, plots=False)
    schema = pq.read_schema(tmp_path / "scores.parquet")
    kinds = {"string": 3, "int64": 5, "double": 6}
    found = [str(schema.field(name).type) for name in CONTRACT]
    assert {kind: found.count(kind) for kind in kinds} == kinds
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "scores.csv", engine="pyarrow"),
        result.table,
        check_exact=True,
        check_dtype=False,
    )


def test_save_writes_the_five_files(tmp_path):
    paths = make_result().save(tmp_path / "out")
    assert [path.name for path in paths] == FILES
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    for name in ("layers.png", "languages.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert record["timeline"]["files"] > 0
    assert read_parquet(tmp_path / "out" / "scores.parquet").record == record


def run_of(finished, metrics=()):
    """A result of its own run, with the companion tables of ``metrics``."""
    made = make_result()
    record = {**made.record, "finished": finished, "options": {"metrics": list(metrics)}}
    table = pd.DataFrame({"layer": [0]})
    return Result(made.table, record, dict.fromkeys(metrics, table))


def test_another_run_leaves_nothing_of_the_one_before(tmp_path):
    run_of("12:00", ["pair_metrics", "neighbors"]).save(tmp_path)
    for name in ("notes.txt", "trace.json", "layers.svg", "mine.parquet"):
        (tmp_path / name).write_text("mine")
    foreign = {"notes.txt", "trace.json", "layers.svg", "mine.parquet"}
    (tmp_path / "trace.json.gz").write_text("of the run before")
    assert {"neighbors.parquet", "pair_metrics.csv"} <= {path.name for path in tmp_path.iterdir()}
    run_of("13:00", ["pair_metrics"]).save(tmp_path, plots=False)
    scores = {"run.json", "scores.csv", "scores.parquet"}
    tables = {"pair_metrics.parquet", "pair_metrics.csv"}
    assert {path.name for path in tmp_path.iterdir()} == scores | tables | foreign


def test_the_same_run_saved_again_keeps_its_files(tmp_path):
    run_of("12:00", ["pair_metrics"]).save(tmp_path)
    before = {path.name for path in tmp_path.iterdir()}
    read_parquet(tmp_path / "scores.parquet").save(tmp_path, plots=False)
    assert {path.name for path in tmp_path.iterdir()} == before


def test_files_of_a_folder_without_a_run_are_not_ours(tmp_path):
    (tmp_path / "neighbors.csv").write_text("mine")
    (tmp_path / "layers.png").write_text("mine")
    run_of("12:00").save(tmp_path, plots=False)
    assert (tmp_path / "neighbors.csv").read_text() == "mine"
    assert (tmp_path / "layers.png").read_text() == "mine"


def test_save_leaves_the_record_alone(tmp_path):
    result = make_result()
    result.save(tmp_path, plots=False)
    assert result.record == RECORD


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["write_parquet", "csv", "replace_none"])
def test_a_failure_while_writing_keeps_the_old_files(tmp_path, monkeypatch, error, step):
    make_result(seed=1).save(tmp_path, plots=False)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*args, **kwargs):
        raise error

    if step == "csv":
        monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    elif step == "write_parquet":

        def half(table, record, path, types):
            path.write_bytes(b"PAR1 half of it")
            raise error

        monkeypatch.setattr(results, "write_parquet", half)
    else:
        monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(type(error)):
        make_result(seed=2).save(tmp_path, plots=False)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_whose_name_is_no_utf8_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"^folder: expected a name in UTF-8, got '.*o\\udcff'"):
        make_result().save(tmp_path / "o\udcff")
    assert list(tmp_path.iterdir()) == []


def test_too_little_space_is_said_before_the_first_byte(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    with pytest.raises(InputError, match=r"not enough disk space for .*new.*: about .* MiB needed"):
        make_result().save(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_layers_are_means_over_languages():
    result = make_result(layers=2)
    means = result.layers()
    assert list(means.columns) == [
        "model",
        "layer",
        "languages",
        "bridge",
        "reach",
        "ilo",
        "translation_hit",
        "same_language",
        "certified",
    ]
    for layer in (0, 1):
        part = result.table[result.table["layer"] == layer]
        row = means[means["layer"] == layer].iloc[0]
        assert row["languages"] == 3
        for column in ("bridge", "reach", "ilo", "translation_hit", "same_language", "certified"):
            assert row[column] == pytest.approx(sum(part[column]) / 3, rel=1e-15)


def test_layers_of_a_training_keep_its_steps_apart():
    parts = [make_result(layers=2, seed=seed).table.assign(step=10 * seed) for seed in (0, 1)]
    means = Result(pd.concat(parts, ignore_index=True), {}).layers()
    assert means[["step", "layer"]].to_numpy().tolist() == [[0, 0], [0, 1], [10, 0], [10, 1]]
    assert means["ilo"].tolist() == [
        *make_result(layers=2).layers()["ilo"],
        *make_result(layers=2, seed=1).layers()["ilo"],
    ]


def test_bad_tables_and_records():
    table = make_result().table
    with pytest.raises(InputError, match="must begin with the columns"):
        Result(table.drop(columns="ilo"), {})
    with pytest.raises(TypeError, match=r"table must be a pandas\.DataFrame, got list"):
        Result([], {})
    with pytest.raises(TypeError, match="record must be a dict, got list"):
        Result(table, [])
    both = pd.concat([table, make_result(model="other").table])
    with pytest.raises(InputError, match=r"exactly one model, it holds \['tiny', 'other'\]"):
        _ = Result(both, {}).model


def test_rows_that_are_there_twice_are_named(tmp_path):
    table = make_result().table
    twice = Result(pd.concat([table, table.iloc[2:4]]), {})
    second = table.iloc[2]
    message = rf"it holds 2 of layer {second['layer']} of {second['language']} \(and 1 more"
    with pytest.raises(ValueError, match=message):
        twice.save(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    for draw in (plots.layers, plots.languages):
        with pytest.raises(InputError, match=message):
            draw(twice)


def test_files_that_are_no_result(tmp_path):
    with pytest.raises(InputError, match="no result file at"):
        read_parquet(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(InputError, match="is not a Parquet file"):
        read_parquet(tmp_path / "text.parquet")
    (tmp_path / "text.csv").write_text("hello")
    with pytest.raises(InputError, match=r"text\.csv' holds no run record; give .*text\.parquet'"):
        read_parquet(tmp_path / "text.csv")
    (tmp_path / "alone.csv").write_text("hello")
    with pytest.raises(InputError, match=r"alone\.csv' is not a Parquet file"):
        read_parquet(tmp_path / "alone.csv")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match="holds no ilo_fast run record"):
        read_parquet(tmp_path / "other.parquet")
    write_parquet(pd.DataFrame({"layer": [0], "mrr": [0.5]}), {}, tmp_path / "beside.parquet")
    with pytest.raises(InputError, match=r"beside.parquet' is no .* lacks the columns model, "):
        read_parquet(tmp_path / "beside.parquet")


def rewritten(path, change=lambda table: table, **metadata):
    """A result's file with another table or other metadata."""
    table = pq.read_table(path)
    said = {**table.schema.metadata, **{name.encode(): text for name, text in metadata.items()}}
    pq.write_table(change(table).replace_schema_metadata(said), path)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b'{"seed": ', "its run record is no JSON: "),
        (b"\xff{}", "its run record is no JSON: "),
        pytest.param(b"[" * 100_000, "its run record is no JSON: ", id="nested"),
        (b"[]", r"its run record cannot be \[\]"),
        (b'{"corpus": "text"}', "its run record's corpus cannot be 'text'"),
        (b'{"options": [1]}', r"its run record's options cannot be \[1\]"),
        (b'{"scan": {"model": 3, "revision": ""}}', "its run record's scan cannot be "),
        (b'{"record": "1"}', "its run record's version cannot be '1'"),
    ],
)
def test_a_damaged_record_is_named(tmp_path, record, message):
    path = make_result().write_parquet(tmp_path / "r.parquet")
    rewritten(path, ilo_fast=record)
    with pytest.raises(InputError, match=rf"r\.parquet' is damaged: {message}"):
        read_parquet(path)


def test_what_pandas_said_of_columns_decides_nothing(tmp_path):
    path = make_result().write_parquet(tmp_path / "r.parquet")
    rewritten(path, pandas=b'{"columns": [1.5], "index_columns": 7}')
    pd.testing.assert_frame_equal(read_parquet(path).table, make_result().table)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.append_column("ilo", t["ilo"]), "column 'ilo' more than once|FieldRef"),
        (lambda t: t.set_column(1, "layer", t["layer"].cast("string")), "layer must be of type"),
        (lambda t: t.set_column(1, "layer", pa.nulls(len(t), "int64")), "layer lacks values"),
        (lambda t: t.set_column(7, "bridge", pa.array([[0.5]] * len(t))), "bridge must be of"),
        (lambda t: t.append_column("step", pa.nulls(len(t), "int64")), "step must hold whole"),
    ],
)
def test_damaged_columns_are_named(tmp_path, change, message):
    path = make_result().write_parquet(tmp_path / "r.parquet")
    rewritten(path, change)
    with pytest.raises(InputError, match=rf"r\.parquet' .*({message})"):
        read_parquet(path)


def test_a_bit_that_turned_is_noticed_or_means_nothing(tmp_path):
    path = make_result().write_parquet(tmp_path / "r.parquet")
    whole, table = path.read_bytes(), read_parquet(path).table
    column = pq.read_metadata(path).row_group(0).column(COLUMNS.index("ilo"))
    noticed = 0
    for place in range(column.dictionary_page_offset, column.data_page_offset):
        data = bytearray(whole)
        data[place] ^= 4
        path.write_bytes(data)
        try:
            pd.testing.assert_frame_equal(read_parquet(path).table, table, check_exact=True)
        except InputError as error:
            assert "r.parquet' is " in str(error)  # noqa: PT017
            noticed += 1
    assert noticed > 8  # a number alone has as many bytes


def test_a_pipe_is_no_result(tmp_path):
    os.mkfifo(tmp_path / "pipe.parquet")
    with pytest.raises(InputError, match=r"pipe\.parquet' is a pipe or a device, expected a file"):
        read_parquet(tmp_path / "pipe.parquet")
    os.mkfifo(tmp_path / "run.json")  # in a folder of results
    make_result().save(tmp_path, plots=False)
    assert json.loads((tmp_path / "run.json").read_text()) is not None


def test_a_folder_in_the_place_of_a_file_leaves_the_earlier_run_whole(tmp_path):
    make_result().save(tmp_path, plots=False)
    (tmp_path / "scores.parquet").unlink()
    (tmp_path / "scores.parquet").mkdir()
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.[cj]s*")}
    other = Result(make_result().table.assign(ilo=0.25), {"seed": 1})
    with pytest.raises(InputError, match=r"scores\.parquet' is a folder, where a file is to be"):
        other.save(tmp_path, plots=False)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.[cj]s*")} == before
    assert len(before) == 2


def test_a_record_of_a_later_version_is_refused(tmp_path):
    table = make_result().table
    for version in (1, 2):
        Result(table, {"record": version}).write_parquet(tmp_path / f"{version}.parquet")
    assert read_parquet(tmp_path / "1.parquet").record == {"record": 1}
    with pytest.raises(InputError, match=r"2.parquet' was written by a later .* has version 2, "):
        read_parquet(tmp_path / "2.parquet")


def test_a_record_json_cannot_hold_is_an_error(tmp_path):
    result = Result(make_result().table, {"loss": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        result.write_parquet(tmp_path / "r.parquet")
    assert list(tmp_path.iterdir()) == []
    for record in ({"loss": float("nan")}, {"name": "\ud800"}):
        with pytest.raises(ValueError, match="record must hold nothing that JSON cannot"):
            Result(make_result().table, record).save(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_numbers_of_numpy_in_a_record_are_numbers(tmp_path):
    result = Result(make_result().table, {"seed": np.int64(3), "loss": np.float32(0.5)})
    result.save(tmp_path, plots=False)
    assert json.loads((tmp_path / "run.json").read_text())["seed"] == 3
    assert read_parquet(tmp_path / "scores.parquet").record["loss"] == 0.5
