"""Workloads, contenders and how they are timed: side by side, interleaved, after a check."""

import resource
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Contender", "Timing", "Workload", "compare"]


@dataclass(frozen=True)
class Contender:
    """One way to do a workload: ``run()`` does it once and returns its answer.

    ours: the contender others are compared with.
    """

    name: str
    run: Callable[[], Any]
    ours: bool = False


@dataclass(frozen=True)
class Workload:
    """A task with its contenders and the check that every answer must pass before timing.

    check: ``(contender, answer) -> facts`` for the report; raises when ours is wrong.
    """

    name: str
    describe: str
    contenders: tuple[Contender, ...]
    check: Callable[[Contender, Any], dict[str, Any]]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Timing:
    """What one contender took: seconds of each round, in order."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak_mib: float | None = None
    checked: dict[str, Any] = field(default_factory=dict)

    def summary(self, ours: "Timing") -> dict[str, Any]:
        """Medians, spread, and the median over rounds of our time over this one's."""
        paired = [a / b for a, b in zip(ours.wall, self.wall, strict=True)]
        # A round can be too short for the clock of processor time.
        paired_cpu = [a / max(b, 1e-9) for a, b in zip(ours.cpu, self.cpu, strict=True)]
        return {
            "wall_median_s": statistics.median(self.wall),
            "wall_min_s": min(self.wall),
            "wall_max_s": max(self.wall),
            "cpu_median_s": statistics.median(self.cpu),
            "wall_s": self.wall,
            "cpu_s": self.cpu,
            "ours_over_this_wall": statistics.median(paired),
            "ours_over_this_wall_range": [min(paired), max(paired)],
            "ours_over_this_cpu": statistics.median(paired_cpu),
            "peak_extra_mib": self.peak_mib,
            **self.checked,
        }


def compare(
    workload: Workload, rounds: int, note: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Check every contender once (this also warms it up), then time ``rounds`` rounds.

    Each round runs every contender once, starting one further each time, so that whatever else
    the machine does falls on all of them alike; ratios are taken within a round.
    """
    timings = {contender.name: Timing() for contender in workload.contenders}
    for contender in workload.contenders:
        note(f"checking {contender.name}")
        timing = timings[contender.name]
        with _Peak() as peak:
            answer = contender.run()
        timing.peak_mib = peak.extra_mib
        timing.checked = workload.check(contender, answer)
        del answer
    for number in range(rounds):
        for contender in _rotated(workload.contenders, number):
            note(f"round {number + 1} of {rounds}: {contender.name}")
            wall, cpu = time.perf_counter(), _cpu_seconds()
            answer = contender.run()
            timings[contender.name].wall.append(time.perf_counter() - wall)
            timings[contender.name].cpu.append(_cpu_seconds() - cpu)
            del answer
    ours = next(timings[contender.name] for contender in workload.contenders if contender.ours)
    return {
        "name": workload.name,
        "describe": workload.describe,
        **workload.facts,
        "rounds": rounds,
        "contenders": {name: timing.summary(ours) for name, timing in timings.items()},
    }


def _rotated(contenders: tuple[Contender, ...], by: int) -> Iterable[Contender]:
    at = by % len(contenders)
    return contenders[at:] + contenders[:at]


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class _Peak:
    """Growth of the resident set while a block runs; None where the system cannot say."""

    extra_mib: float | None = None

    def __enter__(self) -> "_Peak":
        self._before = None
        try:
            Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the highest so far
            self._before = self._read("VmRSS")
        except OSError:
            pass
        return self

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            self.extra_mib = self._read("VmHWM") - self._before

    @staticmethod
    def _read(field_name: str) -> float:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field_name):
                return int(line.split()[1]) / 1024
        raise OSError(f"/proc/self/status has no {field_name}")
