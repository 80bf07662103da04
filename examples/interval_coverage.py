"""How often do the bootstrap's intervals hold what they are about? On a real model's neighbours.

The sentences of a run play the population: samples of them are drawn with replacement, their
neighbours' languages kept, and each sample's 95 % interval is asked whether it holds the score's
mean over all samples. Once as `ilo_fast.alignment.bootstrap_intervals` has it, once as plain
percentiles of the draws.

    ilo-fast score MODEL --corpus FLORES_DEV --limit 60 --metrics neighbors --out RESULT
    python examples/interval_coverage.py RESULT --layers 7 11 15 --sample 30
"""

import argparse

import numpy as np

from ilo_fast.alignment.intervals import interval
from ilo_fast.ilo import harmonic
from ilo_fast.sources import read_inputs

SCORES = ("bridge", "reach", "ilo")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("result", help="a results folder with neighbour lists")
    parser.add_argument("--layers", type=int, nargs="+", required=True)
    parser.add_argument("--sample", type=int, default=30, help="sentences")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--draws", type=int, default=300)
    given = parser.parse_args()
    [[source]] = read_inputs([given.result])
    print("share of intervals that hold the score: of one language, of the mean over languages")
    for layer in given.layers:
        found = coverage(source, source.layers.index(layer), given)
        for score in SCORES:
            shares = "   ".join(
                f"{kind} {one:.2f} {mean:.2f}" for kind, (one, mean) in found[score].items()
            )
            print(f"layer {layer:3}  {score:6}  {shares}")


def coverage(source, row: int, given) -> dict[str, dict[str, tuple[float, float]]]:
    """score → kind of interval → shares of one language and of the mean."""
    lists = source.lists[row]
    language, sentence = np.asarray(source.language_ids), np.asarray(source.sentence_ids)
    count, sentences = len(source.languages), int(sentence.max()) + 1
    seen = np.zeros((sentences, count, count), dtype=bool)
    seen[sentence[:, None], language[:, None], language[lists]] = True
    seen[:, np.arange(count), np.arange(count)] = False
    threshold, random = source.settings["threshold"], np.random.default_rng(0)

    def even(size: int, draws: int, of: int) -> np.ndarray:
        return random.multinomial(size, np.full(of, 1 / of), draws)

    many = [scores(even(given.sample, 500, sentences), seen, threshold) for _ in range(16)]
    truth = {name: np.concatenate([one[name] for one in many]).mean(axis=0) for name in SCORES}
    held: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for _ in range(given.trials):
        chosen = seen[random.integers(0, sentences, given.sample)]
        weights = even(given.sample, given.draws, given.sample)
        weights = np.concatenate([np.ones((1, given.sample), dtype=weights.dtype), weights])
        for name, values in scores(weights, chosen, threshold).items():
            for kind, score in (("ours", name), ("percentiles", "bridge")):
                inside = []
                for drawn, target in ((values, truth[name]), (values.mean(axis=1), None)):
                    target = truth[name].mean() if target is None else target
                    low, high = interval(drawn[0], drawn[1:], score, 0.95, (0, 1))
                    inside.append(np.mean((low <= target) & (target <= high)))
                held.setdefault((name, kind), []).append((inside[0], inside[1]))
    return {
        name: {kind: tuple(np.mean(held[name, kind], axis=0)) for kind in ("ours", "percentiles")}
        for name in SCORES
    }


def scores(weights: np.ndarray, seen: np.ndarray, threshold: int) -> dict[str, np.ndarray]:
    """Of each draw and language ``[draws, languages]``; weights count each sentence."""
    draws, count = len(weights), seen.shape[1]
    bridges = (seen.sum(axis=2) >= threshold).astype(np.float64)
    bridge = weights @ bridges / weights.sum(axis=1, keepdims=True)
    met = weights.astype(np.float32) @ seen.reshape(len(seen), -1).astype(np.float32) > 0
    reach = met.reshape(draws, count, count).sum(axis=2) / (count - 1)
    return {"bridge": bridge, "reach": reach, "ilo": harmonic(bridge, reach)}


if __name__ == "__main__":
    main()
