"""Scans in this process: what they compute, skip, survive and refuse."""

import errno
import json
import multiprocessing
import os
import re
import shutil
import signal
from collections import namedtuple
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from changes import change

from ilo_fast import plots, scan, score
from ilo_fast.compare import compare
from ilo_fast.errors import InputError
from ilo_fast.results import COLUMNS, read_parquet
from ilo_fast.scans import query, read_table
from ilo_fast.scans.dataset import Dataset, read_cell
from ilo_fast.scans.jobs import plan_jobs
from ilo_fast.scans.plan import PlanError, read_plan
from ilo_fast.scans.report import report_data
from ilo_fast.scans.tables import CELL_KEY
from ilo_fast.scans.view import View
from ilo_fast.sources import read_sources


def test_a_scan_is_its_models_scored_one_by_one(run, plan, models, corpus_folder, tmp_path):
    summary = run(
        defaults={**plan["defaults"], "metrics": ["cosine", "euclidean"], "keep_neighbors": True}
    )
    assert (summary.computed, summary.failed, summary.skipped) == (2, 0, 0)
    table = summary.to_pandas()
    assert list(table.columns[: len(COLUMNS)]) == list(COLUMNS)
    for name in ("step9", "step10"):
        for metric in ("cosine", "euclidean"):
            alone = score(
                models / name, corpus_folder, k=3, threshold=2, limit=5, metric=metric
            ).table
            rows = table[table["model"].str.endswith(name) & (table["metric"] == metric)]
            rows = rows.sort_values(["layer", "language"], ignore_index=True)
            alone = alone.sort_values(["layer", "language"], ignore_index=True)
            for column in COLUMNS[1:]:
                assert rows[column].tolist() == alone[column].tolist(), column
    assert (table["ilo_low"] <= table["ilo_high"]).all()
    layers, pairs = summary.to_pandas("layers"), summary.to_pandas("pairs")
    means = table.groupby(["model", "metric", "layer"])["ilo"].mean().tolist()
    ordered = layers.sort_values(["model", "metric", "layer"])
    np.testing.assert_allclose(ordered["ilo"].tolist(), means, rtol=1e-12)
    assert layers["ilo_null"].between(0, 1).all()
    assert (layers["layers"] == 3).all()
    own = pairs[pairs["language"] == pairs["other"]]
    merged = own.merge(table, on=["model", "metric", "layer", "language"])
    np.testing.assert_allclose(merged["share"], merged["same_language"], rtol=1e-12)
    lists = summary.to_pandas("neighbors")
    assert len(lists) == 2 * 2 * 4 * 20
    assert lists["neighbors"].map(len).eq(3).all()
    assert len(summary.to_pandas("languages")) == 2 * 2 * 4
    # One line of pandas, and a file is a Result of its own.
    assert len(pd.read_parquet(tmp_path / "out" / "scores")) == len(table)
    one = read_parquet(next((tmp_path / "out" / "scores").rglob("*.parquet")))
    assert one.record["scan"]["options"]["k"] == 3


def test_a_second_scan_does_what_is_missing_or_changed(run, plan, models):
    run()
    again = run()
    assert (again.computed, again.skipped, again.reasons) == (0, 2, {})
    change(models / "step9", 3.0)
    changed = run()
    assert (changed.computed, changed.skipped) == (1, 1)
    assert changed.reasons == {"changed: model": 1}
    text = (models / "step10" / "tokenizer.json").read_text()
    (models / "step10" / "tokenizer.json").write_text(text + "\n")
    assert run().reasons == {"changed: model, tokenizer": 1}
    assert run(defaults={**plan["defaults"], "permutations": 5}).reasons == {
        "changed: option permutations": 2
    }
    summary = run(defaults={**plan["defaults"], "permutations": 5, "k": 4})
    assert summary.reasons == {"new": 2}
    table = summary.to_pandas()
    assert sorted(table["k"].unique()) == [3, 4]
    keys = ["model", "corpus", "k", "layer", "language"]
    assert not table.duplicated(keys).any()
    # Another name of the same dtype is no other result.
    options = {**plan["defaults"], "permutations": 5, "k": 4, "dtype": "float32"}
    assert (run(defaults=options).computed, len(run().to_pandas())) == (0, len(table))
    # Another metric is another cell: the first one stays as it is.
    more = run(defaults={**plan["defaults"], "permutations": 5, "metrics": ["cosine", "euclidean"]})
    assert more.computed == 2
    assert more.to_pandas()["metric"].value_counts().to_dict() == {"cosine": 64, "euclidean": 32}


