"""The next model's files come while a job runs, by the hub's library from a hub of our own."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from local_hub import commit_of, environment, local_hub

from ilo_fast.scans import ahead as module
from ilo_fast.scans.ahead import Ahead

SCRIPT = """
import json, sys, time
from huggingface_hub import try_to_load_from_cache
from ilo_fast.scans import engines, scan
from ilo_fast.scans.view import PlainView

plan, out, second, commit = sys.argv[1:]
run_job = engines.run_job

def run(job, *given):
    until = time.monotonic() + 60
    while job.target == "org/one" and time.monotonic() < until:
        if isinstance(try_to_load_from_cache(second, "model.safetensors", revision=commit), str):
            break
        time.sleep(0.02)
    else:
        assert job.target != "org/one", "nothing came while the first model's jobs ran"
    return run_job(job, *given)

engines.run_job = run
summary = scan(plan, results=out, view=PlainView())
failures = summary.to_pandas("failures")
print(json.dumps([summary.computed, summary.failed, failures[["model", "kind"]].values.tolist()]))
"""


def test_the_next_model_is_fetched_while_a_job_runs(models, corpus_folder, tmp_path):
    hub = {"org/one": models / "step9", "org/two": models / "step10", "org/cut": models / "step10"}
    plan = {
        "models": list(hub),
        "corpora": [{"corpus": str(corpus_folder), "name": str(n), "limit": n} for n in (4, 5)],
        "defaults": {"k": 3, "threshold": 2, "intervals": 0, "permutations": 0},
    }
    (tmp_path / "plan.yaml").write_text(json.dumps(plan), encoding="utf-8")
    with local_hub(hub, failing=["org/cut/config.json"]) as (address, fetched):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, "plan.yaml", "out", "org/two", commit_of("org/two")],
            cwd=tmp_path, env=environment(address, tmp_path / "home"),
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    computed, failed, failures = json.loads(done.stdout.splitlines()[-1])
    assert (computed, failed) == (4, 2)
    assert failures == [["org/cut", "model"]] * 2
    for model in ("org/one", "org/two"):
        assert fetched[f"{model}/model.safetensors"] == 1
    assert all(times == 1 for name, times in fetched.items() if name.startswith("org/two/"))
    assert "%|" not in done.stderr  # bars of the libraries


def job(name, download=5, commit="c"):
    return SimpleNamespace(target=name, commit=commit, download=download)


@pytest.fixture
def fetches(monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr(module, "_cache", lambda: str(tmp_path / "not" / "yet"))
    monkeypatch.setattr(module.hub, "fetch", lambda *given: made.append(given))
    return made


def test_each_model_that_has_to_be_fetched_is_fetched_once(fetches):
    found = Ahead()
    found.begin(job("one"))
    coming = [job("one"), job("here", download=0), job("unknown", commit=None), job("two")]
    for jobs in (coming, coming[:1], coming, [*coming, job("three")]):
        found.look(jobs)
        found.begin(job("two"))  # waits for it
    found.begin(job("three"))
    found.close()
    assert fetches == [("two", "c"), ("three", "c")]


def test_nothing_is_fetched_where_the_disk_may_fill(fetches, monkeypatch):
    monkeypatch.setattr(module, "free_disk", lambda folder: 9)
    found = Ahead()
    found.look([job("two")])
    assert fetches == []
