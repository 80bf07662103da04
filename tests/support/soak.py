"""Scans of tiny models, killed again and again: what is left must be what an undisturbed one gives.

Run as a script, it imports everything once and forks a process for every scan, so that a kill costs
the scan and not the imports. ``python soak.py FOLDER KILLS WRITE_KILLS SEED`` writes JSON.
"""

import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

TABLES = ("scores", "layers", "pairs", "failures")
MODELS = 2


def make_plan(folder: Path) -> dict:
    """2 tiny models and one that is missing, on two corpora."""
    import numpy as np
    from safetensors.numpy import load_file, save_file
    from tiny import LANGUAGES, save_tiny_model, sentence

    first = save_tiny_model(folder / "model-0")
    for number in range(1, MODELS):
        other = shutil.copytree(first, folder / f"model-{number}")
        weights = load_file(other / "model.safetensors")
        generator = np.random.default_rng(number)
        for name, values in weights.items():
            weights[name] = values + generator.normal(0, 0.02, values.shape).astype(values.dtype)
        save_file(weights, other / "model.safetensors", {"format": "pt"})
    text = folder / "text"
    text.mkdir()
    for at, language in enumerate(LANGUAGES):
        lines = [sentence(at, number) for number in range(6)]
        (text / f"{language}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {
        "models": [*(str(folder / f"model-{n}") for n in range(MODELS)), str(folder / "gone")],
        "corpora": [
            {"corpus": str(text), "name": "all"},
            {"corpus": str(text), "name": "four", "limit": 4},
        ],
        "defaults": {"k": 3, "threshold": 2, "intervals": 3, "permutations": 3},
    }


def tables(results: Path) -> dict:
    """Every table, sorted, without the columns that tell the time."""
    from ilo_fast.scans import read_table

    found = {}
    for name in TABLES:
        table = read_table(results, name).drop(columns=["seconds", "when"], errors="ignore")
        keys = [c for c in ("model", "corpus", "layer", "language", "other") if c in table]
        assert not table.duplicated(keys).any(), f"{name}: a row is there twice"
        found[name] = table.sort_values(keys, ignore_index=True)
    return found


def same(one: dict, other: dict) -> None:
    import pandas as pd

    for name in TABLES:
        pd.testing.assert_frame_equal(one[name], other[name], check_exact=True)


def check_clean(results: Path) -> None:
    """Whole files under final names only."""
    left = [path for path in results.rglob("*") if path.name.startswith(".")]
    assert not left, left
    kinds = {path.suffix for path in results.rglob("*") if path.is_file()}
    assert kinds <= {".parquet", ".json"}, kinds


def whole(results: Path) -> None:
    """After any kill: every file under its final name can be read."""
    import pyarrow.parquet as pq

    for path in results.glob("*/*/*/*.parquet"):
        pq.read_table(path)


def die_writing(generator: random.Random) -> None:
    """Make this process kill itself at some file: half written, before or after its renaming."""
    how, at = generator.choice(["half", "before", "after"]), generator.randrange(1, 10)
    calls = itertools.count(1)
    fsync, replace = os.fsync, os.replace

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def cut(descriptor: int) -> None:
        if how == "half" and next(calls) == at:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            die()
        fsync(descriptor)

    def move(source, target) -> None:
        turn = how != "half" and next(calls) == at
        if turn and how == "before":
            die()
        replace(source, target)
        if turn:
            die()

    os.fsync, os.replace = cut, move


class Soak:
    def __init__(self, folder: Path, seed: int) -> None:
        from ilo_fast.scans import scan
        from ilo_fast.scans.view import View

        self.random = random.Random(seed)
        self.results = folder / "results"
        plan = make_plan(folder)
        self.run = lambda out: scan(plan, results=out, view=View())
        self.run(folder / "undisturbed")  # imports what is imported late, too
        began = time.monotonic()
        shutil.rmtree(folder / "undisturbed")
        self.run(folder / "undisturbed")
        self.usual = time.monotonic() - began
        self.expected = tables(folder / "undisturbed")
        self.counts = dict.fromkeys(("kills", "write_kills", "pairs", "scans", "rounds"), 0)

    def start(self, dying: bool) -> int:
        seed = self.random.getrandbits(32)
        child = os.fork()
        if child:
            self.counts["scans"] += 1
            return child
        try:
            if dying:
                die_writing(random.Random(seed))
            self.run(self.results)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    def settle(self, child: int, deadline: float | None) -> bool:
        """Kill the child at the deadline (None: let it run); whether it was killed."""
        while deadline is not None and time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return self.ended(status)
            time.sleep(0.002)
        if deadline is not None:
            os.kill(child, signal.SIGKILL)
        return self.ended(os.waitpid(child, 0)[1])

    def ended(self, status: int) -> bool:
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert killed or status == 0, f"a scan ended with status {status}"
        if not killed:
            same(tables(self.results), self.expected)
        return killed

    def soak(self, kills: int, write_kills: int) -> dict:
        goals = {"kills": kills, "write_kills": write_kills}
        while any(self.counts[kind] < goal for kind, goal in goals.items()):
            left = [kind for kind, goal in goals.items() if self.counts[kind] < goal]
            kind = self.random.choice(left)
            together = 2 if self.random.random() < 0.15 else 1
            self.counts["pairs"] += together - 1
            children = [self.start(kind == "write_kills") for _ in range(together)]
            killed = []
            for child in children:
                wait = self.random.uniform(0, 0.4 * self.usual) if kind == "kills" else None
                deadline = None if wait is None else time.monotonic() + wait
                killed.append(self.settle(child, deadline))
            self.counts[kind] += sum(killed)
            if not all(killed):  # one got to the end: the table was compared there
                if not any(killed):
                    check_clean(self.results)
                self.counts["rounds"] += 1
                shutil.rmtree(self.results)
            elif self.random.random() < 0.1:
                whole(self.results)
        self.run(self.results)
        same(tables(self.results), self.expected)
        check_clean(self.results)
        return {**self.counts, "rows": {name: len(t) for name, t in self.expected.items()}}


if __name__ == "__main__":
    target, kills, write_kills, seed = sys.argv[1:]
    counted = Soak(Path(target), int(seed)).soak(int(kills), int(write_kills))
    sys.stdout.write(json.dumps(counted) + "\n")
