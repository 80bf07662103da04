"""Why a job has no result: the kinds of failures, told by what was raised, not by its words."""

import traceback
from dataclasses import dataclass

from ilo_fast.errors import CorpusError, HiddenStateError, InputError, causes
from ilo_fast.ops.memory import out_of_memory

__all__ = ["Failure", "explain_failure"]


@dataclass(frozen=True)
class Failure:
    """Why a job has no result. kind: gated, missing, out of memory, not finite, model,
    tokenizer, too long, corpus, options, died or error. trace: where, for kind error."""

    kind: str
    reason: str
    trace: str = ""


def explain_failure(error: BaseException) -> Failure:
    """The kind of a failure and one line of reason, from an error and what caused it."""
    reason = " ".join(str(error).split()) or type(error).__name__
    kind = _kind(error)
    if kind is not None:
        return Failure(kind, reason)
    trace = "".join(traceback.format_exception(error))
    return Failure("error", f"{type(error).__name__}: {reason}", trace)


def _kind(error: BaseException) -> str | None:
    """None for what nobody foresaw."""
    from huggingface_hub import errors as hub

    chain = causes(error)

    def due_to(*kinds: type[BaseException]) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    if isinstance(error, HiddenStateError):
        return error.kind
    if due_to(MemoryError) or any(map(out_of_memory, chain)):
        return "out of memory"
    if due_to(hub.GatedRepoError):  # of the hub's "not found" too
        return "gated"
    if isinstance(error, CorpusError):  # whose missing files are the corpus'
        return error.kind
    if due_to(
        FileNotFoundError,
        hub.EntryNotFoundError,
        hub.OfflineModeIsEnabled,
        hub.RepositoryNotFoundError,
        hub.RevisionNotFoundError,
    ):
        return "missing"
    return error.kind if isinstance(error, InputError) else None
