"""The tables beside the scores: each number from the metric's own function or counted by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from ilo_fast import Corpus, cli, extract, score
from ilo_fast.alignment import bootstrap_intervals, hubness, ilo_null, pair_scores
from ilo_fast.companions import METRICS, SETTINGS, Companions, check_metrics
from ilo_fast.compare import compare
from ilo_fast.errors import InputError
from ilo_fast.models import load_model
from ilo_fast.results import COLUMNS, SCORES
from ilo_fast.sources import read_sources

K, THRESHOLD = 4, 2
FILES = {
    "language_metrics.csv",
    "language_metrics.parquet",
    "layer_metrics.csv",
    "layer_metrics.parquet",
    "neighbors.parquet",
    "pair_metrics.csv",
    "pair_metrics.parquet",
}


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setitem(SETTINGS, "permutations", 29)
    monkeypatch.setitem(SETTINGS, "samples", 30)


@pytest.fixture
def corpus(parallel_text):
    return Corpus("made-up", tuple(parallel_text), tuple(map(tuple, parallel_text.values())))


@pytest.fixture
def kept():
    """The neighbours of every layer that `score` found."""
    return {}


@pytest.fixture
def result(tiny_model, corpus, kept):
    return score(
        str(tiny_model),
        corpus,
        k=K,
        threshold=THRESHOLD,
        metrics="all",
        seed=7,
        each_layer=lambda layer, found: kept.__setitem__(layer, found.indices.numpy()),
    )


# ---------------------------------------------------------------- by hand

# Two languages of two sentences: points 0 1 (a: sentences 0 1) and 2 3 (b: sentences 0 1).
HAND = np.array([[2, 1], [0, 3], [0, 3], [2, 0]])
TEXT = Corpus("hand", ("a", "b"), (("x", "y"), ("u", "v")))


def test_hand_made_lists():
    more = Companions(("mrr", "fragments", "hubness", "neighbors"), TEXT, threshold=1, seed=0)
    more.add(3, HAND, None)
    tables = more.tables()
    assert set(tables) == {"language_metrics", "layer_metrics", "neighbors"}
    languages = tables["language_metrics"]
    # ranks of the translation: 0 → 2 first; 1 → 3 second; 2 → 0 first; 3 → 1 never
    assert languages["translation_mrr"].tolist() == [0.75, 0.5]
    # every point has one neighbour of the other language
    assert languages["interlingual"].tolist() == [1.0, 1.0]
    assert languages["fragmented"].tolist() == [0.0, 0.0]
    (layer,) = tables["layer_metrics"].to_dict("records")
    assert layer["layer"] == 3
    assert [layer[f"interlingual_{name}"] for name in ("points", "components", "largest")] == [
        4,
        1,
        4,
    ]
    assert layer["interlingual_largest_languages"] == 2
    assert [layer[f"fragmented_{name}"] for name in ("points", "components", "largest")] == [0] * 3
    assert layer["fragmented_largest_languages"] == 0
    # point 0 is in three lists, 1 in one, 2 and 3 in two; k = 2
    assert layer["orphans"] == 0
    assert layer["hubs"] == 0
    assert layer["hub_skewness"] == pytest.approx(0)
    assert [row.tolist() for row in tables["neighbors"]["neighbors"]] == HAND.tolist()


def test_metrics_are_checked():
    assert check_metrics(["pairs", "mrr", "mrr"]) == ("mrr", "pairs")
    assert check_metrics(("all", "mrr")) == METRICS
    assert check_metrics(()) == ()
    for bad in ("mrr,", "ilo", ["all", "hub"]):
        with pytest.raises(InputError, match="metrics must be among mrr, fragments"):
            check_metrics(bad)
    for bad in ([1], 1, None):
        with pytest.raises(TypeError, match="metrics must be names"):
            check_metrics(bad)


def test_pairs_need_their_sentences_before_a_model_is_loaded(corpus):
    with pytest.raises(InputError, match="pairs averages over 10 sentences, the corpus has 3"):
        score("no/such-model", corpus, limit=3, metrics=["pairs"])


# ---------------------------------------------------------------- of a model


def test_core_table_is_the_same_with_and_without(result, tiny_model, corpus):
    plain = score(str(tiny_model), corpus, k=K, threshold=THRESHOLD)
    assert plain.companions == {}
    assert tuple(result.table.columns) == COLUMNS
    pd.testing.assert_frame_equal(result.table, plain.table, check_exact=True)
    assert result.record["options"]["metrics"] == list(METRICS)
    assert result.record["options"]["metric_settings"]["permutations"] == 29
    assert plain.record["options"]["metrics"] == []


def test_one_row_a_language_and_layer_from_the_metrics_own_functions(result, corpus, kept):
    lists = np.stack([kept[layer] for layer in sorted(kept)])
    table = result.companions["language_metrics"]
    assert table["layer"].tolist() == result.table["layer"].tolist()
    assert table["language"].tolist() == result.table["language"].tolist()
    np.testing.assert_array_equal(table["interlingual"], result.table["bridge"])
    assert (table["translation_mrr"] <= result.table["translation_hit"]).all()
    ids, sentences = corpus.language_ids, corpus.sentence_ids
    ranges = bootstrap_intervals(lists, ids, sentences, threshold=THRESHOLD, samples=30, seed=7)
    null = ilo_null(lists, ids, threshold=THRESHOLD, permutations=29, seed=7)
    layers = result.companions["layer_metrics"]
    for name in SCORES:
        np.testing.assert_array_equal(table[f"{name}_low"], getattr(ranges, name).low.ravel())
        np.testing.assert_array_equal(table[f"{name}_high"], getattr(ranges, name).high.ravel())
        np.testing.assert_array_equal(layers[f"{name}_high"], ranges.mean[name].high)
    entries = hubness(lists)
    np.testing.assert_array_equal(layers["hub_skewness"], entries.skewness)
    for name in ("orphans", "hubs", "hub_entries"):
        np.testing.assert_array_equal(layers[name], getattr(entries, name))
    for column, attribute in (
        ("ilo_null", "null_mean"),
        ("ilo_null_sd", "null_std"),
        ("ilo_p", "p_value"),
        ("ilo_p_lower", "p_lower"),
        ("ilo_calibrated", "score"),
    ):
        np.testing.assert_array_equal(table[column], getattr(null.ilo, attribute).ravel())
        np.testing.assert_array_equal(layers[column], getattr(null.mean_ilo, attribute))


def test_pairs_are_every_two_languages(result, corpus, kept, tiny_model):
    table = result.companions["pair_metrics"]
    size = corpus.n_languages
    assert len(table) == len(kept) * size * size
    loaded = load_model(str(tiny_model))
    states = extract(loaded.model, loaded.tokenizer, corpus).states
    truth = pair_scores(states, corpus.language_ids, corpus.sentence_ids)
    for name in ("retrieval", "xsim_ratio", "xsim_distance", "csls", "mexa"):
        np.testing.assert_array_equal(table[name], getattr(truth, name).ravel())
    own = table["a"] == table["b"]
    assert table[own]["mexa"].isna().all()
    assert table[~own]["mexa"].notna().all()
    # who neighbours whom, counted one neighbour at a time
    counted = dict.fromkeys(zip(table["layer"], table["a"], table["b"], strict=True), 0)
    for layer, lists in kept.items():
        for point, row in enumerate(lists):
            for other in row:
                a, b = (corpus.languages[corpus.language_ids[at]] for at in (point, other))
                counted[layer, a, b] += 1
    assert table["neighbors"].tolist() == list(counted.values())
    shares = table.groupby(["layer", "a"])["share"].sum()
    np.testing.assert_allclose(shares, 1.0)


def test_files_beside_the_scores_and_what_reads_them(result, kept, tmp_path):
    result.save(tmp_path / "run", plots=False)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == FILES | {"run.json", "scores.csv", "scores.parquet"}
    metadata = pq.read_schema(tmp_path / "run" / "pair_metrics.parquet").metadata
    assert (
        metadata[b"ilo_fast"]
        == pq.read_schema(tmp_path / "run" / "scores.parquet").metadata[b"ilo_fast"]
    )
    csv = pd.read_csv(tmp_path / "run" / "language_metrics.csv", engine="pyarrow")
    pd.testing.assert_frame_equal(
        csv, result.companions["language_metrics"], check_exact=True, check_dtype=False
    )
    [source] = read_sources(tmp_path / "run")
    np.testing.assert_array_equal(source.lists, np.stack([kept[layer] for layer in sorted(kept)]))
    for name, table in source.result.companions.items():
        pd.testing.assert_frame_equal(table, result.companions[name], check_dtype=False)
    # with the lists on both sides, intervals are over sentences, and the overlap is there
    found = compare([[source], [source]], samples=5)
    assert set(found.table["over"]) == {"sentences"}
    assert len(found.overlaps) == 1


def test_companions_of_another_run_are_refused(result, tmp_path):
    result.save(tmp_path, plots=False)
    later = replace(result, record={**result.record, "finished": "later"}, companions={})
    later.write_parquet(tmp_path / "scores.parquet")  # `save` would take the tables away
    with pytest.raises(InputError, match=r"language_metrics\.parquet' is of another run"):
        read_sources(tmp_path)


# ---------------------------------------------------------------- the command


def test_the_command_takes_metrics(tiny_model, corpus_folder, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["score", tiny_model, "--corpus", corpus_folder, "--out", out, "--k", "4"]
    with pytest.raises(SystemExit) as ended:
        cli.main([*map(str, arguments), "--metrics", "mrr,null", "--quiet"])
    assert ended.value.code == 0
    assert "language_metrics.csv" in capsys.readouterr().out
    columns = list(pd.read_csv(out / "language_metrics.csv").columns)
    assert columns[:3] == ["layer", "language", "translation_mrr"]
    assert "ilo_p" in columns
    assert not (out / "pair_metrics.csv").exists()


def test_unknown_metrics_are_one_line(tiny_model, corpus_folder, tmp_path, capsys):
    arguments = ["score", tiny_model, "--corpus", corpus_folder, "--out", tmp_path / "out"]
    with pytest.raises(SystemExit) as ended:
        cli.main([*map(str, arguments), "--metrics", "hubs", "--quiet"])
    assert ended.value.code == 2
    assert "metrics must be among" in capsys.readouterr().err
