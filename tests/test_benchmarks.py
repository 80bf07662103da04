"""The benchmark harness: it checks first, pairs its ratios and writes whole files."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from benchmarks import gpu_command, gpu_extraction, gpu_overlap
from benchmarks.__main__ import main
from benchmarks.cpu import exact_rows, right_rows
from benchmarks.data import synthetic_states
from benchmarks.gpu_busy import busy, covered
from benchmarks.gpu_command import end_to_end, first_batch
from benchmarks.gpu_extraction import TINY, measure
from benchmarks.registry import Contender, Workload, compare
from benchmarks.report import write_json


@pytest.fixture(autouse=True)
def same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def workload(log, check):
    contenders = tuple(
        Contender(name, lambda name=name: log.append(name), ours=name == "ours")
        for name in ("ours", "peer", "other")
    )
    return Workload("stub", "a stub", contenders, check, {"points": 3})


def test_contenders_take_turns_after_the_check():
    log = []
    result = compare(workload(log, lambda contender, answer: {"right": contender.ours}), rounds=3)
    first = ["ours", "peer", "other"]
    assert log == [*first, *first, "peer", "other", "ours", "other", "ours", "peer"]
    assert result["points"] == 3
    for name, timing in result["contenders"].items():
        assert len(timing["wall_s"]) == 3
        assert timing["right"] == (name == "ours")
    assert result["contenders"]["ours"]["ours_over_this_wall"] == 1.0


def test_a_wrong_answer_is_never_timed():
    def check(contender, answer):
        raise AssertionError("wrong")

    log = []
    with pytest.raises(AssertionError, match="wrong"):
        compare(workload(log, check), rounds=3)
    assert log == ["ours"]


def test_right_rows_by_hand():
    x = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    rows, similarity = exact_rows(x)
    assert right_rows(np.array([[1], [0], [3], [2]]), rows, similarity) == 1.0
    assert right_rows(np.array([[2], [0], [3], [2]]), rows, similarity) == 0.75
    assert right_rows(np.array([[0], [0], [3], [2]]), rows, similarity) == 0.75


def test_synthetic_states_crowd_like_real_ones():
    x = synthetic_states(4, 50, 96)
    assert x.shape == (200, 96)
    assert x.dtype == np.float32
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert (unit @ unit.T).mean() > 0.9
    np.testing.assert_array_equal(x, synthetic_states(4, 50, 96))


def test_files_appear_whole(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_what_is_not_finite_is_null(tmp_path):
    write_json(tmp_path / "a.json", {"x": [1.5, float("nan")], "y": {"z": (-float("inf"),)}})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [1.5, None], "y": {"z": [None]}}


def test_the_cpu_command_on_a_small_file(tmp_path):
    np.save(tmp_path / "states.npy", synthetic_states(4, 60, 24))
    out = tmp_path / "cpu.json"
    arguments = ["--states", str(tmp_path / "states.npy"), "--languages", "4", "--threads", "1"]
    done = CliRunner().invoke(
        main, ["cpu", *arguments, "--rounds", "1", "--out", str(out)], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    record = json.loads(out.read_text())
    assert record["versions"]["torch"]
    ours = record["workloads"][0]["contenders"]["ilo_fast, certified"]
    assert ours["rows_right"] == ours["rows_certified"] == 1.0
    assert str(tmp_path) not in out.read_text()


def test_the_pairs_command_finds_the_scores_of_the_formulas(tmp_path):
    np.save(tmp_path / "states.npy", synthetic_states(2, 260, 24))
    out = tmp_path / "pairs.json"
    arguments = ["--states", str(tmp_path / "states.npy"), "--languages", "2", "--threads", "1"]
    done = CliRunner().invoke(
        main, ["pairs", *arguments, "--rounds", "1", "--out", str(out)], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    contenders = json.loads(out.read_text())["workloads"][1]["contenders"]
    assert contenders["float64 formulas, a pair at a time"]["equal to ours"]
    assert 0 < contenders["ilo_fast pair_scores"]["mean_retrieval"] < 1


def test_states_that_do_not_divide_are_refused(tmp_path):
    np.save(tmp_path / "states.npy", np.zeros((7, 3)))
    done = CliRunner().invoke(
        main, ["cpu", "--states", str(tmp_path / "states.npy"), "--languages", "2"]
    )
    assert done.exit_code == 2
    assert "multiple of 2" in done.output


def test_overlaps_of_the_gpu_command(monkeypatch):
    monkeypatch.delenv("ILO_FAST_PLATONIC", raising=False)
    device, failures = torch.device("cpu"), []
    lists = gpu_overlap._random_lists(2, 40, device)
    assert all(len(set(row)) == 10 for row in lists.flatten(0, 1).tolist())
    pairs = gpu_overlap.layers_by_layers(40, 3, device, failures, layers=2)
    models = gpu_overlap.two_models(2, device, "auto", failures, (2, 60, 16))
    scores = gpu_overlap.all_pairs(31 * 11, 16, 2, device, "auto", failures)
    assert scores["over_search"] > 0
    assert failures == []
    assert pairs["diagonal_is_one"]
    assert 0 < models["best"] < 1
    assert "platonic-rep" in models["not run"]


def test_extraction_in_the_gpu_commands_dry_run(tmp_path):
    given = ["gpu", "--dry-run", "--no-kernels", "--out", str(tmp_path / "gpu.json")]
    done = CliRunner().invoke(main, given, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "gpu-dry-run.json").read_text())
    assert record["failures"] == []
    [found] = record["extraction"]
    assert found["sentences"] == 62
    assert found["not run"] == {}
    ways = found["contenders"]
    assert list(ways) == [
        "ilo_fast",
        "ilo_fast, fused off",
        "padded loop",
        "padded, sorted",
        "one at a time",
        "public loop, with head",
    ]
    for way in ways.values():
        seconds = np.median(way["seconds"])
        assert way["sentences_per_s"] == pytest.approx(way["sentences"] / seconds)
        assert way["share_of_gemm"] == pytest.approx(way["tflops"] / found["gemm_tflops"])
        assert way["median_error"] < 0.05
    ours = ways["ilo_fast"]
    flop = found["tokens"] * 2 * 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96)  # by hand
    assert ours["tflops"] == pytest.approx(flop / np.median(ours["seconds"]) / 1e12)
    assert ours["fused"] == "off: the model runs on cpu, fused kernels need CUDA"
    assert ours["first_batch_s"] > 0
    assert found["meets_sentences_per_s"] is False
    profile = found["profile"]
    assert profile["milliseconds"] > 0
    assert 0 < profile["busy_share"] <= 1
    shares = list(profile["kernels"].values())
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) <= 1 + 1e-9
    assert any("scaled_dot_product" in name for name in profile["kernels"])


def test_busy_time_counts_overlapping_kernels_once():
    assert covered([(0.0, 2.0), (1.0, 3.0), (5.0, 6.0), (5.5, 5.7)]) == 4.0


def test_a_card_that_cannot_be_profiled_costs_no_other_figure(monkeypatch):
    def no_profiler(**_):
        raise RuntimeError("CUPTI did not start")

    monkeypatch.setattr(torch.profiler, "profile", no_profiler)
    found = busy(lambda: torch.ones(3), torch.device("cpu"))
    assert found == {"not run": "RuntimeError: CUPTI did not start"}


@pytest.mark.xdist_group("compiler")
def test_compiled_layers_are_timed_cold_and_warm(graphs_alone):
    shape, failures = replace(TINY, compiled=True), []
    found = measure(shape, torch.device("cpu"), failures, peer_sentences=16, rounds=1, gemm=16)
    assert failures == []
    way = found["contenders"]["ilo_fast, compiled layers"]
    assert way["fused"].startswith("torch.compile ")
    assert way["first_run_s"] > way["seconds"][0]
    assert way["median_error"] < 0.05


def test_wrong_means_fail_the_gpu_command(monkeypatch):
    padded = gpu_extraction._padded

    def shifted(*given, **named):
        return padded(*given, **named).roll(1, dims=1)

    monkeypatch.setattr(gpu_extraction, "_padded", shifted)
    failures = []
    measure(TINY, torch.device("cpu"), failures, peer_sentences=16, rounds=1, gemm=16)
    assert [text.partition(": means")[0] for text in failures] == [
        "extraction tiny, padded loop",
        "extraction tiny, padded, sorted",
    ]


def test_the_whole_command_is_timed_from_its_record(tiny_model, corpus_folder, monkeypatch):
    given = (str(tiny_model), str(corpus_folder))
    found = end_to_end(*given, ["--device", "cpu", "--no-plots"], rounds=1)
    assert (found["languages"], found["sentences"], found["dtype"]) == (4, 48, "float32")
    [run] = found["runs"]
    steps = {"tokenise", "forward", "neighbours", "scores", "files"}
    assert run["timeline"].keys() == {"corpus", "load", *steps}
    assert run["after_loading_s"] == pytest.approx(sum(run["timeline"][step] for step in steps))
    assert run["after_loading_s"] < run["process_s"]
    assert found["meets_target"] is (run["after_loading_s"] <= 12)
    first = first_batch(*given, "cpu", "float32", rounds=1)
    assert first["meets_target"] is (first["seconds"][0] <= 10)
    monkeypatch.setattr(gpu_command, "_FIRST_BATCH", "raise SystemExit('no such card')")
    with pytest.raises(RuntimeError, match="exit status 1: no such card"):
        first_batch(*given, "cpu", "float32", rounds=1)
