"""What watching a training costs: the Trainer with and without `ILOCallback`, default cadence.

Both train the same model on the same batches, in turns; that the losses are equal to the last bit
is checked before anything is reported. Promised: scoring takes at most 2 % of the time spent
training, once training is long enough for more than the two scorings at its ends.

    python -m benchmarks finetune
    python -m benchmarks finetune --model google/gemma-3-270m --device cuda --minutes 30
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import click
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from benchmarks.report import describe_run, write_json
from ilo_fast import Corpus, load_corpus
from ilo_fast.finetune import ILOCallback

_RESULTS = Path(__file__).parent / "results"
PROMISED = 0.02


@click.command()
@click.option("--model", help="Hub id or folder; by default a random Llama, 8 layers × 256.")
@click.option("--corpus", default="demo", show_default=True)
@click.option("--limit", type=int, default=10, show_default=True, help="Sentences a language.")
@click.option("--batch", type=int, default=4, show_default=True, help="Sequences a step.")
@click.option("--length", type=int, default=128, show_default=True, help="Tokens a sequence.")
@click.option("--minutes", type=float, default=4.0, show_default=True, help="Of watched training.")
@click.option("--threads", type=int, default=2, show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), default=_RESULTS / "finetune.json"
)
def command(
    model: str | None,
    corpus: str,
    limit: int,
    batch: int,
    length: int,
    minutes: float,
    threads: int,
    device: str,
    out: Path,
) -> None:
    """Time a watched training beside an unwatched one."""
    torch.set_num_threads(threads)
    text = load_corpus(corpus, limit=limit)
    trial = _train(model, text, None, steps=12, batch=batch, length=length, device=device)
    step = sorted(trial["step_seconds"])[len(trial["step_seconds"]) // 2]
    steps = max(20, int(60 * minutes / step))
    click.echo(f"a step takes {step:.3f} s: {steps} steps, watched")
    callback = ILOCallback(text)
    watched = _train(model, text, callback, steps=steps, batch=batch, length=length, device=device)
    if watched["losses"][: len(trial["losses"])] != trial["losses"]:
        raise click.ClickException("the watched training's losses differ from the unwatched one's")
    cost = callback.watch.cost()
    scored = callback.result.table["step"].unique().tolist()
    # the scoring after the last step is always done, whether or not the share allows it
    last = cost["scoring_seconds"] / len(scored)
    report = {
        **describe_run(threads=threads, minutes=minutes, device=device),
        "model": model or "random Llama, 8 layers × 256",
        "corpus": {"name": text.name, "languages": len(text.languages), "sentences": limit},
        "tokens_a_step": batch * length,
        "steps": steps,
        "step_seconds": step,
        "scored_at": scored,
        "scoring_seconds": cost["scoring_seconds"],
        "training_seconds": cost["training_seconds"],
        "share": cost["share"],
        "share_before_the_last": (cost["scoring_seconds"] - last) / cost["training_seconds"],
        "promised": PROMISED,
    }
    write_json(out, report)
    click.echo(
        f"scored {len(scored)} times, {last:.2f} s each (steps {scored}): {cost['share']:.2%} of "
        f"training, {report['share_before_the_last']:.2%} without the scoring after its end; "
        f"losses equal; {out}"
    )


def _train(
    model: str | None,
    corpus: Corpus,
    callback: ILOCallback | None,
    *,
    steps: int,
    batch: int,
    length: int,
    device: str,
) -> dict[str, list[float]]:
    """Losses and seconds of each step, scoring left out of neither."""
    torch.manual_seed(0)
    if model is None:
        tokenizer = _tokenizer(corpus)
        loaded = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=len(tokenizer), hidden_size=256, intermediate_size=688,
                num_hidden_layers=8, num_attention_heads=4, max_position_embeddings=512,
            )
        )  # fmt: skip
    else:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        loaded = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    rows = torch.randint(3, len(tokenizer), (64 * batch, length))
    seen = _Steps()
    with tempfile.TemporaryDirectory() as folder:
        trainer = transformers.Trainer(
            model=loaded,
            args=transformers.TrainingArguments(
                folder, max_steps=steps, per_device_train_batch_size=batch, logging_steps=1,
                save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=device == "cpu",
                lr_scheduler_type="constant",
            ),
            train_dataset=[{"input_ids": row, "labels": row} for row in rows],
            data_collator=transformers.default_data_collator,
            processing_class=tokenizer,
            callbacks=[seen],
        )  # fmt: skip
        trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
        if callback is not None:
            callback.attach(trainer)
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"losses": losses, "step_seconds": seen.seconds[2:]}  # the first steps warm up


class _Steps(transformers.TrainerCallback):  # type: ignore[misc]
    """Seconds of each optimiser step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began = 0.0

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds.append(time.perf_counter() - self._began)


def _tokenizer(corpus: Corpus) -> Any:
    """Byte-level BPE of 4,000 tokens, learnt from the corpus itself."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(corpus.texts, trainer)
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", inner.token_to_id("<s>"))]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
