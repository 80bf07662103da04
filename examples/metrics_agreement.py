"""Which metrics agree on a model? Per-layer means and rank correlations across layers.

    python examples/metrics_agreement.py MODEL --corpus FOLDER --limit 30 --out agreement.json

MODEL is a hub id, a folder or a GGUF file; FOLDER holds one `<language>.txt` a language. Prints
two Markdown tables and writes the same numbers as JSON. `docs/metrics.md` shows them.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from ilo_fast import extract, ilo_scores, knn, load_corpus
from ilo_fast.alignment import (
    hubness,
    pair_scores,
    same_language,
    translation_hit,
    translation_mrr,
)
from ilo_fast.files import write_text
from ilo_fast.models import load_model


def layer_means(states, languages, sentences, k, pivot):
    """Metric → its mean over languages or pairs in each layer, [layers]."""
    found = knn(states, k)
    ilo = ilo_scores(found, languages)
    pairs = pair_scores(states, languages, sentences)
    mean = {
        "bridge": ilo.bridge.mean(axis=1),
        "reach": ilo.reach.mean(axis=1),
        "ILO": ilo.ilo.mean(axis=1),
        f"hit@{k}": translation_hit(found, languages, sentences).mean(axis=1),
        "MRR": translation_mrr(found, languages, sentences).mean(axis=1),
        "same language": same_language(found, languages).mean(axis=1),
        "hub skewness": hubness(found).skewness,
    }
    for name, values in (
        ("P@1", pairs.retrieval),
        ("xSIM ratio", pairs.xsim_ratio),
        ("xSIM distance", pairs.xsim_distance),
        ("CSLS", pairs.csls),
        ("MEXA, all pairs", pairs.mexa),
    ):
        mean[name] = np.nanmean(values, axis=(1, 2))
    mean[f"MEXA, {pivot}"] = np.nanmean(pairs.mexa_to(pivot), axis=1)
    return mean


def markdown(header, rows):
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def main():
    """Read the command line, score, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--limit", type=int, help="sentences per language")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--pool", default="mean", choices=["mean", "weighted", "last"])
    parser.add_argument("--pivot", default="eng_Latn")
    parser.add_argument("-k", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--save-states", type=Path, help="also keep the hidden states, as .npz")
    arguments = parser.parse_args()

    corpus = load_corpus(arguments.corpus, limit=arguments.limit)
    loaded = load_model(arguments.model, dtype=arguments.dtype)
    store = extract(loaded.model, loaded.tokenizer, corpus, pool=arguments.pool)
    languages = [corpus.languages[number] for number in corpus.language_ids]
    if arguments.save_states:
        np.savez(
            arguments.save_states,
            states=store.states.numpy(),
            languages=np.array(languages),
            sentences=corpus.sentence_ids,
        )
    means = layer_means(store.states, languages, corpus.sentence_ids, arguments.k, arguments.pivot)

    names = list(means)
    table = np.stack([means[name] for name in names], axis=1)
    rank = np.asarray(spearmanr(table).statistic)
    print(
        markdown(
            ["layer", *names],
            [
                [str(layer), *(f"{v:.3f}" for v in row)]
                for layer, row in zip(store.layers, table, strict=True)
            ],
        )
    )
    print()
    print(
        markdown(
            ["", *names],
            [[name, *(f"{v:+.2f}" for v in row)] for name, row in zip(names, rank, strict=True)],
        )
    )

    record = {
        "model": loaded.name,
        "dtype": arguments.dtype,
        "pool": arguments.pool,
        "corpus_sha256": corpus.sha256,
        "languages": list(corpus.languages),
        "sentences": corpus.n_sentences,
        "k": arguments.k,
        "layers": list(store.layers),
        "means": {name: values.tolist() for name, values in means.items()},
        "spearman_across_layers": {"names": names, "matrix": rank.tolist()},
    }
    write_text(arguments.out, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
