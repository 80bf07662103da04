"""What a job will take, from configurations alone: seconds, memory, download, result files."""

import math
import os
from dataclasses import dataclass

from ilo_fast.corpora import Corpus
from ilo_fast.layers import resolve_layers
from ilo_fast.scans.jobs import Job
from ilo_fast.scans.shapes import Shape, shape_of_job

__all__ = ["Device", "Estimate", "estimate_job", "find_device"]

# Sustained multiply-adds × 2 a second of the forward pass, by a word in the card's name, half
# precision; float32 runs at about a sixth. Assumed, about half of what data sheets give: for
# estimates of a scan's length, no measurement of this code.
_RATES = {"H200": 4.5e14, "H100": 4.5e14, "A100": 1.8e14, "L40": 1.2e14, "L4": 5e13, "4090": 1e14}
_OTHER_CARD, _CORE = 4e13, 2.5e10
_READ_BYTES = 1e9  # a second, of weights from disk
_ROW_BYTES = {"scores": 60, "layers": 200, "pairs": 4}  # a row in the Parquet files, on average
_FLOOR = 64 << 10  # the run record and Parquet's own headers


@dataclass(frozen=True)
class Device:
    """What jobs run on: memory in bytes (of one card), flops of half and single precision."""

    kind: str
    name: str
    count: int
    memory: int
    half: float
    single: float


@dataclass(frozen=True)
class Estimate:
    """None where the configuration cannot be had. ``cards``: GPUs the weights need."""

    seconds: float | None
    memory: int | None
    download: int | None
    results: int
    tokens: int | None
    cards: int

    @property
    def known(self) -> bool:
        """Whether the model's configuration could be read."""
        return self.seconds is not None


def find_device() -> Device:
    """The machine's cards, or its processor."""
    import torch

    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        rate = next((r for word, r in _RATES.items() if word in card.name), _OTHER_CARD)
        count = torch.cuda.device_count()
        return Device("cuda", card.name, count, card.total_memory, rate, rate / 6)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    rate = _CORE * (cores or 1)
    return Device("cpu", f"{cores} processor cores", 1, memory, rate, rate)


def estimate_job(job: Job, text: Corpus, device: Device) -> Estimate:
    """Estimate one job; right within a factor of about two where the device is a known one."""
    shape = shape_of_job(job)
    layers = _layers(job, shape)
    languages = text.n_languages
    files = (
        _ROW_BYTES["scores"] * layers * languages
        + _ROW_BYTES["layers"] * layers
        + _ROW_BYTES["pairs"] * layers * languages**2
        + _FLOOR
    )
    if job.options["keep_neighbors"]:
        files += layers * text.n_points * (4 * job.options["k"] + 2)
    results = files * len(job.cells)
    if shape is None:
        return Estimate(None, None, job.download, results, None, 1)
    tokens = _tokens(text, shape.vocabulary)
    half = shape.dtype in ("bfloat16", "float16")
    rate = device.half if half else device.single
    forward = 2.0 * shape.active * tokens / rate
    n = text.n_points
    pairs = layers * len(job.cells) * float(n) * n * shape.width
    search = pairs / (device.half if device.kind == "cuda" else device.single)
    chance = job.options["permutations"] + job.options["intervals"]
    statistics = len(job.cells) * layers * chance * n * 3e-8
    seconds = forward + search + statistics + shape.weight_bytes / _READ_BYTES
    states = 4 * (shape.layers + 1 if layers == 0 else layers) * n * shape.width
    # Weights, one batch's activations, one layer's float64 points beside the float32 filter.
    working = 24 * n * shape.width + (1 << 28)
    on_card = shape.weight_bytes + working
    cards = math.ceil(1.1 * on_card / device.memory) if device.kind == "cuda" else 1
    return Estimate(seconds, on_card + states, job.download, results, tokens, max(1, cards))


def _layers(job: Job, shape: Shape | None) -> int:
    if shape is None:
        return 33  # a common depth; only the size of the result files hangs on it
    try:
        return len(resolve_layers(job.options["layers"], shape.layers + 1))
    except ValueError:
        return 0  # the job will fail and say why


def _tokens(text: Corpus, vocabulary: int) -> int:
    """Tokens of a corpus, by its UTF-8 bytes: larger vocabularies take longer pieces.

    Two bytes a token at 49,152 entries and 4.8 at 262,144, as SmolLM2 and Gemma need for FLORES.
    """
    size = sum(len(sentence.encode()) for sentence in text.texts)
    piece = 2.0 + 1.15 * math.log2(max(vocabulary, 1) / 49152) if vocabulary else 3.0
    return round(size / min(max(piece, 1.0), 5.5)) + text.n_points
