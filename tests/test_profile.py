"""`score --profile`: a Chrome trace of the run, and the timeline beside it."""

import gzip
import json
import sys

import pytest
import torch
from torch.profiler import ProfilerActivity

from ilo_fast import cli
from ilo_fast.profiling import activities_on, chrome_trace

STEPS = {"load", "tokenise", "forward", "neighbours", "scores", "files"}


@pytest.fixture
def run(monkeypatch):
    def run_cli(*arguments):
        arguments = [str(argument) for argument in arguments]
        monkeypatch.setattr(sys, "argv", ["ilo-fast", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        return ended.value.code

    return run_cli


def ranges(path):
    """name → [(begin, end, thread)] of the named ranges, in microseconds."""
    found = {}
    for event in json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]:
        if event.get("cat") == "user_annotation":
            span = (event["ts"], event["ts"] + event["dur"], event["tid"])
            found.setdefault(event["name"], []).append(span)
    return found


def test_the_trace_holds_every_step(run, tiny_model, corpus_folder, tmp_path):
    out = tmp_path / "out"
    given = ("--corpus", corpus_folder, "--out", out, "--no-plots", "--batch-tokens", 100)
    assert run("score", tiny_model, *given, "--device", "cpu", "--profile", "--quiet") == 0
    names = [path.name for path in sorted(out.iterdir())]
    assert names == ["run.json", "scores.csv", "scores.parquet", "trace.json.gz"]
    found = ranges(out / "trace.json.gz")
    assert found.keys() >= STEPS
    assert len(found["neighbours"]) == len(found["scores"]) == 4  # layers
    forward = found["forward"]
    assert len(forward) > 1
    [(_, _, tokenising)] = found["tokenise"]
    assert tokenising not in {thread for _, _, thread in forward}  # beside the model, not in it
    last_forward = max(end for _, end, _ in forward)
    assert found["load"][0][1] <= min(begin for begin, _, _ in forward)
    assert last_forward <= min(begin for begin, _, _ in found["neighbours"])
    assert max(end for _, end, _ in found["scores"]) <= found["files"][0][0]
    timeline = json.loads((out / "run.json").read_text())["timeline"]
    assert timeline.keys() >= STEPS
    traced = sum(end - begin for begin, end, _ in found["neighbours"]) / 1e6
    assert timeline["neighbours"] == pytest.approx(traced, rel=0.5, abs=0.05)


def test_no_trace_of_a_run_that_fails(tmp_path):
    with pytest.raises(RuntimeError, match="broke"), chrome_trace(tmp_path / "trace.json", "cpu"):
        raise RuntimeError("broke")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("device", "there", "gpu"),
    [
        ("cpu", True, False),
        ("auto", True, True),
        ("auto", False, False),
        ("cuda:1", True, True),
        ("balanced", True, True),
        ("mps", True, False),
        ("abacus", True, False),  # refused with a reason where the model is loaded
    ],
)
def test_the_gpu_is_traced_where_it_computes(monkeypatch, device, there, gpu):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    expected = {ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])}
    assert set(activities_on(device)) == expected
