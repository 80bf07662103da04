"""A small corpus and its states in a folder, for tests."""

from families import SENTENCES, Characters, make

from ilo_fast import Corpus, extract

CORPUS = Corpus("pair", ("one", "two"), SENTENCES)
BUDGET = 30


def keep(folder, corpus=CORPUS, model=None, **options):
    model = make("llama") if model is None else model
    options = {"batch_tokens": BUDGET, **options}
    return extract(model, Characters(), corpus, folder=folder, **options)
