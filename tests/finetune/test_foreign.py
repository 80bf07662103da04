"""With the real Lightning, PEFT and TensorBoard."""

import importlib.util
from pathlib import Path

import pandas as pd
import pytest
import torch
import transformers

from ilo_fast import Corpus, Result, finetune
from ilo_fast.errors import InputError, ModelError
from ilo_fast.finetune import ILOCallback, freeze

pytestmark = pytest.mark.adapters
STEPS = 4
LIGHTNING = "lightning.pytorch" if importlib.util.find_spec("lightning") else "pytorch_lightning"


def needs(name):
    missing = importlib.util.find_spec(name.partition(".")[0]) is None
    return pytest.mark.skipif(missing, reason=f"needs {name}: make test-adapters")


@pytest.fixture
def corpus(parallel_text):
    return Corpus.from_mapping(parallel_text, name="tiny")


@pytest.fixture
def model(tiny_model):
    return transformers.AutoModelForCausalLM.from_pretrained(
        tiny_model, attention_dropout=0.3, dtype=torch.float32
    )


@pytest.fixture
def tokenizer(tiny_model):
    return transformers.AutoTokenizer.from_pretrained(tiny_model)


def rows():
    return [{"input_ids": torch.arange(3, 11) + at, "labels": torch.arange(3, 11) + at}
            for at in range(2 * STEPS)]  # fmt: skip


def trainer_of(model, tokenizer, folder, **options):
    args = transformers.TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=2, max_steps=STEPS, logging_steps=1,
        save_strategy="no", disable_tqdm=True, use_cpu=True, **options,
    )  # fmt: skip
    return transformers.Trainer(
        model=model, args=args, train_dataset=rows(), processing_class=tokenizer,
        data_collator=transformers.default_data_collator,
    )  # fmt: skip


