"""`score --states`: states kept in a folder, resumed after kill -9, read by later commands."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
import torch

from ilo_fast import Corpus, cli, extract, score, score_states, sources
from ilo_fast.activations.disk import open_store
from ilo_fast.activations.runner import Runner
from ilo_fast.errors import InputError
from ilo_fast.models import load_model
from ilo_fast.results import read_parquet
from ilo_fast.sources import read_inputs

BATCHES_BEFORE_THE_KILL = 7

# The command itself, but for a kill -9 while a batch is written: its data are there, its line in
# the journal is not.
KILLED = f"""
import os, signal, sys
from ilo_fast.activations import disk
from ilo_fast.cli import main

write, done = disk.DiskSink.write, []

def killed(self, start, rows, block):
    if len(done) == {BATCHES_BEFORE_THE_KILL}:
        self._states[:, rows[:1]] = block.numpy()[:, :1]
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(write(self, start, rows, block))

disk.DiskSink.write = killed
main(sys.argv[1:])
"""


@pytest.fixture
def corpus(parallel_text):
    return Corpus("made-up", tuple(parallel_text), tuple(map(tuple, parallel_text.values())))


@pytest.fixture
def passes(monkeypatch):
    """The number of sentences of every forward pass of extraction."""
    counted, run = [], Runner.run

    def counting(self, row, lengths):
        counted.append(len(lengths))
        return run(self, row, lengths)

    monkeypatch.setattr(Runner, "run", counting)
    return counted


def run_cli(*arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    assert ended.value.code == 0


def test_kill_9_then_the_same_command_gives_the_same_table(
    tiny_model, corpus_folder, tmp_path, run
):
    def arguments(states, out):
        given = ["score", tiny_model, "--corpus", corpus_folder, "--batch-tokens", 20, "--quiet"]
        return [str(one) for one in (*given, "--states", states, "--out", out, "--no-plots")]

    states, out, undisturbed = tmp_path / "states", tmp_path / "out", tmp_path / "undisturbed"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments(states, out)], timeout=240, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists() or list(out.iterdir()) == []
    journal = (states / "journal.jsonl").read_text().splitlines()
    assert len(journal) == BATCHES_BEFORE_THE_KILL
    kept = sum(line["stop"] - line["start"] for line in map(json.loads, journal))

    assert run(*arguments(states, out))[0] == 0
    assert run(*arguments(tmp_path / "others", undisturbed))[0] == 0
    table = (undisturbed / "scores.csv").read_bytes()
    assert len(table.splitlines()) == 1 + 4 * 4
    assert (out / "scores.csv").read_bytes() == table
    name = "states.safetensors"
    assert (states / name).read_bytes() == (tmp_path / "others" / name).read_bytes()
    resumed, made = (
        json.loads((folder / "run.json").read_text())["extraction"] for folder in (out, undisturbed)
    )
    assert (resumed["states"], resumed["sentences_kept"]) == ("resumed", kept)
    assert (made["states"], made["store"]) == ("made", "disk")
    assert "sentences_kept" not in made


def test_another_k_and_metric_read_the_states(tiny_model, corpus, tmp_path, passes):
    states = tmp_path / "states"
    first = score(tiny_model, corpus, states=states, batch_tokens=40)
    made = first.record["extraction"]
    assert made["states"] == "made"
    assert sum(passes) == corpus.n_points
    passes.clear()
    again = score(tiny_model, corpus, k=3, threshold=2, metric="euclidean", states=str(states))
    assert passes == []
    assert again.record["extraction"] == {**made, "states": "read"}
    assert {"load", "tokenise", "forward"} <= again.record["timeline"].keys()
    fresh = score(tiny_model, corpus, k=3, threshold=2, metric="euclidean", batch_tokens=40)
    pd.testing.assert_frame_equal(again.table, fresh.table, check_exact=True)


def test_states_of_something_else_are_refused(tiny_model, corpus, tmp_path):
    score(tiny_model, corpus, states=tmp_path / "states")
    with pytest.raises(InputError, match=r"states of another run, they differ in pool"):
        score(tiny_model, corpus, states=tmp_path / "states", pool="last")
    way = r"they differ in layers, shape; .* without MODEL, in Python ilo_fast\.score_states"
    with pytest.raises(InputError, match=way):
        score(tiny_model, corpus, states=tmp_path / "states", layers="0")
    assert score_states(tmp_path / "states", layers="0").table["layer"].unique().tolist() == [0]
    score(tiny_model, corpus, states=tmp_path / "first", layers="0")
    with pytest.raises(InputError, match=r"they differ in layers, shape; .* delete this one$"):
        score(tiny_model, corpus, states=tmp_path / "first")
    with pytest.raises(TypeError, match="states must be a folder or an ActivationStore, got int"):
        score(tiny_model, corpus, states=3)


def test_compare_and_plot_take_the_folder(tiny_model, corpus_folder, tmp_path, capsys, monkeypatch):
    states = tmp_path / "states"
    arguments = ("score", tiny_model, "--corpus", corpus_folder, "--quiet", "--no-plots")
    run_cli(*arguments, "--out", tmp_path / "out", "--states", states)
    run_cli("compare", states, tmp_path / "out", "--out", tmp_path / "both", "--no-plots")
    differences = pd.read_parquet(tmp_path / "both" / "compare.parquet")
    assert len(differences) > 0
    assert (differences["difference"] == 0).all()
    capsys.readouterr()
    run_cli("compare", states, states, "--out", tmp_path / "same", "--no-plots")
    said = "share most neighbours at layers 0 and 0: 1.000, as at 3 other pairs (unrelated"
    assert said in capsys.readouterr().out
    with pytest.raises(InputError, match="threshold must be at most 3"):
        read_inputs([states, states], threshold=4)
    monkeypatch.chdir(states)
    ((source,),) = read_inputs(["."])
    assert source.name == "states"
    run_cli("plot", states, "--kind", "map", "--layer", 2, "--out", tmp_path / "map.svg")
    assert (tmp_path / "map.svg").read_text().count("<svg") == 1
    scored = read_parquet(tmp_path / "out" / "scores.parquet")
    assert scored.record["extraction"]["states"] == "made"


def test_plot_finds_states_beside_the_scores(tiny_model, corpus_folder, tmp_path, capsys):
    both = tmp_path / "both"
    arguments = ("score", tiny_model, "--corpus", corpus_folder, "--quiet", "--no-plots")
    run_cli(*arguments, "--out", both, "--states", both, "--k", 4, "--metric", "euclidean")
    run_cli(*arguments, "--out", tmp_path / "apart", "--states", tmp_path / "states", "--k", 4)
    given = ("--k", 4, "--metric", "euclidean", "--layer", 2)
    for kind in ("map", "neighbours"):
        one, other = tmp_path / "one.png", tmp_path / "both.png"
        run_cli("plot", both, "--kind", kind, "--out", one, "--layer", 2)
        shutil.copytree(tmp_path / "states", tmp_path / kind / "both")
        run_cli("plot", tmp_path / kind / "both", "--kind", kind, "--out", other, *given)
        assert one.read_bytes() == other.read_bytes()
    run_cli(*arguments, "--out", both, "--pool", "last")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main(["plot", str(both), "--kind", "map", "--out", str(tmp_path / "no.png")])
    assert "states are of another run than the scores beside them" in capsys.readouterr().err


def test_states_beside_scores_of_some_layers_serve_plot_and_compare(
    tiny_model, corpus_folder, tmp_path, capsys
):
    both, apart = tmp_path / "both", tmp_path / "apart"
    run_cli("score", tiny_model, "--corpus", corpus_folder, "--quiet", "--no-plots",
            "--out", apart, "--states", both)  # fmt: skip
    again = ("score", "--states", both, "--quiet", "--no-plots", "--k", 4, "--layers", "1:3")
    run_cli(*again, "--out", both)
    run_cli(*again, "--out", apart, "--metrics", "neighbors")
    run_cli("plot", both, "--kind", "map", "--out", tmp_path / "map.png", "--layer", 2)
    run_cli("compare", both, apart, "--out", tmp_path / "compare")
    table = pd.read_parquet(tmp_path / "compare" / "compare.parquet")
    assert set(table["over"]) == {"sentences"}
    assert sorted(table["layer"].unique()) == [1, 2]
    assert (table[["difference", "low", "high"]] == 0).all(axis=None)
    assert (tmp_path / "compare" / "overlap.png").is_file()


def test_states_beside_scores_of_the_public_code_are_searched_as_it_does(
    tiny_model, corpus_folder, tmp_path, capsys, monkeypatch
):
    both, exact = tmp_path / "both", tmp_path / "exact"
    run_cli("score", tiny_model, "--corpus", corpus_folder, "--quiet", "--no-plots",
            "--out", both, "--states", both)  # fmt: skip
    again = ("score", "--states", both, "--quiet", "--no-plots")
    run_cli(*again, "--out", exact, "--metrics", "neighbors")
    run_cli(*again, "--out", both, "--reference")
    searched, score_layers = [], sources.score_layers

    def noting(store, options, **rest):
        searched.append(options.engine)
        return score_layers(store, options, **rest)

    monkeypatch.setattr(sources, "score_layers", noting)
    capsys.readouterr()
    run_cli("compare", both, exact, "--out", tmp_path / "compare")
    assert searched == ["reference"]
    said = " ".join(capsys.readouterr().out.split())
    assert "both has the neighbours of the public code (--reference), exact exact ones" in said


def test_states_of_another_text_model_or_dtype_are_refused(tiny_model, corpus, tmp_path):
    loaded = load_model(tiny_model)
    store = extract(loaded.model, loaded.tokenizer, corpus, folder=tmp_path / "states")
    in_memory = extract(loaded.model, loaded.tokenizer, corpus)
    assert "weights_sha256" not in in_memory.record  # hashing costs as much as some sentences
    scored = score(loaded, corpus, states=store)
    assert scored.record["model"]["weights_sha256"] == store.record["weights_sha256"]
    pd.testing.assert_frame_equal(scored.table, score(loaded, corpus).table, check_exact=True)

    turned = tuple(reversed(corpus.sentences[0]))
    other = Corpus("made-up", corpus.languages, (turned, *corpus.sentences[1:]))
    with pytest.raises(InputError, match=r"states: made with corpus_sha256 \w{64}; asked for are"):
        score(loaded, other, states=store)
    with pytest.raises(InputError, match=r"made with dtype float32, weights_sha256 \w{64}; asked"):
        score(load_model(tiny_model, dtype="bfloat16"), corpus, states=store)
    unlabelled = replace(store, record={})
    renamed = replace(unlabelled, languages=("xyz_Latn", *store.languages[1:]))
    for states, options, said in (
        (store, {"layers": "1:"}, r"layers \(0, 1, 2, 3\); asked for are layers \(1, 2, 3\)"),
        (store, {"truncate": True}, "truncate False; asked for are truncate True"),
        (unlabelled, {"limit": 6}, "points .*; asked for are points "),
        (renamed, {}, r"languages \('xyz_Latn', .*; asked for are languages "),
    ):
        with pytest.raises(InputError, match=f"states: made with {said}"):
            score(loaded, corpus, states=states, **options)
    with torch.no_grad():
        next(loaded.model.parameters())[0, 0] += 1
    with pytest.raises(InputError, match=r"states: made with weights_sha256 \w{64}; asked for are"):
        score(loaded, corpus, states=store)
    with pytest.raises(InputError, match=r"states: made with corpus_sha256 \w{64}; asked for are"):
        score(loaded, other, states=in_memory)
    by_hand = replace(store, record={})
    assert score(loaded, corpus, states=by_hand).record["extraction"] == {}
    with pytest.raises(InputError, match="made with dtype float16; asked for are dtype float32"):
        score(loaded, corpus, states=replace(store, record={"dtype": "float16"}))


def test_a_folder_says_what_its_states_are_of(tiny_model, corpus, tmp_path):
    loaded = load_model(tiny_model)
    made = extract(loaded.model, loaded.tokenizer, corpus, folder=tmp_path / "states")
    path = tmp_path / "states" / "record.json"  # as it was before it held the hashes
    record = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in record.items() if not k.endswith("sha256")}))
    again = extract(loaded.model, loaded.tokenizer, corpus, folder=tmp_path / "states")
    for store in (open_store(tmp_path / "states"), again):
        for name in ("weights_sha256", "corpus_sha256"):
            assert store.record[name] == made.record[name]
