"""From the runs in the work folder to the table, the summary and the picture."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from settings import Config

from ilo_fast import Corpus, Result
from ilo_fast.files import staged
from ilo_fast.finetune import score_change
from ilo_fast.results import COLUMNS

SAMPLES, LEVEL = 1000, 0.95
LABELS = {
    "full": "all trained",
    "freeze_first": "first layers frozen",
    "freeze_last": "last layers frozen",
}
COLOURS = {"full": "#c0392b", "freeze_first": "#1f77b4", "freeze_last": "#e69f00"}


def summarise(
    work: Path, out: Path, corpus: Corpus, config: Config, arms: list[str], record: dict
) -> None:
    """Write ``<arm>-<seed>.parquet``, ``summary.json`` and ``change.png`` into ``out``.

    The tables are those that a training's callback grows, so `ilo-fast compare` reads them.
    """
    before = _read(work / "before")
    runs = {arm: [_read(work / f"{arm}-{seed}") for seed in config.seeds] for arm in arms}
    others = [code for code in corpus.languages if code != config.language]
    groups = {"trained language": [config.language], "other languages": others}
    languages = np.array(corpus.languages)[corpus.language_ids].tolist()
    settings = {"samples": SAMPLES, "level": LEVEL, "seed": 0}

    record = {**record, "bootstrap": settings}
    arms_said = {}
    for arm, done in runs.items():
        change = score_change(
            before["indices"],
            [run["indices"] for run in done],
            languages,
            corpus.sentence_ids,
            groups=groups,
            **settings,
        )
        arms_said[arm] = {
            "frozen": done[0]["frozen"],
            "trainable": done[0]["trainable"],
            "tokens": done[0]["tokens"],
            "losses": [run["losses"] for run in done],
            "seconds": [run["seconds"] for run in done],
            "change": {
                group: {
                    name: {
                        "estimate": moved.estimate.tolist(),
                        "low": moved.low.tolist(),
                        "high": moved.high.tolist(),
                        "runs": moved.runs.tolist(),
                    }
                    for name, moved in scores.items()
                }
                for group, scores in change.items()
            },
            "bits_per_byte": _bits_change(
                before, done, corpus, {"all": corpus.languages, **groups}
            ),
        }
    summary = {
        "record": record,
        "before": {
            "layers": _layer_means(before),
            "bits_per_byte": dict(zip(corpus.languages, _per_byte(before["bits"]), strict=True)),
        },
        "arms": arms_said,
    }
    with staged(out) as temporary:
        for arm, done in runs.items():
            for seed, run in zip(config.seeds, done, strict=True):
                table = pd.concat([_rows(before, 0), _rows(run, config.steps)], ignore_index=True)
                about = {"kind": "training", "arm": arm, "seed": seed, **record}
                Result(table, about).write_parquet(temporary / f"{arm}-{seed}.parquet")
        text = json.dumps(_rounded(summary), ensure_ascii=False, indent=1)
        (temporary / "summary.json").write_text(text + "\n", encoding="utf-8")
        _draw(summary, config, temporary / "change.png")
    _print(summary, config, out)


def _read(folder: Path) -> dict:
    said = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    with np.load(folder / "arrays.npz") as arrays:
        return {**said, "indices": arrays["indices"], "bits": arrays["bits"]}


def _rows(run: dict, step: int) -> pd.DataFrame:
    return pd.DataFrame(run["columns"])[list(COLUMNS)].assign(step=step)


def _layer_means(run: dict) -> dict[str, list[float]]:
    means = pd.DataFrame(run["columns"]).groupby("layer")[["ilo", "translation_hit"]].mean()
    return {name: means[name].tolist() for name in means}


def _per_byte(bits: np.ndarray) -> list[float]:
    """Bits per byte of each language, from ``[languages, sentences, (bits, bytes)]``."""
    return (bits[:, :, 0].sum(axis=1) / bits[:, :, 1].sum(axis=1)).tolist()


def _bits_change(before: dict, done: list[dict], corpus: Corpus, groups: dict) -> dict:
    """Change of bits per byte: each language, and means over groups with paired intervals."""
    count = corpus.n_sentences
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), SAMPLES)
    weights = np.concatenate([np.ones((1, count)), drawn])

    def per_byte(bits: np.ndarray) -> np.ndarray:  # [1 + draws, languages]
        totals = np.einsum("ds,lsb->dlb", weights, bits)
        return totals[..., 0] / totals[..., 1]

    base = per_byte(before["bits"])
    moved = np.stack([per_byte(run["bits"]) - base for run in done])  # [runs, draws, languages]
    found = {}
    for group, members in {"all": corpus.languages, **groups}.items():
        places = [corpus.languages.index(code) for code in members]
        mean = moved[:, :, places].mean(axis=(0, 2))
        low, high = np.quantile(mean[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        found[group] = {
            "estimate": mean[0],
            "low": low,
            "high": high,
            "runs": moved[:, 0][:, places].mean(axis=1).tolist(),
        }
    found["languages"] = {
        code: moved[:, 0, place].mean() for place, code in enumerate(corpus.languages)
    }
    return found


def _rounded(value):
    """Six decimals are more than the intervals carry."""
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(entry) for entry in value]
    return round(float(value), 6) if isinstance(value, float | np.floating) else value


def _draw(summary: dict, config: Config, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    left, right, below, bits = figure.subplots(2, 2).flat
    start = np.array(summary["before"]["layers"]["ilo"])
    layers = np.arange(len(start))
    left.plot(layers, start, color="black", label="before training")
    for arm, said in summary["arms"].items():
        change = said["change"]["all"]
        after = start + change["ilo"]["estimate"]
        left.plot(layers, after, color=COLOURS[arm], label=LABELS[arm])
        for axes, name in ((right, "ilo"), (below, "translation_hit")):
            _band(axes, layers, change[name], COLOURS[arm], LABELS[arm])
    left.set(title="ILO before and after", xlabel="layer", ylabel="ILO, mean over languages")
    left.legend(frameon=False)
    right.set(title="Change of ILO", xlabel="layer", ylabel="after − before")
    below.set(title="Change of translation hit@5", xlabel="layer", ylabel="after − before")
    languages = list(summary["before"]["bits_per_byte"])
    height = np.arange(len(languages))
    for arm, said in summary["arms"].items():
        moved = said["bits_per_byte"]["languages"]
        bits.plot(
            [moved[code] for code in languages], height, "o", color=COLOURS[arm], ms=5, alpha=0.8
        )
    bits.set_yticks(height, [f"{c} *" if c == config.language else c for c in languages])
    bits.invert_yaxis()
    bits.set(title="Change of bits per byte (* trained on)", xlabel="after − before")
    for axes in (left, right, below):
        axes.set_xticks(layers[::2])
    for axes in (right, below):
        axes.axhline(0, color="0.6", lw=0.8, zorder=0)
    bits.axvline(0, color="0.6", lw=0.8, zorder=0)
    for axes in (left, right, below, bits):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"{config.steps} steps on {config.language}, {len(config.seeds)} seeds; "
        f"bands: 95 % over sentences, thin lines: single seeds",
        fontsize=11,
    )
    figure.savefig(path, dpi=110)


def _band(axes, layers, change: dict, colour: str, label: str) -> None:
    axes.fill_between(layers, change["low"], change["high"], color=colour, alpha=0.18, lw=0)
    axes.plot(layers, change["estimate"], color=colour, label=label)
    for run in change["runs"]:
        axes.plot(layers, run, color=colour, lw=0.5, alpha=0.6)


def _print(summary: dict, config: Config, out: Path) -> None:
    third = -(-(len(summary["before"]["layers"]["ilo"]) - 1) // 3)
    spans = {"early": slice(1, 1 + third), "middle": slice(1 + third, 1 + 2 * third)}
    spans["late"] = slice(1 + 2 * third, None)
    for arm, said in summary["arms"].items():
        moved = said["change"]["all"]
        shown = [
            f"{name} {np.mean(moved['ilo']['estimate'][span]):+.3f}" for name, span in spans.items()
        ]
        bits = said["bits_per_byte"]
        shown += [
            f"bits/byte {group} {bits[group]['estimate']:+.3f} "
            f"[{bits[group]['low']:+.3f}, {bits[group]['high']:+.3f}]"
            for group in ("trained language", "other languages")
        ]
        print(f"{arm:13} ILO {'; '.join(shown)}")
    print(f"Written to {out}")
