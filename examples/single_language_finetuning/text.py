"""Training text: a folder or a public corpus, cut into sequences of tokens."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from ilo_fast import Corpus


def read_folder(folder: Path) -> list[str]:
    """The paragraphs (lines) of a folder's .txt files."""
    files = sorted(folder.glob("*.txt"))
    if not files:
        raise SystemExit(f"--text: {folder} holds no .txt files")
    lines = [line.strip() for file in files for line in file.read_text("utf-8").splitlines()]
    return [line for line in lines if line]


def read_dataset(name: str, configuration: str) -> Iterator[str]:
    """The articles of a public corpus, streamed by the `datasets` package."""
    import datasets

    stream = datasets.load_dataset(name, configuration, split="train", streaming=True)
    yield from (row["text"] for row in stream)


def refuse_evaluation_text(documents: Iterable[str], corpus: Corpus) -> Iterator[str]:
    """Pass documents on; stop at one that holds a sentence of the corpus that is scored."""
    sentences = {text for text in corpus.texts if len(text) >= 30}
    for document in documents:
        if document in sentences or any(text in document for text in sentences):
            raise SystemExit(
                "the training text holds a sentence of the evaluation corpus: "
                f"{document[:80]!r}; train on other text"
            )
        yield document


def take(documents: Iterable[str], tokenizer, tokens: int) -> list[str]:
    """As many documents, from the first on, as hold so many tokens."""
    taken, count = [], 0
    for document in documents:
        taken.append(document)
        count += len(tokenizer(document)["input_ids"])
        if count >= tokens:
            return taken
    raise SystemExit(f"the training text has {count:,} tokens, the experiment takes {tokens:,}")


def sequences(documents: list[str], tokenizer, *, length: int, count: int) -> torch.Tensor:
    """The first ``count`` runs of ``length`` tokens, int64 ``[count, length]``.

    Documents follow each other, each begun as the tokenizer begins a text.
    """
    ids = [id_ for document in documents for id_ in tokenizer(document)["input_ids"]]
    return torch.tensor(ids[: length * count]).view(count, length)
