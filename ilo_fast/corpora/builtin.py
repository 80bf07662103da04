"""The demo corpus that comes with the package."""

from collections.abc import Iterable
from importlib.resources import files

from ilo_fast.corpora.corpus import Corpus, choose_languages
from ilo_fast.corpora.folder import assemble

__all__ = ["read_demo"]


def read_demo(languages: Iterable[str] | None = None) -> Corpus:
    """40 everyday sentences in 16 languages of 10 scripts, written for this project.

    >>> from ilo_fast.corpora.builtin import read_demo
    >>> demo = read_demo()
    >>> demo.n_languages, demo.n_sentences, demo.licence
    (16, 40, 'Apache-2.0')
    """
    folder = files("ilo_fast.corpora") / "demo"
    available = sorted(
        entry.name.removesuffix(".txt") for entry in folder.iterdir() if entry.name.endswith(".txt")
    )
    chosen = choose_languages(languages, available, where="the demo corpus")
    contents = {f"{language}.txt": (folder / f"{language}.txt").read_bytes() for language in chosen}
    return Corpus(
        "demo",
        chosen,
        assemble(contents, "demo"),
        source="ilo_fast, built in",
        licence="Apache-2.0",
        notes=("written for ilo_fast; too small for published results",),
    )
