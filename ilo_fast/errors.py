"""Errors a user can cause and mend; the command line shows them as one line."""

__all__ = ["CorpusError", "HiddenStateError", "InputError", "ModelError", "causes"]


class InputError(ValueError):
    """An argument or file that cannot be used: which, what was expected and what came.

    ``kind`` is what a scan's table of failures calls it: the class' own, unless one is given.
    """

    kind = "options"

    def __init__(self, message: str, *, kind: str | None = None) -> None:
        super().__init__(message)
        if kind is not None:
            self.kind = kind


class CorpusError(InputError):
    """A parallel corpus that is missing, misaligned or has unusable sentences."""

    kind = "corpus"


class ModelError(InputError):
    """A model or tokenizer that cannot be loaded or gives no hidden states."""

    kind = "model"


class HiddenStateError(InputError):
    """Hidden states that hold NaN or infinity; the message names layer and sentence."""

    kind = "not finite"


def causes(error: BaseException) -> list[BaseException]:
    """An error, then what caused it or was being handled when it came, and so on."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return chain
