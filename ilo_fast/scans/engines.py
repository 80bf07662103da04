"""Where jobs run: in this process, or on a Ray cluster."""

import os
import socket
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Protocol
from urllib.parse import urlsplit

from ilo_fast.errors import InputError
from ilo_fast.scans.ahead import Ahead
from ilo_fast.scans.estimate import Estimate
from ilo_fast.scans.failures import Failure
from ilo_fast.scans.jobs import Job
from ilo_fast.scans.work import ModelCache, Outcome, run_job
from ilo_fast.shown import counted

__all__ = ["Engine", "LocalEngine", "RayEngine"]

_RETRIES = 3
_CONNECT_SECONDS = 5.0
_HERE = ("localhost", "127.0.0.1", "::1")


class Engine(Protocol):
    """Takes jobs and gives outcomes, in any order."""

    @property
    def room(self) -> int:
        """How many more jobs it would start now."""

    def submit(self, job: Job, estimate: Estimate, progress: Any) -> None:
        """Take a job."""

    def foresee(self, jobs: Iterable[Job]) -> None:
        """The jobs that are likely to come, in their order."""

    def collect(self) -> list[tuple[Job, Outcome]]:
        """Outcomes that are there, after waiting a moment for one."""

    def describe(self) -> str:
        """What it runs on, and how busy that is; one line."""

    def close(self, *, cancel: bool) -> None:
        """No more jobs will come; ``cancel`` stops those under way."""


class LocalEngine:
    """One job after the other, in this process; a model stays loaded for its next corpus.

    While a job runs, the next model of the hub is downloaded.
    """

    def __init__(self) -> None:
        self._cache = ModelCache()
        self._ahead = Ahead()
        self._waiting: tuple[Job, Any] | None = None

    @property
    def room(self) -> int:
        return 0 if self._waiting else 1

    def submit(self, job: Job, estimate: Estimate, progress: Any) -> None:
        if estimate.cards > 1 and job.options["device"] == "auto":
            job = spread(job)
        self._ahead.begin(job)
        self._waiting = (job, progress)

    def foresee(self, jobs: Iterable[Job]) -> None:
        self._ahead.look(jobs)

    def collect(self) -> list[tuple[Job, Outcome]]:
        if self._waiting is None:
            return []
        (job, progress), self._waiting = self._waiting, None
        return [(job, run_job(job, self._cache, progress))]

    def describe(self) -> str:
        import torch

        if not torch.cuda.is_available():
            return f"CPU, {counted(torch.get_num_threads(), 'thread')}"
        cards = []
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            name = torch.cuda.get_device_name(number)
            cards.append(f"{name}: {(total - free) / 2**30:.1f} of {total / 2**30:.0f} GiB")
        return "; ".join(cards)

    def close(self, *, cancel: bool) -> None:
        self._ahead.close()
        self._cache.drop()


class RayEngine:
    """One Ray task a job, with the resources of its estimate; Ray retries when a worker dies."""

    def __init__(
        self, address: str | None = None, *, workers: int | None = None, retries: int = _RETRIES
    ) -> None:
        """``address``: of a running cluster, ``"auto"`` to find it; None starts one here, of
        ``workers`` processors (all of them by default). ``retries``: of a job whose worker died."""
        # Ray reports usage to its makers unless told not to; a scan sends nothing anywhere.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as error:
            raise InputError(
                "engine: ray is not installed; install it with: pip install 'ilo-fast[ray]'"
            ) from error
        self._ray = ray
        self._owns = not ray.is_initialized()
        if self._owns:
            local = {} if address else {"num_cpus": workers, "include_dashboard": False}
            _check_listens(address, ray)
            quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
            try:
                ray.init(address=address or "local", **quiet, **local)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise InputError(f"engine: no Ray cluster at {address!r}: {error}") from error
        self._task = ray.remote(max_retries=retries)(run_job)
        self._retries = retries
        self._running: dict[Any, Job] = {}

    @property
    def room(self) -> int:
        total = self._ray.cluster_resources()
        places = int(total.get("GPU", 0)) or int(total.get("CPU", 1))
        return max(0, places - len(self._running))

    def submit(self, job: Job, estimate: Estimate, progress: Any) -> None:
        total = self._ray.cluster_resources()
        asked: dict[str, Any] = {"num_cpus": 1}
        if total.get("GPU", 0) and job.options["device"] != "cpu":
            asked["num_gpus"] = min(estimate.cards, int(total["GPU"]))
            if asked["num_gpus"] > 1 and job.options["device"] == "auto":
                job = spread(job)
        elif estimate.memory is not None:
            # More than a node has would wait for ever: let the job try, and fail with a reason.
            nodes = [node["Resources"].get("memory", 0) for node in self._ray.nodes()]
            asked["memory"] = int(min(estimate.memory, 0.9 * max(nodes)))
        self._running[self._task.options(**asked).remote(job)] = job

    def foresee(self, jobs: Iterable[Job]) -> None:
        """Nothing: which machine will do a job, and so whose cache it needs, is Ray's to say."""

    def collect(self) -> list[tuple[Job, Outcome]]:
        if not self._running:
            return []
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=0.5)
        return [(self._running.pop(reference), self._outcome(reference)) for reference in ready]

    def _outcome(self, reference: Any) -> Outcome:
        errors = self._ray.exceptions
        try:
            outcome: Outcome = self._ray.get(reference)
        except errors.OutOfMemoryError as error:
            return Outcome(failure=Failure("out of memory", _short(error)))
        except (errors.WorkerCrashedError, errors.RaySystemError, errors.ObjectLostError) as error:
            return Outcome(
                failure=Failure("died", f"after {self._retries} retries: {_short(error)}")
            )
        except errors.RayTaskError as error:
            return Outcome(failure=Failure("error", _short(error), str(error)))
        return outcome

    def describe(self) -> str:
        total, free = self._ray.cluster_resources(), self._ray.available_resources()
        parts = [
            f"{int(total[name] - free.get(name, 0))} of {counted(int(total[name]), name)} busy"
            for name in ("GPU", "CPU")
            if total.get(name)
        ]
        return f"Ray, {counted(len(self._ray.nodes()), 'node')}: {', '.join(parts)}"

    def close(self, *, cancel: bool) -> None:
        if cancel:
            for reference in self._running:
                self._ray.cancel(reference, force=True)
        self._running.clear()
        if self._owns:
            self._ray.shutdown()


def _check_listens(address: str | None, ray: Any) -> None:
    """That something answers at a cluster's address: Ray would try for minutes, then exit."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS")
    try:
        parts = urlsplit("//" + (address or "").rpartition("://")[2])
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"address: expected host:port, got {address!r} ({error})") from error
    if not host or not port:
        return  # Ray finds one itself, or says what an address looks like
    reason = ""
    # Ray takes localhost for this machine's network address, where alone a cluster may listen.
    for name in [host, ray.util.get_node_ip_address()] if host in _HERE else [host]:
        try:
            socket.create_connection((name, port), timeout=_CONNECT_SECONDS).close()
            return
        except OSError as error:
            reason = reason or str(error)
    raise InputError(f"address: nothing listens at {address} ({reason})")


def spread(job: Job) -> Job:
    """The job with its model's layers over all cards it sees."""
    return replace(job, options={**job.options, "device": "balanced"})


def _short(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:500] or type(error).__name__
