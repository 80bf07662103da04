"""`python -m benchmarks gpu`: what fails is in the file, and what comes after it still runs."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks import gpu, gpu_checks, gpu_parts, gpu_peers
from benchmarks.__main__ import main
from benchmarks.gpu_parts import LATE, ContextLost, Parts, earlier
from benchmarks.processes import Commands, time_out_as_interrupt
from ilo_fast.ops import half_products

CPU = torch.device("cpu")


def broken():
    raise RuntimeError("an illegal memory access was encountered")


def test_a_part_that_fails_stops_no_other(tmp_path):
    out = tmp_path / "gpu.json"
    kept = []
    parts = Parts(out, {"kept": kept}, CPU, float("inf"))
    parts.run("one", kept.append, lambda: 1)
    parts.run("two", kept.append, broken)
    assert json.loads(out.read_text())["kept"] == [1]  # there before the run ends
    parts.run("three", kept.append, lambda: 3)
    found = json.loads(out.read_text())
    assert found["kept"] == [1, 3]
    assert found["failures"] == ["two: RuntimeError: an illegal memory access was encountered"]
    assert list(found["parts"].values())[::2] == ["done", "done"]


def test_a_part_that_the_file_cannot_hold_stops_no_other(tmp_path):
    out = tmp_path / "gpu.json"
    kept = []
    parts = Parts(out, {"kept": kept}, CPU, float("inf"))
    parts.run("one", kept.append, lambda: {"dtype": torch.float32})
    parts.run("two", kept.append, lambda: 2)
    found = json.loads(out.read_text())
    assert found["kept"] == [2]
    assert "one: TypeError" in found["failures"][0]


def cut_off():
    raise KeyboardInterrupt  # as a time-out ends a process


def test_going_on_behind_what_was_tried(tmp_path):
    out = tmp_path / "gpu.json"
    card = {"name": "card", "capability": "9.0", "driver": "1"}
    result = {"commit": "c", "device": card, "settings": {"points": 3}, "kept": []}
    now = {**{key: result[key] for key in ("commit", "device", "settings")}, "when": "then"}
    parts = Parts(out, result, CPU, float("inf"))
    parts.run("one", result["kept"].append, lambda: 1)
    for name in ("two", "hangs"):
        with pytest.raises(KeyboardInterrupt):
            parts.run(name, result["kept"].append, cut_off)
    late = Parts(out, result, CPU, time.time() - 1)
    late.run("three", result["kept"].append, lambda: 3)
    again = earlier(out, {**now, "device": {**card, "driver": "2"}})
    assert again["parts"]["three"] == LATE
    assert again["continued"][0]["device"]["driver"] == "2"
    parts = Parts(out, again, CPU, float("inf"))
    for name in ("one", "two", "three"):
        parts.run(name, again["kept"].append, lambda name=name: name)
    assert again["kept"] == [1, "two", "three"]
    with pytest.raises(KeyboardInterrupt):
        parts.run("hangs", again["kept"].append, cut_off)
    third = earlier(out, now)
    assert third["part_tries"] == {"one": 1, "two": 2, "hangs": 2, "three": 1}
    parts = Parts(out, third, CPU, float("inf"))
    parts.run("hangs", third["kept"].append, lambda: "never")
    assert third["kept"] == [1, "two", "three"]
    assert third["failures"] == ["hangs: did not come to its end in 2 tries"]
    with pytest.raises(ValueError, match="is of another commit"):
        earlier(out, {**now, "commit": "d"})
    with pytest.raises(ValueError, match="is of another device"):
        earlier(out, {**now, "device": {**card, "name": "other"}})


def test_the_file_lies_where_out_says_and_names_the_commit_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.report._git", lambda *words: "")
    given = ["gpu", "--dry-run", "--no-kernels", "--no-extraction"]
    told = {"OUT": str(tmp_path), "ILO_FAST_COMMIT": "abc"}
    done = CliRunner().invoke(main, given, env=told, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "gpu-dry-run.json").read_text())
    assert (found["commit"], found["changed_files"]) == ("abc", None)
    silent = CliRunner().invoke(main, given, env={"OUT": str(tmp_path)}, catch_exceptions=False)
    assert "NO COMMIT" in silent.output
    monkeypatch.delenv("OUT", raising=False)
    assert gpu._default_out() == gpu.ROOT / "benchmarks" / "results" / "gpu.json"


def test_an_error_is_printed_whole(tmp_path, monkeypatch):
    """Rich takes words in brackets for its own, and one with a slash for a mistake."""
    said = "expected [layers, n, d] at [/home/x.py:3]"

    def fails(parts, *given):
        parts.run("x", print, lambda: (_ for _ in ()).throw(ValueError(said)))

    monkeypatch.setattr(gpu, "_add_kernels", fails)
    given = ["gpu", "--dry-run", "--no-extraction", "--out", str(tmp_path / "gpu.json")]
    done = CliRunner().invoke(main, given, catch_exceptions=False)
    assert done.exit_code == 1
    assert f"FAILED: x: ValueError: {said}" in " ".join(done.output.split())


def test_a_lost_context_starts_the_command_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_parts, "usable", lambda device: False)
    parts = Parts(tmp_path / "gpu.json", {}, CPU, float("inf"))
    with pytest.raises(ContextLost):
        parts.run("one", print, broken)
    begun = []
    monkeypatch.setattr(gpu_parts.os, "execv", lambda path, words: begun.append((path, words)))
    monkeypatch.setattr(sys, "argv", ["benchmarks", "gpu", "--resume", "--no-tests"])
    gpu_parts.start_anew(12.0)
    [(path, words)] = begun
    assert path == words[0] == sys.executable
    assert words[1:] == ["-m", "benchmarks", "gpu", "--no-tests", "--resume", "--deadline", "12.0"]


def test_the_kernels_are_what_is_measured():
    """`auto` takes plain torch: the run must name the engine it is there for."""
    defaults = {option.name: option.default for option in gpu.command.params}
    assert defaults["backend"] == "triton"


def test_every_search_names_the_backend(monkeypatch):
    asked = []
    x = torch.randn(40, 8)

    def knn(points, k, backend="auto"):
        asked.append(backend)
        return real(points, k, backend="torch")

    real = gpu_checks.knn
    monkeypatch.setattr(gpu_checks, "knn", knn)
    monkeypatch.setattr(gpu_peers, "knn", knn)
    failures = []
    found = gpu_checks.compare_float64("x", x[None], failures, "triton")
    gpu_peers.contenders(x, None, backend="triton")["ilo_fast"]()
    assert asked == ["triton", "triton"]
    assert failures == []
    assert found["rows_right"] == 1.0


def test_dry_run_of_the_kernels_part(tmp_path):
    given = ["gpu", "--dry-run", "--no-extraction", "--out", str(tmp_path / "gpu.json")]
    done = CliRunner().invoke(
        main, [*given, "--public-code", str(tmp_path)], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "gpu-dry-run.json").read_text())
    assert [row["rows_right"] for row in found["truth"]] == [1.0]
    assert len(found["speed"]) == 5
    for row in found["speed"]:
        assert {"ilo_fast", "bare float16 product"} <= set(row["contenders"])
    assert "FileNotFoundError" in found["speed"][0]["not run"]["public code"]
    again = CliRunner().invoke(main, [*given, "--resume", "--minutes", "0"], catch_exceptions=False)
    assert again.exit_code == 0, again.output  # nothing was left to do
    refused = CliRunner().invoke(main, [*given, "--resume", "--out", str(tmp_path / "none" / "x")])
    assert refused.exit_code == 1
    assert "--resume" in refused.output


def test_tests_run_side_by_side_and_are_stopped(tmp_path):
    runs = {
        "fine": [sys.executable, "-c", "print('3 passed')"],
        "fails": [sys.executable, "-c", "print('1 failed'); raise SystemExit(2)"],
        "hangs": [sys.executable, "-c", "import time; print('began', flush=True); time.sleep(60)"],
        "absent": [str(tmp_path / "compute-sanitizer")],
    }
    failures = []
    found = gpu_checks.run_tests(tmp_path, runs, failures, seconds=5.0)
    assert found["fine"]["summary"] == "3 passed"
    assert "output" not in found["fine"]
    assert (found["fails"]["status"], found["fails"]["output"]) == (2, "1 failed")
    assert found["hangs"]["status"].startswith("TimeoutExpired")
    assert found["hangs"]["output"] == "began"
    assert found["absent"]["status"].startswith("FileNotFoundError")
    assert [text.partition(":")[0] for text in failures] == ["fails", "hangs", "absent"]


def test_a_stopped_command_takes_its_descendants_along(tmp_path):
    """As compute-sanitizer, which starts the program as a child."""
    alive = tmp_path / "alive"
    inner = f"import time; time.sleep(3); open({str(alive)!r}, 'w')"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    failures = []
    found = gpu_checks.run_tests(
        tmp_path, {"x": [sys.executable, "-c", outer]}, failures, seconds=1.0
    )
    assert found["x"]["status"].startswith("TimeoutExpired")
    time.sleep(3.5)
    assert not alive.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_or_a_time_out_ends_the_commands(number, tmp_path):
    code = "import time; time.sleep(60)"
    main_thread = threading.main_thread().ident
    later = threading.Timer(1.0, signal.pthread_kill, [main_thread, number])
    before = signal.getsignal(signal.SIGTERM)
    began = time.monotonic()
    with time_out_as_interrupt():
        later.start()
        with pytest.raises(KeyboardInterrupt):
            gpu_checks.run_tests(tmp_path, {"x": [sys.executable, "-c", code]}, [])
    assert time.monotonic() - began < 30
    assert signal.getsignal(signal.SIGTERM) == before


def test_no_command_starts_after_the_end(tmp_path):
    commands, mark = Commands(), tmp_path / "started"
    commands.end()
    with (tmp_path / "log").open("w") as log, pytest.raises(ChildProcessError, match="not started"):
        commands.run([sys.executable, "-c", f"open({str(mark)!r}, 'w')"], 20.0, log)
    assert not mark.exists()


def test_what_only_racecheck_reports_is_kept_apart(tmp_path):
    summary = "========= RACECHECK SUMMARY: 2 hazards displayed (2 errors, 0 warnings)"

    def says(pytest_line):
        code = f"print({pytest_line!r}); print({summary!r}); raise SystemExit(9)"
        return [sys.executable, "-c", code]

    runs = {
        "compute-sanitizer racecheck": says("12 passed in 3.1s"),
        "compute-sanitizer racecheck, failing": says("1 failed, 11 passed in 3.1s"),
        "compute-sanitizer racecheck, broken": says("Segmentation fault"),
        "compute-sanitizer memcheck": says("12 passed in 3.1s"),
    }
    failures = []
    found = gpu_checks.run_tests(tmp_path, runs, failures)
    apart = found.pop("compute-sanitizer racecheck")
    assert apart["hazards"] == [summary.removeprefix("========= ")]
    assert summary in apart["output"]
    assert [text.partition(":")[0] for text in failures] == list(found)


def test_the_sanitizer_reports_no_questions_to_the_driver():
    for words in gpu_checks.test_runs()[1].values():
        assert words[words.index("--report-api-errors") + 1] == "no"


def test_the_sanitizer_sees_the_whole_search():
    pytest.importorskip("triton", reason="Triton has no wheel for this platform")
    checked = gpu_checks.test_runs()[1].values()
    run, of_the_other_tool = (words[words.index(sys.executable) :] for words in checked)
    assert run == of_the_other_tool
    done = subprocess.run(
        [*run, "--collect-only"], cwd=gpu.ROOT, capture_output=True, text=True,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )  # fmt: skip
    for name in ("every_mode", "odd_shapes", "equals_float64", "lower_index[equal]"):
        assert name in done.stdout, done.stdout + done.stderr


def test_every_file_of_kernel_tests_has_a_process():
    runs, _ = gpu_checks.test_runs()
    named = {words[-1] for name, words in runs.items() if name.startswith("triton kernels")}
    root = Path(gpu.ROOT)
    files = (root / "tests" / "ops" / "triton").glob("test_*.py")
    assert named == {str(path.relative_to(root)) for path in files}


def test_every_gpu_test_has_a_process():
    runs, _ = gpu_checks.test_runs()
    root = Path(gpu.ROOT)
    marked = [path for path in root.glob("tests/**/test_*.py") if "mark.gpu" in path.read_text()]
    named = [word for run in runs.values() for word in run if word.endswith(".py")]
    assert {str(path.relative_to(root)) for path in marked} <= set(named)
    # The search's are shared out by words of their names.
    words = [run[-1] for run in runs.values() if gpu_checks._SEARCH in run]
    given = [*("-m", "pytest", "-q", "--collect-only", "-m", "gpu"), gpu_checks._SEARCH]
    done = subprocess.run([sys.executable, *given], cwd=root, capture_output=True, text=True)
    names = [line for line in done.stdout.splitlines() if "::" in line]
    assert len(words) == 3
    assert len(names) >= 9
    assert all(sum(word in name for word in words) == 1 for name in names)


def test_truth_and_speed_do_not_wait_for_the_sanitizer(tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(gpu, "describe_run", lambda **settings: {"commit": "c"})
    monkeypatch.setattr(gpu, "_device", lambda device: {"name": "card"})
    monkeypatch.setattr(gpu.dispatch, "explain", lambda device: "triton")
    monkeypatch.setattr(gpu, "run_tests", lambda root, runs, failures: begun.append([*runs]) or {})
    for part in ("kernels", "extraction", "sweep"):
        monkeypatch.setattr(gpu, f"_add_{part}", lambda *given, part=part: begun.append(part))
    given = ["gpu", "--sanitizer", "--out", str(tmp_path / "gpu.json")]
    done = CliRunner().invoke(main, given, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    plain, checked = gpu_checks.test_runs()
    assert begun == [[*plain], "kernels", *([name] for name in checked), "extraction", "sweep"]


def test_a_part_finds_the_card_as_it_would_alone(tmp_path, monkeypatch):
    """What earlier parts left in torch's cache counts as taken memory."""
    order = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: order.append("given back"))
    parts = Parts(tmp_path / "gpu.json", {}, torch.device("cuda", 0), float("inf"))
    parts.run("one", order.append, lambda: 1)
    parts.run("two", order.append, lambda: 2)
    assert order == ["given back", 1, "given back", 2]


@pytest.mark.parametrize(("share", "fails"), [(0.5, False), (1.5, True), (float("nan"), True)])
def test_products_beyond_their_bound_are_a_failure(share, fails, monkeypatch):
    pytest.importorskip("triton", reason="Triton has no wheel for this platform")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    found = share, {"dims": 64}
    monkeypatch.setattr(half_products, "worst_share", lambda product, device, bound: found)
    failures = []
    gpu_checks.check_accumulation(torch.device("cuda", 0), failures)
    assert len(failures) == (2 if fails else 0)  # the filter's products, and the library's