def test_the_record_of_a_result_says_what_the_scan_was_to_do(run, models, tmp_path):
    run(models=[{"model": str(models / "step9"), "name": "mine"}])
    (path,) = (tmp_path / "out" / "scores").rglob("*.parquet")
    told = read_cell(path, "scores")[1]["scan"]
    options = told.pop("options")
    assert told == {
        "model": "mine", "revision": "", "corpus": "text", "target": str(models / "step9"),
        "commit": None,
    }  # fmt: skip
    assert (options["metric"], options["k"], options["batch_tokens"]) == ("cosine", 3, "auto")


def test_a_key_of_equal_parts_has_a_reason_too(run, plan, tmp_path):
    """As versions wrote them that made keys of other things."""
    run(models=plan["models"])
    for path in (tmp_path / "out" / "scores").rglob("*.parquet"):
        table = pq.read_table(path)
        told = json.loads(table.schema.metadata[CELL_KEY])
        metadata = {**table.schema.metadata, CELL_KEY: json.dumps({**told, "key": "0" * 32})}
        pq.write_table(table.replace_schema_metadata(metadata), path)
    assert run().reasons == {"changed: what a key is made of": 2}


def test_results_of_a_scan_are_compared_by_name_with_the_lists_that_were_kept(
    run, plan, models, tmp_path
):
    run(
        models=[{"model": str(models), "name": "org/run", "revisions": ["step*"]}],
        defaults={**plan["defaults"], "keep_neighbors": True},
    )
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"is a scan's folder of results: give the \.parquet") as e:
        read_sources(out)
    found = query(out, re.search(r'"(select .*)"', str(e.value)).group(1))
    files = dict(zip(found["revision"], found["file"], strict=True))
    one, other = [read_sources(files[name]) for name in ("step9", "step10")]
    compared = compare([one, other], samples=5)
    assert compared.pairs() == [("run@step9", "run@step10")]
    assert set(compared.table["over"]) == {"sentences"}
    kept = read_table(out, "neighbors").query("revision == 'step9'").sort_values(["layer", "point"])
    assert one[0].lists.reshape(-1, 3).tolist() == [row.tolist() for row in kept["neighbors"]]
    assert plots.layers(one[0].result).get_title(loc="left").startswith("run@step9, text\n")
    [alone] = read_sources(shutil.copy(files["step9"], tmp_path / "alone.parquet"))
    assert (alone.name, alone.lists) == ("run@step9", None)


def test_equal_files_under_two_names_have_keys_of_their_own(run, models):
    """Such as a branch and the tag of its last step: tables are joined by key."""
    same = str(models / "step9")
    summary = run(models=[{"model": same, "name": "main"}, {"model": same, "name": "last"}])
    assert summary.to_pandas()["key"].nunique() == 2
    joined = query(summary.folder, "select model from layers join runs using (key)")
    assert joined["model"].value_counts().to_dict() == {"main": 4, "last": 4}


def test_lists_that_are_no_longer_kept_go_with_the_result_they_were_of(run, plan, tmp_path):
    run(defaults={**plan["defaults"], "keep_neighbors": True})
    assert len([*(tmp_path / "out" / "neighbors").rglob("*.parquet")]) == 2
    assert run().reasons == {"changed: option keep_neighbors": 2}
    assert [*(tmp_path / "out" / "neighbors").rglob("*.parquet")] == []


def test_files_that_were_damaged_are_made_again(run, tmp_path):
    run()
    first, second = sorted((tmp_path / "out" / "scores").rglob("*.parquet"))
    first.write_bytes(first.read_bytes()[:100])
    second.unlink()
    assert run().computed == 2
    assert len(run().to_pandas()) == 32
    for table in ("layers", "pairs"):  # which count only beside the scores
        first, second = sorted((tmp_path / "out" / table).rglob("*.parquet"))
        first.write_bytes(first.read_bytes()[:100])
        second.unlink()
        assert run().computed == 2
        assert run().computed == 0


