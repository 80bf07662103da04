"""Worker threads: order, bounds, errors, and nothing left behind."""

import threading
import time

import pytest
import torch

from ilo_fast.ops.workers import for_spans, mapped, row_runs, worker_count, worker_threads

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order(threads):
    def slow_first(item):
        time.sleep(0.02 if item == 0 else 0)
        return item * item

    with worker_threads(CPU):
        assert list(mapped(slow_first, range(20))) == [i * i for i in range(20)]
    assert list(mapped(slow_first, range(3))) == [0, 1, 4]


def new_thread_count():
    """What torch uses in a thread that has not asked before."""
    fresh = []
    thread = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return fresh[0]


def test_one_core_a_worker_and_the_callers_setting_comes_back(threads):
    with worker_threads(CPU):
        seen = set(mapped(lambda _: torch.get_num_threads(), range(8)))
        assert seen == {1}
        assert worker_count() == threads
        assert torch.get_num_threads() == 1
        assert new_thread_count() == threads  # threads of the caller's program are left alone
    assert torch.get_num_threads() == threads
    assert new_thread_count() == threads
    assert worker_count() == 1


def test_nothing_is_left_running(threads):
    before = threading.active_count()
    with worker_threads(CPU), worker_threads(CPU):
        list(mapped(str, range(4)))
    assert threading.active_count() == before


def test_an_error_reaches_the_caller(threads):
    def fail(item):
        if item == 3:
            raise RuntimeError("item 3")
        return item

    with pytest.raises(RuntimeError, match="item 3"), worker_threads(CPU):
        list(mapped(fail, range(100)))
    assert threading.active_count() < 20


def test_a_thread_that_cannot_start_stops_the_search(monkeypatch):
    before, running = torch.get_num_threads(), threading.active_count()
    torch.set_num_threads(3)
    start, started = threading.Thread.start, []

    def refuse(thread):
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    try:
        with pytest.raises(RuntimeError, match="can't start"), worker_threads(CPU):
            pass
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert threading.active_count() == running


def test_few_results_wait(threads):
    started = []
    with worker_threads(CPU):
        results = mapped(lambda item: started.append(item), range(1000))
        next(results)
        time.sleep(0.05)
        assert len(started) <= 2 * threads + 1
        results.close()


def test_spans_cover_everything_once(threads):
    seen = torch.zeros(103, dtype=torch.int64)

    def mark(part):
        seen[part] += 1

    with worker_threads(CPU):
        for_spans(mark, 103, 10)
    assert (seen == 1).all()
    for_spans(mark, 0, 10)


def test_gradients_are_off_in_workers(threads):
    with worker_threads(CPU), torch.no_grad():
        assert list(mapped(lambda _: torch.is_grad_enabled(), range(3))) == [False] * 3


def test_other_devices_have_no_workers():
    with worker_threads(torch.device("meta")):
        assert list(mapped(lambda _: threading.current_thread(), [0])) == [threading.main_thread()]


def test_runs_split_no_row():
    entries = torch.tensor([0, 3, 1, 0, 5, 2, 2, 0])
    for most in range(1, 15):
        rows, held = row_runs(entries, most)
        runs = torch.split(entries, rows)
        assert [int(run.sum()) for run in runs] == held
        for run in runs:
            beside_the_first = run[run > 0][1:]
            assert beside_the_first.sum() < most
    assert row_runs(torch.zeros(3, dtype=torch.int64), 4) == ([3], [0])
