"""Worker threads for the CPU: whole blocks of work side by side, one core each.

Splitting every small tensor operation over all cores costs a barrier an operation, which is slow,
and very slow when other programs use the cores too. Here each worker takes a block (a tile of the
product, a run of rows) through all its operations on one core; torch lets go of Python's lock
inside operations. On other devices, with one thread, or outside ``worker_threads``, blocks are
taken one after another by the caller. What the caller does itself between blocks is small, so it
has one core then too.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

__all__ = ["for_spans", "mapped", "row_runs", "worker_count", "worker_threads"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Current(threading.local):
    """The caller's workers; a worker itself has none, so nothing nests."""

    executor: ThreadPoolExecutor | None = None
    threads: int = 1


_current = _Current()


@contextmanager
def worker_threads(device: torch.device) -> Iterator[None]:
    """Give ``mapped`` as many workers as torch has threads, for the length of the block.

    torch's own operations in the calling thread use one thread meanwhile.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or _current.executor is not None:
        yield
        return
    ready = threading.Barrier(threads + 1)

    def start() -> None:
        torch.get_num_threads()  # a thread's first question sets it to the default, once
        torch.set_num_threads(1)  # this thread's own; also the default of threads to come
        ready.wait()

    executor = ThreadPoolExecutor(threads, thread_name_prefix="ilo-fast")
    try:
        for _ in range(threads):
            executor.submit(start)
        ready.wait()
        torch.set_num_threads(1)
        # The last call in any thread is the default of threads to come: put that back.
        keeper = threading.Thread(target=torch.set_num_threads, args=(threads,))
        keeper.start()
        keeper.join()
        _current.executor, _current.threads = executor, threads
        yield
    finally:
        ready.abort()  # where a thread could not be started, the others need not wait for it
        torch.set_num_threads(threads)
        _current.executor, _current.threads = None, 1
        executor.shutdown(wait=True, cancel_futures=True)


def worker_count() -> int:
    """How many blocks ``mapped`` takes at a time."""
    return _current.threads


def mapped(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Results of ``function`` over ``items``, in order; at most a few are in flight or waiting.

    >>> list(mapped(len, ["a", "bb"]))
    [1, 2]
    """
    executor = _current.executor
    if executor is None:
        yield from map(function, items)
        return

    def call(item: Item) -> Result:
        with torch.no_grad():  # grad mode is each thread's own
            return function(item)

    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(executor.submit(call, item))
            if len(waiting) > 2 * _current.threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def for_spans(function: Callable[[slice], None], total: int, step: int) -> None:
    """Call ``function`` on slices of at most ``step`` that cover ``range(total)``."""
    spans = (slice(start, min(start + step, total)) for start in range(0, total, step))
    for _ in mapped(function, spans):
        pass


def row_runs(entries: torch.Tensor, most: int) -> tuple[list[int], list[int]]:
    """Cut rows into runs: how many rows each has, and how many entries.

    A run holds less than ``most`` entries beside those of its first row.

    >>> row_runs(torch.tensor([3, 1, 9, 4]), 4)
    ([2, 1, 1], [4, 9, 4])
    """
    ends = torch.cumsum(entries, dim=0)
    run = (ends - 1).clamp(min=0) // most
    _, rows = torch.unique_consecutive(run, return_counts=True)
    stops = ends[torch.cumsum(rows, dim=0) - 1]
    of_rows, of_entries = torch.stack([rows, stops.diff(prepend=stops.new_zeros(1))]).tolist()
    return of_rows, of_entries
