"""Jobs that fail: rows of their own with a kind and a reason, while the scan goes on."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from huggingface_hub.errors import GatedRepoError
from safetensors.numpy import load_file, save_file

from ilo_fast.activations.tokens import tokenise
from ilo_fast.errors import CorpusError, ModelError
from ilo_fast.scans.failures import explain_failure
from ilo_fast.scans.jobs import plan_jobs
from ilo_fast.scans.plan import read_plan
from ilo_fast.scans.work import run_job


def broken_models(models):
    """Models that fail, each in its own way; the kind expected."""
    kinds = {"gone": "missing", "empty": "missing", "nan": "not finite", "tokenizer": "tokenizer"}
    kinds |= {"weights": "model", "gated": "gated", "large": "out of memory"}
    (models / "empty").mkdir()
    for name in ("nan", "tokenizer", "weights", "gated", "large"):
        shutil.copytree(models / "step9", models / name)
    weights = load_file(models / "nan" / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][:] = np.nan
    save_file(weights, models / "nan" / "model.safetensors", {"format": "pt"})
    (models / "tokenizer" / "tokenizer.json").write_text("{}")
    (models / "weights" / "model.safetensors").write_bytes(b"nothing")
    return kinds


def test_models_that_fail_become_rows_and_the_scan_goes_on(run, models, monkeypatch):
    from ilo_fast.scans import work

    kinds = broken_models(models)
    load = work.load_model

    def load_model(target, **options):
        if target.endswith("gated"):
            raise ModelError("model: cannot load it") from GatedRepoError("403", response=Mock())
        if target.endswith("large"):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return load(target, **options)

    monkeypatch.setattr(work, "load_model", load_model)
    entries = [str(models / name) for name in [*kinds, "step9"]]
    summary = run(models=entries)
    assert (summary.computed, summary.failed) == (1, len(kinds))
    rows = summary.to_pandas("failures")
    assert {
        Path(m).name: kind for m, kind in zip(rows["model"], rows["kind"], strict=True)
    } == kinds
    assert rows["reason"].str.len().gt(0).all()
    nan = rows[rows["kind"] == "not finite"]["reason"].item()
    assert "layer 2" in nan
    assert " of ell_Grek" in nan
    # Tried again unless told not to; a row goes when the model is well.
    assert run(models=entries, retry_failures=False).skipped == len(entries)
    shutil.copytree(models / "step9", models / "gone")
    summary = run(models=entries)
    assert (summary.computed, summary.failed) == (1, len(kinds) - 1)
    assert summary.reasons == {"failed before": len(kinds)}
    assert "gone" not in " ".join(summary.to_pandas("failures")["model"])


@pytest.mark.parametrize(
    "said",
    ["CUDA error: out of memory", "Triton Error [CUDA]: out of memory", "can't allocate memory"],
)
def test_lack_of_memory_is_told_from_a_bug(said):
    error = ValueError("the pass failed")
    error.__cause__ = RuntimeError(said)
    assert explain_failure(error).kind == "out of memory"
    assert explain_failure(RuntimeError("out of resource: registers")).kind == "error"


def test_what_is_wrong_with_a_sentence_is_told_apart(run, tmp_path, models):
    """Too long for the model, and none to the tokenizer; a folder's name says nothing."""
    (tmp_path / "tokens").mkdir()
    for code in ("aa", "bb", "cc"):
        lines = "".join(f"{code} {'long ' * 200 if n == 1 else 'short '}{n}\n" for n in range(3))
        (tmp_path / "tokens" / f"{code}.txt").write_text(lines)
    summary = run(models=[str(models / "step9")], corpora=[{"corpus": str(tmp_path / "tokens")}])
    assert summary.to_pandas("failures")["kind"].tolist() == ["too long"]
    options = {"first": 0, "limit": None, "truncate": False, "where": str}
    with pytest.raises(CorpusError, match="gives no tokens") as raised:
        tokenise(["z"], lambda texts, **options: {"input_ids": [[]]}, **options)
    assert explain_failure(raised.value).kind == "tokenizer"
    said = "corpus: gives no tokens/bb.txt has 3 lines, gives no tokens/aa.txt 4"
    assert explain_failure(CorpusError(said)).kind == "corpus"


@pytest.mark.parametrize("name", ["tokenizer", "gated repo", "holds no config.json"])
def test_the_name_of_a_model_is_no_reason(run, models, name):
    """Of one that is damaged; its tokenizer is the reason where that cannot be read."""
    (models / "step9").rename(models / name)
    weights = models / name / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(b"nothing")
    entries = [str(models / name)]
    assert run(models=entries).to_pandas("failures")["kind"].tolist() == ["model"]
    weights.write_bytes(whole)
    (models / name / "tokenizer.json").write_text("nothing")
    assert run(models=entries).to_pandas("failures")["kind"].tolist() == ["tokenizer"]


def test_a_model_that_was_gone_for_a_while_has_no_failure(run, plan, models):
    entries = {"models": [str(models / name) for name in ("step9", "step10")]}
    run(**entries)
    (models / "step9").rename(models / "away")
    assert run(**entries).to_pandas("failures")["kind"].tolist() == ["missing"]
    (models / "away").rename(models / "step9")
    back = run(**entries)
    assert (back.computed, back.skipped, len(back.to_pandas("failures"))) == (0, 2, 0)


def test_a_bug_is_a_failure_with_its_name(run, monkeypatch):
    def fail(*arguments, **options):
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr("ilo_fast.scans.work.score", fail)
    summary = run()
    assert summary.failed == 2
    assert summary.to_pandas("failures")["kind"].unique().tolist() == ["error"]
    assert "ZeroDivisionError: surprise" in summary.to_pandas("failures")["reason"][0]
    trace = summary.to_pandas("failures")["trace"][0]
    assert trace.startswith("Traceback")
    assert "in fail" in trace


def test_each_revision_is_loaded_where_the_hub_told_no_commit(plan, monkeypatch):
    from ilo_fast.scans import work

    loaded, cache = [], work.ModelCache()

    def load_model(target, *, revision, trust_remote_code, **_):
        loaded.append((revision, trust_remote_code))
        return SimpleNamespace(model=torch.nn.Identity())

    monkeypatch.setattr(work, "load_model", load_model)
    job = plan_jobs(read_plan(plan))[0][0]
    one = replace(job, source="hub", revision="step1", commit=None)
    for each in (one, one, replace(one, revision="step2"), replace(one, trust_remote_code=True)):
        cache.get(each)
    assert loaded == [("step1", False), ("step2", False), ("step1", True)]


def test_a_corpus_that_changed_since_the_plan_was_read_is_not_scored(plan, corpus_folder):
    job = plan_jobs(read_plan(plan))[0][0]
    assert run_job(job).failure is None
    file = corpus_folder / "ell_Grek.txt"
    file.write_text(file.read_text(encoding="utf-8").replace(" ", "  ", 1), encoding="utf-8")
    outcome = run_job(job)
    assert outcome.failure.reason == "corpus: text changed since the scan began"
    assert outcome.files == {}