def test_files_beside_the_scores_of_another_run_are_made_again(run, plan, tmp_path):
    run()
    run(results=tmp_path / "other", defaults={**plan["defaults"], "permutations": 5})
    first, _ = sorted((tmp_path / "other" / "layers").rglob("*.parquet"))
    shutil.copy(first, tmp_path / "out" / first.relative_to(tmp_path / "other"))
    assert (run().computed, run().computed) == (1, 0)


def test_damaged_files_are_named(run, tmp_path):
    run()
    path, _ = sorted((tmp_path / "out" / "scores").rglob("*.parquet"))
    whole = path.read_bytes()
    for damaged in (whole[:100], whole[:4] + bytes(200) + whole[204:]):  # the end; a page
        path.write_bytes(damaged)
        said = f"{path.name}' cannot be read: (?s:.*) delete it and run the scan again"
        with pytest.raises(InputError, match=said):
            report_data(tmp_path / "out")
        with pytest.raises(InputError, match=f"{path.name}' is (not a Parquet file|damaged): "):
            read_sources(path)
    path.write_bytes(whole[:100])
    with pytest.raises(InputError, match=said):
        query(tmp_path / "out", "from scores")


class Interrupter(View):
    """Sends Ctrl-C so many times when the first job starts."""

    def __init__(self, times):
        self.times, self.said = times, []

    def started(self, job, seconds):
        for _ in range(self.times):
            os.kill(os.getpid(), signal.SIGINT)
        self.times = 0

    def say(self, text):
        self.said.append(text)


def test_a_corpus_notes_are_said(run, parallel_text, tmp_path):
    text = pd.DataFrame(parallel_text)
    text.to_csv(tmp_path / "text.csv")  # with pandas' unnamed index
    corpora = [{"corpus": str(tmp_path / "text.csv"), "limit": 5}]
    note = "Note: corpus text: columns left out: ''"
    for computed in (2, 0):
        view = Interrupter(0)
        assert run(view=view, corpora=corpora).computed == computed
        assert view.said[0] == note


def clean(folder):
    return not [path for path in folder.rglob("*") if path.name.startswith(".")]


