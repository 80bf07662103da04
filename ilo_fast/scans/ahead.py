"""The next model's files come from the hub while the job before it runs."""

import logging
import threading
from collections.abc import Iterable
from contextlib import ExitStack

from ilo_fast.environment import free_disk
from ilo_fast.scans import hub
from ilo_fast.scans.jobs import Job

__all__ = ["Ahead"]

_ROOM = 2  # times a download that is free on the disk: the job at work writes its results there
_log = logging.getLogger(__name__)


class Ahead:
    """Downloads one model at a time, each once. A download that fails is told by the job itself,
    which tries it again when its turn comes."""

    def __init__(self) -> None:
        self._asked: set[tuple[str, str | None]] = set()
        self._under_way: tuple[str, str | None] | None = None
        self._thread = threading.Thread()
        self._bars = ExitStack()

    def begin(self, job: Job) -> None:
        """A job begins: its model's download, where one is under way, is waited for."""
        model = (job.target, job.commit)
        self._asked.add(model)
        if model == self._under_way:
            self._thread.join()

    def look(self, jobs: Iterable[Job]) -> None:
        """Start on the first of the jobs to come that has something to download."""
        if self._thread.is_alive():
            return
        for job in jobs:
            model = (job.target, job.commit)
            if job.download and job.commit and model not in self._asked:
                self._asked.add(model)
                if free_disk(_cache()) >= _ROOM * job.download:
                    self._start(job.target, job.commit)
                return

    def close(self) -> None:
        """Show the libraries' bars again. A download under way ends with the process."""
        self._bars.close()

    def _start(self, repository: str, commit: str) -> None:
        from ilo_fast.models.pretrained import without_bars

        if self._under_way is None:
            self._bars.enter_context(without_bars())
        self._under_way = (repository, commit)
        self._thread = threading.Thread(
            target=_fetch, args=(repository, commit), name="ilo-fast-fetch", daemon=True
        )
        self._thread.start()


def _cache() -> str:
    from huggingface_hub import constants

    return constants.HF_HUB_CACHE


def _fetch(repository: str, commit: str) -> None:
    try:
        hub.fetch(repository, commit)
    except Exception as error:
        _log.info("%s: not fetched ahead: %s", repository, error)
