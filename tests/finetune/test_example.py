"""The experiment, whole, on a tiny model: what it writes and what it refuses."""

import importlib.util
import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import WORDS, save_tiny_model

from ilo_fast import Corpus, Result

pytestmark = pytest.mark.xdist_group("example")  # one process makes the run

RUN = Path(__file__).parents[2] / "examples" / "single_language_finetuning" / "run.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("example")
    save_tiny_model(folder / "model", max_position_embeddings=128)
    (folder / "text").mkdir()
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(WORDS, 40)) for _ in range(60)]
    (folder / "text" / "a.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


def words(folder, corpus_folder, *more):
    """The command's."""
    given = (
        RUN, "--config", "small", "--model", folder / "model", "--corpus", corpus_folder,
        "--language", "eng_Latn", "--text", folder / "text", "--layers", "1", "--steps", "1",
        "--work", folder / "work", "--out", folder / "out", *more,
    )  # fmt: skip
    return [str(word) for word in given]


@pytest.fixture
def run_here(monkeypatch):
    """Run the script with these words in this process, which has loaded what it imports."""

    def run(given):
        monkeypatch.setattr(sys, "argv", given)
        monkeypatch.syspath_prepend(RUN.parent)
        runpy.run_path(str(RUN), run_name="__main__")

    return run


@pytest.fixture
def finished(folder, corpus_folder):
    """The folder with the experiment in it: run by the first test of this process that asks."""
    if not (folder / "out" / "summary.json").is_file():
        command = [sys.executable, *words(folder, corpus_folder, "--seeds", "0", "1")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
    return folder


def test_whole_experiment(finished):
    folder = finished
    summary = json.loads((folder / "out" / "summary.json").read_text(encoding="utf-8"))
    tables = {
        (arm, seed): Result.read_parquet(folder / "out" / f"{arm}-{seed}.parquet").table
        for arm in ("full", "freeze_first", "freeze_last")
        for seed in (0, 1)
    }
    for arm in ("full", "freeze_first", "freeze_last"):
        moved = summary["arms"][arm]["change"]["all"]["ilo"]
        expected = []
        for seed in (0, 1):
            assert len(tables[arm, seed]) == 2 * 4 * 4  # steps × layers × languages
            means = tables[arm, seed].groupby(["step", "layer"])["ilo"].mean()
            expected.append((means[1] - means[0]).to_numpy())
        np.testing.assert_allclose(moved["runs"], expected, atol=2e-6)
        np.testing.assert_allclose(moved["estimate"], np.mean(expected, 0), atol=2e-6)
    trainable = {arm: said["trainable"] for arm, said in summary["arms"].items()}
    assert trainable["full"] > trainable["freeze_first"] == trainable["freeze_last"]
    # frozen embeddings and first layer: their states cannot have moved
    for seed in (0, 1):
        low = tables["freeze_first", seed].query("layer <= 1").drop(columns="step")
        before, after = low[: len(low) // 2], low[len(low) // 2 :]
        assert before.reset_index(drop=True).equals(after.reset_index(drop=True))
    assert (folder / "out" / "change.png").stat().st_size > 10_000
    assert summary["record"]["vocabulary"] > 0
    assert all(np.isfinite(v) for v in summary["before"]["bits_per_byte"].values())


def test_finished_runs_are_not_done_again(finished, corpus_folder, run_here):
    before = {path: path.stat().st_mtime_ns for path in (finished / "work").rglob("run.json")}
    run_here(words(finished, corpus_folder, "--seeds", "0", "1"))
    after = {path: path.stat().st_mtime_ns for path in (finished / "work").rglob("run.json")}
    assert before == after
    assert before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--steps", "0"), "argument --steps: must be at least 1, got 0"),
        (("--corpus", "nowhere"), "corpus: no such file or folder: 'nowhere'"),
    ],
)
def test_what_cannot_be_run_is_said_in_a_line(folder, corpus_folder, run_here, capsys, more, said):
    with pytest.raises(SystemExit) as ended:  # Python prints a message that it holds
        run_here(words(folder, corpus_folder, *more))
    assert ended.value.code != 0
    line = (capsys.readouterr().err or ended.value.code).splitlines()[-1]
    assert said in line


def test_evaluation_text_is_not_trained_on(parallel_text):
    spec = importlib.util.spec_from_file_location("example_text", RUN.with_name("text.py"))
    text = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(text)
    corpus = Corpus.from_mapping(parallel_text)
    leak = max(parallel_text["eng_Latn"], key=len)
    assert len(leak) >= 30
    passed = text.refuse_evaluation_text(["clean", f"xx {leak} yy"], corpus)
    assert next(passed) == "clean"
    with pytest.raises(SystemExit, match="a sentence of the evaluation corpus"):
        next(passed)
