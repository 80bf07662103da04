"""`score` end to end on a tiny random model, against the plain float64 pipeline of the tests."""

import json
import re
from importlib import metadata

import numpy as np
import oracle
import pandas as pd
import pytest
import torch

from ilo_fast import Corpus, extract, pipeline, score
from ilo_fast.errors import CorpusError, HiddenStateError, InputError, ModelError
from ilo_fast.models import load_model
from ilo_fast.progress import Progress

K, THRESHOLD = 4, 2


@pytest.fixture
def corpus(parallel_text):
    return Corpus("made-up", tuple(parallel_text), tuple(map(tuple, parallel_text.values())))


@pytest.fixture
def result(tiny_model, corpus):
    return score(str(tiny_model), corpus, k=K, threshold=THRESHOLD)


def true_scores(folder, corpus):
    """{(layer, language): scores}, the model run by transformers alone."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    points = oracle.hidden_means(model, AutoTokenizer.from_pretrained(folder), corpus.texts)
    languages = [corpus.languages[at] for at in corpus.language_ids]
    found = {}
    for layer, states in enumerate(points):
        lists = oracle.neighbours(oracle.cosines(states), K)
        by_language = oracle.scores(lists, languages, corpus.sentence_ids, THRESHOLD)
        found.update({(layer, name): row for name, row in by_language.items()})
    return found


def test_every_number_is_the_oracles(result, tiny_model, corpus):
    truth = true_scores(tiny_model, corpus)
    table = result.table
    assert list(zip(table["layer"], table["language"], strict=True)) == list(truth)
    columns = ["bridge", "reach", "reach_count", "ilo", "translation_hit", "same_language"]
    np.testing.assert_allclose(
        table[columns].to_numpy(dtype=float), np.array(list(truth.values())), rtol=1e-12, atol=0
    )
    assert (table["certified"] == 1).all()
    assert (table["n_points"] == corpus.n_sentences).all()
    assert (table["model"] == tiny_model.name).all()
    assert set(table["k"]) == {K}
    assert set(table["threshold"]) == {THRESHOLD}


def test_twice_the_same(result, tiny_model, corpus):
    again = score(str(tiny_model), corpus, k=K, threshold=THRESHOLD, batch_tokens=40)
    pd.testing.assert_frame_equal(again.table, result.table, check_exact=True)


def test_chosen_layers_and_a_loaded_model(result, tiny_model, corpus):
    loaded = load_model(tiny_model)
    some = score(loaded, corpus, k=K, threshold=THRESHOLD, layers="0,-1")
    expected = result.table[result.table["layer"].isin([0, 3])].reset_index(drop=True)
    pd.testing.assert_frame_equal(some.table, expected, check_exact=True)


def test_a_model_cast_in_memory_is_recorded_as_it_is(tiny_model, corpus):
    loaded = load_model(tiny_model)
    loaded.model.bfloat16()
    record = score(loaded, corpus, k=K, threshold=THRESHOLD, layers=0).record
    assert record["model"]["dtype"] == record["extraction"]["dtype"] == "bfloat16"


def test_tables_are_ascending_whatever_the_order_of_the_layers(result, tiny_model, corpus):
    loaded = load_model(tiny_model)
    store = extract(loaded.model, loaded.tokenizer, corpus, layers=[3, 0], batch_tokens=40)
    assert store.layers == (3, 0)
    expected = result.table[result.table["layer"].isin([0, 3])].reset_index(drop=True)
    for layers in ("0,3", [3, 0]):
        given = {"k": K, "threshold": THRESHOLD, "layers": layers}
        for states in (store, None):
            some = score(loaded, corpus, states=states, batch_tokens=40, **given)
            pd.testing.assert_frame_equal(some.table, expected, check_exact=True)
            assert some.record["options"]["layers"] == [0, 3]


def test_languages_and_limit(tiny_model, corpus):
    some = score(tiny_model, corpus, languages=["hin_Deva", "eng_Latn"], limit=7, k=3, threshold=1)
    assert list(dict.fromkeys(some.table["language"])) == ["hin_Deva", "eng_Latn"]
    assert set(some.table["n_points"]) == {7}


def test_the_record_says_how(result, tiny_model, corpus):
    record = json.loads(json.dumps(result.record))
    assert (record["record"], record["kind"]) == (1, "score")
    for key in ("weights_sha256", "tokenizer_sha256"):
        assert re.fullmatch("[0-9a-f]{64}", record["model"].pop(key))
    assert record["model"].pop("tokenizer")  # its class, which versions of transformers name
    assert record["model"] == {
        "name": "tiny-llama", "revision": None, "source": "folder", "licence": None,
        "dtype": "float32", "n_layers": 3, "dim": 32, "max_length": 64,
    }  # fmt: skip
    assert record["corpus"]["sha256"] == corpus.sha256
    assert record["corpus"]["languages"] == list(corpus.languages)
    assert record["options"] == {
        "k": 4, "threshold": 2, "metric": "cosine", "layers": [0, 1, 2, 3], "pool": "mean",
        "device": "auto", "backend": "auto", "reference": False, "metrics": [],
        "batch_tokens": "auto", "dtype": "auto", "fused": "auto", "truncate": False,
        "trust_remote_code": False,
    }  # fmt: skip
    for name in ("torch", "scipy"):
        assert record["versions"][name] == metadata.version(name)
    assert record["device"]["id"] == "cpu"
    assert record["backend"]["name"] == "torch"
    assert record["backend"]["why"].startswith("torch on cpu")
    assert [search["layer"] for search in record["neighbours"]] == [0, 1, 2, 3]
    assert all(search["certified"] == 1 for search in record["neighbours"])
    assert all(seconds >= 0 for seconds in record["timeline"].values())
    assert list(record["timeline"]) == [
        "corpus",
        "load",
        "tokenise",
        "forward",
        "neighbours",
        "scores",
    ]
    assert record["started"] <= record["finished"]
    assert record["seed"] == 0


def test_reference_mode_is_recorded_and_certifies_nothing(tiny_model, corpus):
    result = score(tiny_model, corpus, reference=True)
    assert result.record["backend"] == {"name": "reference", "why": "reference was asked for"}
    assert result.record["options"]["reference"] is True
    assert (result.table["certified"] == 0).all()


def test_the_callers_random_state_stays(tiny_model, corpus):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    score(tiny_model, corpus, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_progress_hears_every_token_and_layer(tiny_model, corpus):
    class Heard(Progress):
        def __init__(self):
            self.stages, self.total, self.tokens, self.sentences, self.layers = [], 0, 0, 0, []
            self.finished = 0

        def stage(self, text):
            self.stages.append(text)

        def start(self, total_tokens):
            self.total = total_tokens

        def advance(self, tokens, sentences):
            self.tokens += tokens
            self.sentences += sentences

        def finish(self):
            self.finished += 1

        def layer(self, done, total):
            self.layers.append((done, total))

    heard = Heard()
    score(tiny_model, corpus, progress=heard)
    assert heard.total == heard.tokens > 0
    assert heard.sentences == corpus.n_points
    assert heard.finished == 1
    assert heard.layers == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert any("3 layers × 32, float32 on cpu" in text for text in heard.stages)


def test_progress_by_a_word(tiny_model, corpus, capfd):
    quiet = score(tiny_model, corpus, progress=False)
    assert capfd.readouterr() == ("", "")
    shown = score(tiny_model, corpus, progress=True)
    out, said = capfd.readouterr()
    assert out == ""
    assert said.startswith("Loading ")
    assert "tokens/s\nNeighbours in " in said
    pd.testing.assert_frame_equal(shown.table, quiet.table)


def test_progress_may_be_any_object_with_the_three_calls(tiny_model, corpus):
    class Three:
        calls = ()

        def start(self, total_tokens):
            self.calls += ("start",)

        def advance(self, tokens, sentences):
            self.calls += ("advance",)

        def finish(self):
            self.calls += ("finish",)

    three = Three()
    score(tiny_model, corpus, progress=three)
    assert (three.calls[0], three.calls[-1]) == ("start", "finish")
    assert set(three.calls[1:-1]) == {"advance"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"k": 0}, InputError, "k must be at least 1; got 0"),
        ({"k": 2.5}, TypeError, "k must be an integer; got 2.5"),
        ({"k": True}, TypeError, "k must be an integer; got True"),
        ({"threshold": np.bool_(True)}, TypeError, "threshold must be an integer"),
        ({"k": np.int64(0)}, InputError, "k must be at least 1; got 0"),
        ({"k": 48}, InputError, r"k must be less than the number of points, 48 .*got 48"),
        ({"threshold": 0}, InputError, "threshold must be at least 1"),
        ({"threshold": 6}, InputError, r"at most 3, .*k = 5 .* 3 languages but its own\); got 6"),
        ({"k": 2}, InputError, r"threshold must be at most 2, .*k = 2 .*; got 3"),
        ({"threshold": 4}, InputError, r"at most 3, .* 3 languages but its own\); got 4"),
        ({"seed": -1}, InputError, "seed must be at least 0 and below 9223372036854775808; got -1"),
        ({"seed": 1 << 63}, InputError, "seed must be at least 0 and below"),
        ({"seed": 0.0}, TypeError, r"seed must be an integer; got 0\.0"),
        ({"metric": "manhattan"}, InputError, "metric must be one of cosine.*'manhattan'"),
        ({"backend": "gpu"}, InputError, "backend must be one of auto.*'gpu'"),
        ({"backend": "torch", "reference": True}, InputError, "brings its own backend"),
        ({"pool": "max"}, InputError, "pool"),
        ({"layers": "9"}, InputError, "layer 9 is not one of the model's layers 0 … 3"),
        ({"layers": "a"}, InputError, "layers must be"),
        ({"languages": ["eng_Latn", "eng_Lat"]}, InputError, "nearest: eng_Latn"),
        ({"languages": ["eng_Latn"]}, InputError, "at least 2"),
        ({"limit": 0}, InputError, "limit"),
        ({"dtype": "int8"}, ModelError, "dtype"),
        ({"device": "abacus"}, ModelError, "device"),
        ({"batch_tokens": 0}, InputError, "batch_tokens"),
        ({"truncate": "no"}, TypeError, "truncate must be True or False; got 'no'"),
        ({"reference": "no"}, TypeError, "reference must be True or False; got 'no'"),
        ({"trust_remote_code": 0}, TypeError, "trust_remote_code must be True or False; got 0"),
        (
            {"progress": 1},
            TypeError,
            "progress must be True or have the methods start, .*; got int",
        ),
    ],
)
def test_bad_arguments_are_named(tiny_model, corpus, options, error, message):
    with pytest.raises(error, match=message):
        score(tiny_model, corpus, **options)


@pytest.mark.parametrize("options", [{"batch_tokens": 0}, {"truncate": 1}, {"fused": "on"}])
def test_bad_options_are_named_before_a_model_is_looked_for(corpus, options):
    with pytest.raises((InputError, TypeError), match=next(iter(options))):
        score("no/such-model", corpus, **options)


def test_a_model_is_loaded_as_asked_for(monkeypatch, corpus):
    asked = {}

    def load(model, **options):
        asked.update(options)
        raise InputError("enough")

    monkeypatch.setattr(pipeline, "load_model", load)
    how = {"revision": "v1", "dtype": "bfloat16", "device": "cpu", "trust_remote_code": True}
    with pytest.raises(InputError, match="enough"):
        score("org/name", corpus, **how)
    assert asked == how


def test_a_loaded_model_takes_no_loading_options(tiny_model, corpus):
    with pytest.raises(InputError, match="tiny-llama is loaded already"):
        score(load_model(tiny_model), corpus, dtype="bfloat16")


def test_one_language_is_too_few(tiny_model):
    with pytest.raises(CorpusError, match="at least 2 languages"):
        score(tiny_model, Corpus("one", ("eng_Latn",), (("a", "b"),)))


def test_nan_names_layer_and_sentence(tiny_model, corpus):
    loaded = load_model(tiny_model)
    text = Corpus("hm", ("aa", "bb"), (("ana bo", "cad", "dun"), ("elo", "fin", "zene")))
    ids = set(loaded.tokenizer("zene")["input_ids"])
    for other in text.texts[:5]:
        ids -= set(loaded.tokenizer(other)["input_ids"])
    assert ids, "the word must have a token of its own"
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight[ids.pop()] = float("nan")
    with pytest.raises(HiddenStateError, match=r"layer 0 .*sentence 3 of bb"):
        score(loaded, text, k=2, threshold=1)


def first_token(states, offsets):
    return states[offsets[:-1]]


def test_a_pooling_function_is_recorded_by_name(tiny_model, corpus, tmp_path):
    result = score(tiny_model, corpus, pool=first_token)
    result.save(tmp_path, plots=False)
    written = json.loads((tmp_path / "run.json").read_text())
    assert written["options"]["pool"] == written["extraction"]["pool"] == "first_token"

    loaded = load_model(tiny_model)
    store = extract(loaded.model, loaded.tokenizer, corpus, pool=first_token)
    again = score(loaded, corpus, pool=first_token, states=store)
    pd.testing.assert_frame_equal(again.table, result.table, check_exact=True)
    with pytest.raises(InputError, match="made with pool first_token; asked for are pool mean"):
        score(loaded, corpus, states=store)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "triton"}, "'triton' cannot serve this search: Triton needs a CUDA device"),
        ({"backend": "cuda"}, "'cuda' cannot serve this search: CUDA C"),
        ({"reference": True, "metric": "inner_product"}, "'reference' cannot serve this search"),
    ],
)
def test_a_search_that_cannot_be_is_refused_before_the_model_runs(
    tiny_model, corpus, monkeypatch, options, message
):
    monkeypatch.setattr("ilo_fast.pipeline.extract", lambda *_, **__: pytest.fail("it ran"))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(InputError, match=message):
        score(tiny_model, corpus, device="cpu", **options)


def test_whole_numbers_of_numpy_are_whole_numbers(result, tiny_model, corpus):
    same = score(tiny_model, corpus, k=np.int64(K), threshold=np.uint8(THRESHOLD))
    pd.testing.assert_frame_equal(same.table, result.table, check_exact=True)
    assert json.dumps(same.record["options"]) == json.dumps(result.record["options"])
