"""The parts of a run on a card: each may fail, and is in the file as soon as it is there.

A card is lent for minutes. So a part that raises is a failure in the file and the next one runs; a
part whose kernels broke the CUDA context, which no later call in the process survives, makes the
command start itself anew behind it (``--resume``); what a time-out cut off is tried once more.
"""

import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import write_json

__all__ = ["ContextLost", "Parts", "earlier", "start_anew"]

DONE, RUNNING, LATE = "done", "running", "left out: no time"
MOST_TRIES = 2  # of a part that was cut off: it may have begun late, it may hang
_SAME = ("commit", "settings")
_SAME_CARD = ("name", "capability", "multiprocessors")  # drivers differ between two of a kind


class ContextLost(Exception):
    """No CUDA call of this process succeeds any more."""


class Parts:
    """Runs parts, keeps what they return in ``result`` and writes the file after each."""

    def __init__(
        self, out: Path, result: dict[str, Any], device: torch.device, deadline: float
    ) -> None:
        self.result, self._out, self._device, self._deadline = result, out, device, deadline
        self.failures: list[str] = result.setdefault("failures", [])
        self._status: dict[str, str] = result.setdefault("parts", {})
        self._tries: dict[str, int] = result.setdefault("part_tries", {})
        for name, status in self._status.items():
            if status == RUNNING and self._tries[name] >= MOST_TRIES:
                self._failed(name, f"did not come to its end in {MOST_TRIES} tries")

    def run(self, name: str, keep: Callable[[Any], Any], make: Callable[[], Any]) -> None:
        """Hand what ``make`` returns to ``keep``, unless an earlier process brought it to an end.

        A part that an earlier process left running is tried again, `MOST_TRIES` times in all.
        """
        if self._status.get(name, LATE) not in (LATE, RUNNING):
            return
        if time.time() > self._deadline:
            self._status[name] = LATE
            self.write()
            return
        self._status[name] = RUNNING
        self._tries[name] = self._tries.get(name, 0) + 1
        self.write()
        began = time.time()
        lost = False
        try:
            self._give_back()
            made = make()
            json.dumps(made)  # what the file cannot hold would keep all else out of it
            keep(made)
        except Exception as error:  # any: what comes after it must run
            print(f"FAILED {name}", traceback.format_exc(), flush=True)
            self._failed(name, f"{type(error).__name__}: {error}"[:2000])
            lost = not usable(self._device)
        else:
            self._status[name] = DONE
        self.result.setdefault("part_seconds", {})[name] = round(time.time() - began, 1)
        self.write()
        if lost:
            raise ContextLost(name)

    def _give_back(self) -> None:
        """The memory of earlier parts: what this process keeps, a part finds taken."""
        if self._device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()

    def write(self) -> None:
        """The file as it is now."""
        write_json(self._out, self.result)

    def _failed(self, name: str, why: str) -> None:
        self._status[name] = f"failed: {why}"
        self.failures.append(f"{name}: {why}")


def usable(device: torch.device) -> bool:
    """Whether the device still computes; what a failed part held is given back first."""
    if device.type != "cuda":
        return True
    try:
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        return bool((torch.ones(2, device=device) + 1 == 2).all())
    except RuntimeError:
        return False


def earlier(out: Path, result: dict[str, Any]) -> dict[str, Any]:
    """The file to go on with; it must be of the same commit, kind of card and settings.

    When it was gone on with, and on which card, is added to its ``continued``.

    Raises:
        ValueError: where it is not.
    """
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    now = json.loads(json.dumps({key: result.get(key) for key in (*_SAME, "when", "device")}))
    other = [key for key in _SAME if found.get(key) != now[key]]
    if any(found["device"].get(key) != now["device"].get(key) for key in _SAME_CARD):
        other.append("device")
    if other:
        raise ValueError(f"{out} is of another {' and '.join(other)}")
    found.setdefault("continued", []).append({key: now[key] for key in ("when", "device")})
    return found


def start_anew(deadline: float) -> None:
    """This command once more in place of this process, behind what the file has."""
    given = [word for word in sys.argv[1:] if word != "--resume"]
    sys.stdout.flush()
    arguments = ["-m", "benchmarks", *given, "--resume", "--deadline", str(deadline)]
    os.execv(sys.executable, [sys.executable, *arguments])
