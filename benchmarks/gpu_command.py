"""The whole command from a fresh process: time to the first batch, and the timeline of a score."""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.processes import Commands

__all__ = ["end_to_end", "first_batch"]

FIRST_BATCH_TARGET, AFTER_LOADING_TARGET = 10.0, 12.0  # seconds
MOST_SECONDS = 240.0  # of one process
BEFORE = ("corpus", "load")  # steps of the timeline that come before the model is loaded

_FIRST_BATCH = """
import os, sys
from ilo_fast import extract, load_corpus
from ilo_fast.models import load_model

class Stop:
    def start(self, total_tokens): pass
    def finish(self): pass
    def advance(self, tokens, sentences):
        print(tokens, flush=True)
        os._exit(0)

model, corpus, device, dtype = sys.argv[1:]
loaded = load_model(model, device=device, dtype=dtype)
extract(loaded.model, loaded.tokenizer, load_corpus(corpus), progress=Stop())
"""


def first_batch(
    model: str, corpus: str, device: str, dtype: str, rounds: int = 2
) -> dict[str, Any]:
    """Seconds from the start of a process to its first finished batch; the first round is cold."""
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        _run([sys.executable, "-c", _FIRST_BATCH, model, corpus, device, dtype])
        seconds.append(time.perf_counter() - began)
    return {
        "model": Path(model).name,
        "seconds": seconds,
        "target_s": FIRST_BATCH_TARGET,
        "meets_target": seconds[-1] <= FIRST_BATCH_TARGET,
    }


def end_to_end(
    model: str, corpus: str, options: Sequence[str] = (), rounds: int = 2
) -> dict[str, Any]:
    """``ilo-fast score`` in a process of its own, so many times; the last is from a warm cache."""
    runs = []
    main = "from ilo_fast.cli import main; main()"
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as out:
            given = ["score", model, "--corpus", corpus, "--out", out, "--quiet", *options]
            began = time.perf_counter()
            _run([sys.executable, "-c", main, *given])
            wall = time.perf_counter() - began
            record = json.loads((Path(out) / "run.json").read_text(encoding="utf-8"))
        timeline = record["timeline"]
        after = sum(seconds for step, seconds in timeline.items() if step not in BEFORE)
        runs.append({"process_s": wall, "after_loading_s": after, "timeline": timeline})
    return {
        "model": Path(model).name,
        "options": list(options),
        "languages": len(record["corpus"]["languages"]),
        "sentences": record["extraction"]["sentences"],
        "tokens": record["extraction"]["tokens"],
        "dtype": record["model"]["dtype"],
        "extraction": {
            name: record["extraction"][name] for name in ("batches", "attention", "fused", "store")
        },
        "backend": record["backend"]["name"],
        "runs": runs,
        "target_after_loading_s": AFTER_LOADING_TARGET,
        "meets_target": runs[-1]["after_loading_s"] <= AFTER_LOADING_TARGET,
    }


def _run(arguments: list[str]) -> None:
    with tempfile.TemporaryFile("w+") as log:
        status = Commands().run(arguments, MOST_SECONDS, log)
        log.seek(0)
        said = log.read().strip()
    if status:
        raise RuntimeError(f"exit status {status}: {said[-500:]}")
