"""``ilo-fast freeze`` on tiny models on disk."""

import json
import re
import shutil

import pytest
import torch

from ilo_fast import cli
from ilo_fast.errors import ModelError
from ilo_fast.finetune import freeze
from ilo_fast.finetune.skeleton import skeleton


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main(["freeze", *map(str, arguments)])
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


def test_dry_run_prints_what_freeze_would_do(capsys, tiny_model, tmp_path):
    from transformers import AutoModelForCausalLM

    out = tmp_path / "report.json"
    status, shown, said = run(capsys, tiny_model, "--first", 2, "--dry-run", "--json", out)
    report = freeze(AutoModelForCausalLM.from_pretrained(tiny_model), first=2)
    assert (status, said) == (0, "")
    assert shown.startswith(str(report))
    assert re.search(r"layers 0–1\s+18\s", shown)
    written = json.loads(out.read_text(encoding="utf-8"))
    assert written.pop("model") == str(tiny_model)
    assert written == report.to_dict()


def test_without_dry_run_it_says_that_nothing_was_frozen(capsys, tiny_model):
    dry = run(capsys, tiny_model, "--first", 2, "--dry-run")
    status, shown, said = run(capsys, tiny_model, "--first", 2)
    assert (status, shown) == dry[:2]
    assert said.startswith("Nothing was frozen")
    assert "ilo_fast.finetune.freeze(model, ...)" in said


def test_options_reach_freeze(capsys, tiny_model):
    status, shown, _ = run(
        capsys, tiny_model, "--first", 1, "--last", 1, "--no-head", "--no-embeddings",
        "--no-final-norm", "--reference-count", "--dry-run",
    )  # fmt: skip
    assert status == 0
    assert "layers 0–2" in shown
    assert not re.search("embeddings|norm|head", shown)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--first", "4", "--dry-run"], "the layer stack has 3"),
        (["--first", "1", "--stack", "decoder", "--dry-run"], "one stack"),
    ],
)
def test_what_cannot_be_is_one_line(capsys, tiny_model, arguments, says):
    status, shown, said = run(capsys, tiny_model, *arguments)
    assert (status, shown) == (2, "")
    assert says in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("./none", "there is no file or folder ./none"),
        ("no/such/folder", "there is no file or folder no/such/folder"),  # and no hub id
        ("empty", "the folder empty holds no config.json"),
        ("notes.txt", "notes.txt is neither a folder nor a .gguf file"),
        ("", "expected a hub id, a folder or a .gguf file, got the text ''"),
    ],
)
def test_no_such_model(capsys, tmp_path, monkeypatch, tiny_model, model, says):
    """Said as score says it; an empty name is not the current folder, here one of a model."""
    shutil.copytree(tiny_model, tmp_path / "here")
    (tmp_path / "here" / "empty").mkdir()
    (tmp_path / "here" / "notes.txt").write_text("no model")
    monkeypatch.chdir(tmp_path / "here")
    status, shown, said = run(capsys, model, "--dry-run")
    assert (status, shown) == (2, "")
    assert said.strip() == f"ilo-fast: model: {says}"


def test_a_configuration_of_wrong_types_is_one_line(capsys, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama", "num_hidden_layers": "2"}')
    status, shown, said = run(capsys, tmp_path, "--dry-run")
    assert (status, shown, said.count("\n")) == (2, "", 1)
    assert "Field 'num_hidden_layers' expected int, got str" in said


def test_skeletons_have_no_weights_and_keep_ties(tiny_model, tmp_path):
    import transformers

    model = skeleton(tiny_model)
    assert all(parameter.device == torch.device("meta") for parameter in model.parameters())
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "vocab_size": 20}
    config = transformers.LlamaConfig(num_hidden_layers=2, tie_word_embeddings=True, **sizes)
    config.save_pretrained(tmp_path / "tied")
    tied = skeleton(tmp_path / "tied")
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    assert freeze(tied, first=1).notes[0].startswith("Tied")
    bert = transformers.BertConfig(num_hidden_layers=2, **sizes)
    bert.save_pretrained(tmp_path / "bert")
    assert type(skeleton(tmp_path / "bert")).__name__.startswith("Bert")
    with pytest.raises(ModelError, match="only a hub id has revisions"):
        skeleton(tiny_model, revision="main")
