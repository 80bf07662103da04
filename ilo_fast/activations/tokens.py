"""Sentences to token ids, ahead of the forward pass, with every unusable sentence named."""

import hashlib
import json
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.profiler import record_function

from ilo_fast.errors import CorpusError, ModelError

__all__ = ["CHUNK", "TokenChunk", "chunks_ahead", "tokenizer_sha256"]

# Sentences tokenised, sorted by length and cut into batches together: enough that a batch holds few
# lengths, few enough that the first batch starts at once and a chunk's ids are a few MB.
CHUNK = 8192
_AHEAD = 4  # chunks tokenised before the model has asked for them
_PROBES = ("One sentence, 2 numbers.", " spaced  out ", "नमस्ते दुनिया", "你好，世界。", "Γειά σου")


@dataclass(frozen=True)
class TokenChunk:
    """Consecutive sentences from ``first`` on: ``ids`` int32, sentence s at ``offsets[s]``."""

    first: int
    ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        return np.diff(self.offsets)

    def row(self, sentences: Sequence[int]) -> npt.NDArray[np.int64]:
        """The ids of these sentences (numbered within the chunk), end to end."""
        parts = [self.ids[self.offsets[s] : self.offsets[s + 1]] for s in sentences]
        return np.concatenate(parts).astype(np.int64)


def tokenise(
    texts: Sequence[str],
    tokenizer: Any,
    *,
    first: int,
    limit: int | None,
    truncate: bool,
    where: Callable[[int], str],
) -> TokenChunk:
    """Token ids of ``texts``, special tokens included, nothing padded.

    Raises:
        CorpusError: on a sentence that gives no tokens, or none but special ones (a tokenizer may
            drop a script that it does not know), or more than ``limit`` without ``truncate``.
        ModelError: when the tokenizer gives ids of fewer or more sentences than it was given.
    """
    special = set(getattr(tokenizer, "all_special_ids", ()))
    special.discard(getattr(tokenizer, "unk_token_id", None))  # that stands for some text
    options = {"add_special_tokens": True, "padding": False, "return_attention_mask": False}
    ids = tokenizer(list(texts), truncation=False, verbose=False, **options)["input_ids"]
    if len(ids) != len(texts):
        raise ModelError(
            f"tokenizer: expected the ids of {len(texts)} sentences, got those of {len(ids)}",
            kind="tokenizer",
        )
    for position, sentence in enumerate(ids):
        if all(token in special for token in sentence):
            few = "no tokens but special ones" if sentence else "no tokens"
            raise CorpusError(
                f"corpus: {where(first + position)} gives {few}: {texts[position][:40]!r}",
                kind="tokenizer",
            )
        if limit is not None and len(sentence) > limit:
            if not truncate:
                raise CorpusError(
                    f"corpus: {where(first + position)} has {len(sentence)} tokens, the model "
                    f"takes {limit} (truncate=True, --truncate or a plan's truncate: true cuts it)",
                    kind="too long",
                )
            # by the tokenizer itself, which keeps the special tokens at the end
            cut = tokenizer(texts[position], truncation=True, max_length=limit, **options)
            ids[position] = cut["input_ids"]
    offsets = np.zeros(len(ids) + 1, dtype=np.int64)
    np.cumsum([len(sentence) for sentence in ids], out=offsets[1:])
    flat = np.fromiter((i for s in ids for i in s), dtype=np.int32, count=int(offsets[-1]))
    return TokenChunk(first, flat, offsets)


def chunks_ahead(
    texts: Sequence[str],
    tokenizer: Any,
    *,
    limit: int | None,
    truncate: bool,
    where: Callable[[int], str],
) -> Iterator[TokenChunk]:
    """Tokenise chunk by chunk in a thread, a few chunks ahead of the reader, in constant memory."""

    def make(first: int) -> TokenChunk:
        with record_function("tokenise"):
            return tokenise(
                texts[first : first + CHUNK],
                tokenizer,
                first=first,
                limit=limit,
                truncate=truncate,
                where=where,
            )

    starts = deque(range(0, len(texts), CHUNK))
    pending: deque[Future[TokenChunk]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="ilo-fast-tokens") as pool:
        try:
            while starts or pending:
                while starts and len(pending) < _AHEAD:
                    pending.append(pool.submit(make, starts.popleft()))
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def tokenizer_sha256(tokenizer: Any) -> str:
    """SHA-256 of what decides a tokenizer's ids, but for a limit on their number.

    Of a fast tokenizer its whole definition, less the truncation and padding that its last call
    happened to set; of another its class, vocabulary, settings and the files it saves. Of both
    the ids they give to some text, which settings such as a source language decide.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        # Calls set what stands before the model, whose vocabulary takes seconds to parse.
        head, found, model_text = backend.to_str().partition(',"model":')
        definition = json.loads(head + "}" if found else head)
        parts = {**definition, "truncation": None, "padding": None, "model_text": model_text}
    else:
        settings = getattr(tokenizer, "init_kwargs", {})
        parts = {
            "class": type(tokenizer).__name__,
            "vocabulary": tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else {},
            "special": getattr(tokenizer, "special_tokens_map", {}),
            "settings": {name: on for name, on in settings.items() if isinstance(on, int)},
            "added": repr(getattr(tokenizer, "added_tokens_decoder", {})),
            "files": _vocabulary_files(tokenizer),
        }
    special = getattr(tokenizer, "all_special_tokens", [])
    probes = [*_PROBES, *(f"a {token} b" for token in special)]
    parts["ids"] = tokenizer(probes, truncation=False, verbose=False)["input_ids"]
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _vocabulary_files(tokenizer: Any) -> dict[str, str]:
    """SHA-256 of what a Python tokenizer saves (merges, say, are in no vocabulary), by name."""
    if not hasattr(tokenizer, "save_vocabulary"):
        return {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            tokenizer.save_vocabulary(folder)
        except NotImplementedError:  # it has no files
            return {}
        files = sorted(path for path in Path(folder).iterdir() if path.is_file())
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