@needs("tensorboard")
def test_tensorboard_shows_the_scores(model, tokenizer, corpus, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    trainer = trainer_of(model, tokenizer, tmp_path / "out", report_to=["tensorboard"])
    callback = ILOCallback(corpus, every=2).attach(trainer)
    trainer.train()
    board = EventAccumulator(str(tmp_path / "board"))
    board.Reload()
    table = callback.result.table
    for name, group, layer in (("ilo", "early", 1), ("translation_hit", "late", 3)):
        shown = {event.step: event.value for event in board.Scalars(f"train/{name}/{group}")}
        means = table[table["layer"] == layer].groupby("step")[name].mean()
        assert shown == pytest.approx(means.to_dict(), abs=1e-6)
        assert list(shown) == [0, 2, 4]


@needs("peft")
def test_adapters_of_the_first_layers_stay_and_the_watched_model_is_the_adapted_one(
    model, tokenizer, corpus, tmp_path
):
    import peft

    adapted = peft.get_peft_model(
        model, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    )
    report = freeze(adapted, first=2)
    trainable = [name for name, weight in adapted.named_parameters() if weight.requires_grad]
    assert len(trainable) == 4
    assert all(".layers.2." in name and "lora" in name for name in trainable)
    assert all(part.already < part.parameters for part in report.parts if "layer" in part.part)
    trainer = trainer_of(adapted, tokenizer, tmp_path, report_to=[], learning_rate=0.1)
    callback = ILOCallback(corpus, every=2).attach(trainer)
    trainer.train()
    states = callback.result.table.set_index(["step", "layer", "language"])["translation_hit"]
    ilo = callback.result.table.set_index(["step", "layer", "language"])["ilo"]
    for scores in (states, ilo):  # only layer 2's output, entry 3, can have moved
        assert scores[0][[0, 1, 2]].tolist() == scores[STEPS][[0, 1, 2]].tolist()
    assert (ilo[0][3].tolist(), states[0][3].tolist()) != (
        ilo[STEPS][3].tolist(),
        states[STEPS][3].tolist(),
    )
    report.undo()
    assert sum(w.requires_grad for w in adapted.parameters()) == 12


def lightning_parts(model):
    lightning = importlib.import_module(
        "lightning.pytorch" if LIGHTNING == "lightning" else LIGHTNING
    )

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = model

        def training_step(self, batch, _):
            loss = self.model(**batch).loss
            self.log("loss", loss)
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    return lightning, Module()


def fit(lightning, module, callbacks, folder, **options):
    module.train()  # Lightning leaves modes as they are, and from_pretrained gives evaluation mode
    trainer = lightning.Trainer(
        max_steps=STEPS, callbacks=callbacks, default_root_dir=str(folder), accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        log_every_n_steps=1, **options,
    )  # fmt: skip
    torch.manual_seed(5)
    data = torch.utils.data.DataLoader(rows() * 3, batch_size=2)
    trainer.fit(module, data)
    return trainer


@needs(LIGHTNING)
def test_lightning(tiny_model, tokenizer, corpus, tmp_path):
    from ilo_fast.finetune import LightningILOCallback

    def fresh():
        return transformers.AutoModelForCausalLM.from_pretrained(
            tiny_model, attention_dropout=0.3, dtype=torch.float32
        )

    lightning, module = lightning_parts(fresh())
    logger = lightning.loggers.CSVLogger(str(tmp_path / "logs"))
    callback = LightningILOCallback(corpus, tokenizer=tokenizer, every=1)
    fit(lightning, module, [callback], tmp_path, logger=logger, accumulate_grad_batches=2)
    table = Result.read_parquet(tmp_path / "alignment.parquet").table
    assert table["step"].unique().tolist() == list(range(STEPS + 1))
    logger.finalize("success")
    logged = pd.read_csv(Path(logger.log_dir) / "metrics.csv").dropna(subset="ilo/early")
    assert logged["step"].tolist() == list(range(STEPS + 1))
    for row in logged.to_dict("records"):
        means = table[(table["step"] == row["step"]) & (table["layer"] == 2)]
        assert row["bridge/middle"] == pytest.approx(means["bridge"].mean())

    _, plain = lightning_parts(fresh())
    fit(lightning, plain, [], tmp_path / "plain", logger=False, accumulate_grad_batches=2)
    for ours, theirs in zip(module.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@needs(LIGHTNING)
def test_lightning_with_two_optimisers(model, tokenizer, corpus, tmp_path):
    from ilo_fast.finetune import LightningILOCallback

    lightning, single = lightning_parts(model)

    class Two(type(single)):
        automatic_optimization = False

        def training_step(self, batch, _):
            loss = self.model(**batch).loss
            self.manual_backward(loss)
            for optimizer in self.optimizers():
                optimizer.step()

        def configure_optimizers(self):
            parts = self.model.lm_head, self.model.model
            return [torch.optim.SGD(part.parameters(), lr=0.1) for part in parts]

    callback = LightningILOCallback(corpus, tokenizer=tokenizer, every=(1, 3))
    trainer = fit(lightning, Two(), [callback], tmp_path, logger=False)
    assert trainer.global_step == STEPS
    assert callback.result.table["step"].unique().tolist() == [0, 2, 4]


@needs(LIGHTNING)
def test_lightning_finds_the_model_or_asks(model, tokenizer, corpus, tmp_path):
    from ilo_fast.finetune import LightningILOCallback

    lightning, module = lightning_parts(model)
    module.second = transformers.AutoModel.from_config(model.config)
    with pytest.raises(InputError, match="holds 2 transformers models"):
        fit(lightning, module, [LightningILOCallback(corpus, tokenizer=tokenizer)], tmp_path)
    callback = LightningILOCallback(corpus, tokenizer=tokenizer, attribute="model", every=2)
    fit(lightning, module, [callback], tmp_path, logger=False)
    assert callback.result.table["step"].unique().tolist() == [0, 2, 4]
    with pytest.raises(InputError, match="no such module"):
        fit(lightning, module, [LightningILOCallback(corpus, tokenizer=tokenizer, attribute="x")],
            tmp_path)  # fmt: skip
    with pytest.raises(InputError, match="tokenizer"):
        LightningILOCallback(corpus, attribute="model")


def test_without_lightning_the_message_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "ilo_fast.finetune.lightning", raising=False)
    monkeypatch.delitem(vars(finetune), "LightningILOCallback", raising=False)
    taken = {}
    exec("from ilo_fast.finetune import *", taken)
    assert taken["ILOCallback"] is ILOCallback
    with pytest.raises(ModelError, match="pip install"):
        importlib.import_module("ilo_fast.finetune.lightning")
    sys.modules.pop("ilo_fast.finetune.lightning", None)