def test_ctrl_c_once_ends_after_the_job_twice_at_once(run, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    view = Interrupter(1)
    summary = run(view=view)
    assert (summary.computed, summary.stopped) == (1, True)
    assert "Ctrl-C again" in view.said[0]
    with pytest.raises(KeyboardInterrupt):
        run(view=Interrupter(2))
    assert clean(tmp_path / "out")
    assert signal.getsignal(signal.SIGINT) is before
    assert (run().computed, len(run().to_pandas())) == (1, 32)


Usage = namedtuple("Usage", "total used free")


def test_a_full_disk_is_said_before_anything_is_written(run, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(1 << 40, 1 << 40, 1000))
    with pytest.raises(InputError, match="not enough disk space"):
        run()
    assert not (tmp_path / "out").exists()


def test_a_disk_that_fills_up_under_way_stops_the_scan(run, tmp_path, monkeypatch):
    run(models=[str(tmp_path / "models" / "step9")])
    before = read_table(tmp_path / "out")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run()
    assert clean(tmp_path / "out")
    monkeypatch.undo()
    pd.testing.assert_frame_equal(read_table(tmp_path / "out"), before)


@pytest.mark.parametrize(
    "name",
    ["../../x", "/etc/passwd", "a/../../b", "..", ".", "", "a\x00b", "e\u0301\u202egnp.exe",
     "😀" * 90, "C:\\x", "-rf", "con", "a" * 300, "x\ny", "%2e%2e%2f", "A", "a"],
)  # fmt: skip
def test_names_never_leave_the_folder(plan, models, tmp_path, name):
    entry = {"model": str(models / "step9"), "name": name or " "}
    (job,) = plan_jobs(read_plan({**plan, "models": [entry]}))[0]
    dataset = Dataset(tmp_path / "deep" / "out", create=True)
    path = dataset.path("scores", job, job.cells[0].slot)
    assert path.resolve().is_relative_to(dataset.folder.resolve() / "scores")
    assert len(path.relative_to(dataset.folder).parts) == 4
    assert path.parent.parent.name.isascii()
    assert not path.parent.parent.name.startswith((".", "-"))


def test_odd_names_come_back_whole(run, models, tmp_path):
    odd = "../../x'; drop\u202e <b>😀"
    corpus = {"corpus": "demo", "name": odd, "limit": 2, "languages": ["eng_Latn", "deu_Latn"]}
    entry = {"model": str(models / "step9"), "name": odd, "truncate": True, "threshold": 1}
    summary = run(models=[entry], corpora=[corpus])
    found = summary.to_pandas()[["model", "corpus"]].drop_duplicates()
    assert found.to_numpy().tolist() == [[odd, odd]]
    assert sorted(p.name for p in tmp_path.iterdir() if p.name not in ("models", "text")) == ["out"]


def test_a_corpus_too_small_for_k_or_threshold_is_a_mistake_of_the_plan(run, models, tmp_path):
    with pytest.raises(PlanError) as caught:
        run(
            models=[
                {"model": str(models / "step9"), "threshold": 4},
                {"model": str(models / "step10")},
            ],
            defaults={"k": 20, "threshold": 2},
        )
    first, second = str(caught.value).splitlines()  # of both models the same, so said once
    assert first.startswith("plan, defaults.k: corpus text: k must be less than the number of")
    assert second.startswith("plan, models[0].threshold: corpus text: threshold must be at most 3")
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_backend_that_cannot_serve_fails_before_the_model_runs(run, models, monkeypatch):
    monkeypatch.setattr("ilo_fast.scans.work.extract", lambda *_, **__: pytest.fail("it runs"))
    entry = {"model": str(models / "step9"), "backend": "reference", "metrics": ["inner_product"]}
    row = run(models=[entry]).to_pandas("failures").iloc[0]
    assert row["kind"] == "options"
    assert "cosine and euclidean only" in row["reason"]


def test_kernels_asked_for_that_cannot_serve_are_a_failure(run, models):
    entry = {"model": str(models / "step9"), "fused": "liger"}
    row = run(models=[entry, str(models / "step10")]).to_pandas("failures").iloc[0]
    assert (row["model"], row["kind"]) == (entry["model"], "options")
    assert "'liger' cannot serve LlamaModel: the model runs on cpu" in row["reason"]


def test_folders_that_hold_something_else(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("…")
    with pytest.raises(InputError, match=r"holds other files \(thesis.tex\)"):
        run(results=tmp_path / "mine")
    with pytest.raises(InputError, match="holds no results of a scan"):
        query(tmp_path / "mine", "select 1")
    run()
    marker = tmp_path / "out" / "ilo-fast-scan.json"
    marker.write_text('{"schema": 99}')
    with pytest.raises(InputError, match="has schema 99"):
        run()
    marker.write_text("[]")
    with pytest.raises(InputError, match="is not what a scan wrote"):
        run()


def test_arguments(run, plan, tmp_path):
    with pytest.raises(InputError, match="names no results folder"):
        scan(plan, view=View())
    with pytest.raises(InputError, match="engine must be local or ray"):
        scan(plan, results="x", engine="slurm")
    for engine in (None, 3, object()):
        with pytest.raises(InputError, match="or an object like those, got"):
            scan({**plan, "corpora": ["./none"]}, results=tmp_path / "x", engine=engine)
    with pytest.raises(InputError, match="are for engine='ray'"):
        scan(plan, results="x", workers=2, view=View())
    with pytest.raises(PlanError, match=r"matches \./none"):
        scan({**plan, "models": ["./none*"]}, results=tmp_path / "x" / "y", view=View())
    with pytest.raises(InputError, match=r"^results: expected a name in UTF-8"):
        scan(plan, results=tmp_path / "x\udcff", view=View())
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("x")]


def hold(folder, plan, held, done):
    job = plan_jobs(read_plan(plan))[0][0]
    with Dataset(folder) as dataset, dataset.claim(job):
        held.set()
        done.wait(20)


def test_a_job_under_way_elsewhere_is_left_alone_then_checked(run, plan, tmp_path):
    run()
    shutil.rmtree(tmp_path / "out" / "scores")
    context = multiprocessing.get_context("fork")
    held, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path / "out", plan, held, done))
    other.start()
    try:
        assert held.wait(20)

        class Order(View):
            names: ClassVar = []

            def started(self, job, seconds):
                self.names.append(Path(job.model).name)
                if len(self.names) == 1:
                    done.set()
                    other.join(20)

        summary = run(view=Order())
    finally:
        done.set()
        other.join(20)
    assert Order.names == ["step10", "step9"]  # the held one waited for its turn
    assert summary.computed == 2
    assert clean(tmp_path / "out")
