"""The benchmark harness: it checks first, pairs its ratios and writes whole files."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.cpu import exact_rows, right_rows
from benchmarks.data import synthetic_states
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


def test_states_that_do_not_divide_are_refused(tmp_path):
    np.save(tmp_path / "states.npy", np.zeros((7, 3)))
    done = CliRunner().invoke(
        main, ["cpu", "--states", str(tmp_path / "states.npy"), "--languages", "2"]
    )
    assert done.exit_code == 2
    assert "multiple of 2" in done.output
