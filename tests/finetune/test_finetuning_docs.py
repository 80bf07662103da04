"""The script in docs/finetuning.md, run on a tiny model."""

import re
from pathlib import Path

import torch
import transformers
from tiny import save_tiny_model

from ilo_fast import Result

DOCS = Path(__file__).parents[2] / "docs" / "finetuning.md"


def test_the_script_runs_as_it_stands(tmp_path, capsys):
    script = re.search(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)[1]
    assert len([line for line in script.splitlines() if line.strip()]) <= 15

    folder = save_tiny_model(tmp_path / "model", max_position_embeddings=512)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    config = transformers.AutoConfig.from_pretrained(folder, num_hidden_layers=10)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    changes = {
        "google/gemma-3-270m": str(folder),
        "max_steps=1000": "max_steps=2, use_cpu=True, disable_tqdm=True",
        '"out"': repr(str(tmp_path / "out")),
        '"tensorboard"': '"none"',
    }
    for old, new in changes.items():
        assert old in script
        script = script.replace(old, new)
    rows = [{"input_ids": ids, "labels": ids} for ids in torch.randint(3, 100, (8, 12))]
    names = {"my_dataset": rows}
    exec(compile(script, str(DOCS), "exec"), names)

    table = Result.read_parquet(tmp_path / "out" / "alignment.parquet").table
    assert table["step"].unique().tolist() == [0, 2]
    assert len(table) == 2 * 11 * 16
    shown = capsys.readouterr().out
    assert "layers 0–7" in shown
    # layers 0 to 7 and the embeddings are frozen: entries 0 to 8 cannot have moved
    scores = table.set_index(["step", "layer", "language"])[["ilo", "translation_hit"]]
    for layer in range(9):
        assert scores.loc[0, layer].equals(scores.loc[2, layer])
