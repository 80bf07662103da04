"""`score_states`: kept hidden states scored again, without their model and corpus."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from ilo_fast import ActivationStore, cli, extract, load_corpus, score, score_states
from ilo_fast.activations import open_store
from ilo_fast.errors import HiddenStateError, InputError
from ilo_fast.models import load_model
from ilo_fast.models.fingerprint import weights_sha256
from ilo_fast.results import read_parquet


def made_by_hand(record=None):
    points = np.random.default_rng(0).standard_normal((3, 24, 6)).astype(np.float32)
    return ActivationStore(
        torch.from_numpy(points),
        (0, 2, 5),
        ("deu_Latn", "eng_Latn", "swh_Latn"),
        np.repeat(np.arange(3), 8),
        np.tile(np.arange(8), 3),
        {"pool": "mean"} if record is None else record,
    )


@pytest.fixture
def kept(tiny_model, corpus_folder, tmp_path):
    """A folder of states, the result they were made for, and neither model nor corpus."""
    model = shutil.copytree(tiny_model, tmp_path / "model")
    corpus = shutil.copytree(corpus_folder, tmp_path / "corpus")
    result = score(model, corpus, k=4, threshold=2, metrics="mrr", states=tmp_path / "states")
    other = score(load_model(model), corpus, k=3, threshold=1, metric="euclidean", layers="1,-1")
    shutil.rmtree(model)
    shutil.rmtree(corpus)
    return tmp_path / "states", result, other


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


def test_kept_states_give_what_their_model_gave(kept):
    states, result, other = kept
    again = score_states(states, k=4, threshold=2, metrics="mrr")
    pd.testing.assert_frame_equal(again.table, result.table, check_exact=True)
    pd.testing.assert_frame_equal(
        again.companions["language_metrics"], result.companions["language_metrics"]
    )
    for part in ("model", "corpus"):
        assert again.record[part] == result.record[part]
    assert again.record["extraction"]["states"] == "read"
    assert "about" not in again.record["extraction"]
    others = score_states(states, k=3, threshold=1, metric="euclidean", layers="1,-1")
    pd.testing.assert_frame_equal(others.table, other.table, check_exact=True)
    assert others.record["options"]["layers"] == other.record["options"]["layers"]
    assert score_states(open_store(states), k=4, name="mine").table["model"].unique() == ["mine"]


def test_layers_come_ascending_whatever_the_order_of_the_states():
    store = made_by_hand()
    turned = replace(store, states=store.states.flip(0), layers=store.layers[::-1])
    for layers in (None, "5,0"):
        result, other = (
            score_states(of, k=4, threshold=2, layers=layers) for of in (store, turned)
        )
        pd.testing.assert_frame_equal(result.table, other.table, check_exact=True)
        assert result.record["options"]["layers"] == other.record["options"]["layers"]
        assert other.record["options"]["layers"] == sorted(other.record["options"]["layers"])
    with pytest.raises(InputError, match="the states hold 0, 2, 5; layer 1 was asked for"):
        score_states(turned, threshold=2, layers=1)


def test_the_command_needs_neither_model_nor_corpus(kept, capsys, tmp_path):
    states, result, _ = kept
    given = ("score", "--states", states, "--k", 4, "--threshold", 2, "--no-plots", "--quiet")
    code, shown, said = run(capsys, *given, "--out", tmp_path / "out")
    assert (code, said) == (0, "")
    assert "model on corpus (" in shown
    assert "hidden states read, not made" in shown
    table = read_parquet(tmp_path / "out" / "scores.parquet").table
    pd.testing.assert_frame_equal(table, result.table)
    for option, value in [("--dtype", "float32"), ("--corpus", "demo"), ("--limit", 3)]:
        code, _, said = run(capsys, *given, "--out", tmp_path / "none", option, value)
        assert code == 2
        assert f"{option} wants a MODEL" in said
        assert not (tmp_path / "none").exists()
    code, _, said = run(capsys, "score", "--out", tmp_path / "none")
    assert (code, "Missing argument 'MODEL'" in said) == (2, True)
    code, _, said = run(capsys, "score", "some/model", "--out", tmp_path / "none")
    assert (code, "Missing option '--corpus'" in said) == (2, True)


def test_states_made_by_hand_tell_what_they_know():
    seen = []
    result = score_states(
        made_by_hand(record={"corpus_sha256": "abc"}),
        k=4,
        threshold=1,
        layers="0,5",
        each_layer=lambda layer, found: seen.append((layer, tuple(found.indices.shape))),
    )
    assert seen == [(0, (24, 4)), (5, (24, 4))]
    assert result.table["layer"].unique().tolist() == [0, 5]
    assert result.record["model"]["name"] == "states"
    assert result.record["corpus"]["sha256"] == "abc"
    assert result.record["corpus"]["sentences"] == 8


def test_layers_count_as_in_the_model():
    store = made_by_hand(record={"about": {"model": {"name": "m", "n_layers": 5}}})
    assert score_states(store, threshold=2, layers=-1).table["layer"].unique() == [5]
    deeper = replace(store, record={"about": {"model": {"name": "m", "n_layers": 9}}})
    assert deeper.n_sentences == 8
    with pytest.raises(InputError, match="the states hold 0, 2, 5; layer 9 was asked for"):
        score_states(deeper, threshold=2, layers=-1)


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({}, {"threshold": 3}, InputError, "threshold"),
        ({}, {"k": 24}, InputError, "k must be"),
        ({}, {"metric": "manhattan"}, InputError, "metric must be one of"),
        ({}, {"device": "balanced"}, InputError, "device: expected one to search on"),
        ({}, {"device": "tpu"}, InputError, "device: expected"),
        ({}, {"backend": "faiss"}, InputError, "backend"),
        ({}, {"metrics": "all", "threshold": 2}, InputError, "pairs averages over 10 sentences"),
        ({"language_ids": np.tile(np.arange(3), 8)}, {"threshold": 2}, InputError, "states: expec"),
        (
            {"sentence_ids": np.arange(24)},
            {"threshold": 2},
            InputError,
            "language_ids and sentence",
        ),
        ({}, {"threshold": 2, "name": 3}, TypeError, "name must be the model's, got int"),
        ({"languages": ()}, {"threshold": 2}, InputError, "states: expected the points"),
    ],
)
def test_what_is_refused(change, options, error, message):
    with pytest.raises(error, match=message):
        score_states(replace(made_by_hand(), **change), **options)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"states": np.zeros((3, 24, 6))}, TypeError, "states must be a tensor, got ndarray"),
        (
            {"states": torch.zeros(24, 6)},
            InputError,
            r"states: expected .* torch.float32 \[24, 6\]",
        ),
        ({"states": torch.zeros(3, 24, 6).int()}, InputError, r"states: expected .* torch.int32"),
        ({"states": torch.zeros(3, 23, 6)}, InputError, "language_ids: expected .* 23 points"),
        ({"sentence_ids": np.arange(20)}, InputError, r"sentence_ids: .* got shape \[20\]"),
        ({"layers": (0, 1)}, InputError, r"layers: expected 3 different .* got \[0, 1\]"),
        ({"layers": (0, 0, 1)}, InputError, "layers: expected 3 different numbers"),
        ({"layers": ("a", 1, 2)}, TypeError, "layers must be"),
        ({"languages": ("de", "de", "fr")}, InputError, "languages: expected different names"),
        ({"languages": (1, 2, 3)}, InputError, "languages: expected different names"),
        ({"record": None}, TypeError, "record must be a mapping, got NoneType"),
    ],
)
def test_a_store_whose_parts_do_not_fit_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        replace(made_by_hand(), **change)


@pytest.mark.parametrize(
    "about",
    [
        "x",
        {"model": 3},
        {"model": {"name": None}},
        {"model": {"n_layers": "6"}},
        {"corpus": {"sentences": "12"}},
    ],
)
def test_a_damaged_record_is_named(kept, about):
    path = kept[0] / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "about": about}))
    with pytest.raises(InputError, match=r"record.json in .* is damaged \(its about cannot be"):
        score_states(kept[0])


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_record_with_numbers_that_json_has_not_is_named(kept, number):
    path = kept[0] / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "seconds": number}))
    with pytest.raises(InputError, match=r"record.json in .* is damaged \(it holds (NaN|Infinity)"):
        score_states(kept[0])


def test_what_is_no_state_is_named(tmp_path):
    with pytest.raises(TypeError, match="states must be a folder or an ActivationStore, got float"):
        score_states(1.5)
    with pytest.raises(InputError, match="holds no finished states"):
        score_states(tmp_path)
    with pytest.raises(InputError, match=r"^states: there is no folder .*nothing"):
        score_states(tmp_path / "nothing")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"^states: .*file is no folder"):
        score_states(tmp_path / "file")
    store = made_by_hand()
    store.states[1, 3] = torch.nan
    with pytest.raises(HiddenStateError, match=r"^layer 2 of the states: .*found NaN in row 3 "):
        score_states(store, k=4, threshold=1)


def test_extract_says_of_states_what_it_is_told(tiny_model, corpus_folder, tmp_path):
    loaded, corpus = load_model(tiny_model), load_corpus(corpus_folder)
    about = {"model": {"name": "step 400"}, "corpus": {"name": "mine"}}
    extract(loaded.model, loaded.tokenizer, corpus, folder=tmp_path / "states", about=about)
    result = score_states(tmp_path / "states", threshold=2)
    assert result.model == "step 400"
    assert result.record["corpus"]["name"] == "mine"
    assert result.record["corpus"]["sha256"] == corpus.sha256
    assert result.record["model"]["weights_sha256"] == weights_sha256(loaded.model)
    for wrong in ("step 400", {"model": "step 400"}):
        with pytest.raises(InputError, match="about must map model and corpus to mappings"):
            extract(loaded.model, loaded.tokenizer, corpus, about=wrong)


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device: python -m benchmarks gpu"
)
def test_a_card_gives_what_the_cpu_gives():
    options = {"k": 4, "threshold": 1, "metrics": "mrr,null,intervals,hubness,neighbors"}
    here, there = (score_states(made_by_hand(), device=at, **options) for at in ("cpu", "cuda"))
    pd.testing.assert_frame_equal(there.table, here.table, check_exact=True)
    assert there.companions.keys() == here.companions.keys()
    for name, table in here.companions.items():
        pd.testing.assert_frame_equal(there.companions[name], table)
    assert there.record["device"]["id"].startswith("cuda")
