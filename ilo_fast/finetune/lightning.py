"""Watch alignment from a Lightning Trainer (``lightning`` or ``pytorch_lightning``)."""

from importlib import import_module, util
from pathlib import Path
from typing import Any

from torch import nn

from ilo_fast.errors import InputError, ModelError
from ilo_fast.finetune.watch import Watch
from ilo_fast.results import TRAINING_FILE, Result

__all__ = ["LightningILOCallback"]


def _callback_class() -> Any:
    for name in ("lightning", "pytorch_lightning"):
        if util.find_spec(name) is not None:
            module = import_module("lightning.pytorch" if name == "lightning" else name)
            return module.Callback
    raise ModelError(
        "LightningILOCallback needs Lightning: pip install 'ilo-fast[lightning]' "
        "(or pytorch-lightning)"
    )


class LightningILOCallback(_callback_class()):  # type: ignore[misc]
    """`ilo_fast.finetune.ILOCallback` for Lightning: pass it in ``Trainer(callbacks=[...])``.

    Logs through every logger of the trainer and writes ``alignment.parquet`` into its
    ``default_root_dir`` (or ``out``). Strategies that shard parameters are refused. A step is one
    of the trainer's ``global_step``, which adds up those of all optimisers: with two in a batch
    ``every=100`` scores after 50 batches.

    Args:
        corpus, **options: as of `ilo_fast.finetune.Watch`; ``tokenizer`` is required, Lightning
            knows none.
        attribute: where the transformers model is in the LightningModule; None takes the only one
            there is.
    """

    def __init__(self, corpus: Any = "demo", *, attribute: str | None = None, **options: Any):
        super().__init__()
        self.watch = Watch(corpus, **options)
        self.watch.choose_tokenizer(None)
        self.attribute = attribute

    def __repr__(self) -> str:
        return f"LightningILOCallback({self.watch.shown})"

    @property
    def result(self) -> Result:
        """All that is scored so far, with a ``step`` column."""
        return self.watch.result

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        strategy = type(trainer.strategy).__name__
        if any(mark in strategy for mark in ("FSDP", "DeepSpeed", "ModelParallel")):
            raise InputError(
                f"LightningILOCallback: {strategy} shards the parameters; score the checkpoints "
                "instead"
            )
        self._model = _find(pl_module, self.attribute)
        if not trainer.is_global_zero:
            return
        out = Path(trainer.default_root_dir) / TRAINING_FILE
        beside = [
            each.watch for each in trainer.callbacks if isinstance(each, LightningILOCallback)
        ]
        self.watch.begin(self._model, None, trainer.global_step, out, beside)
        self._step = trainer.global_step
        if trainer.global_step == 0:
            self._score(trainer)

    def on_train_batch_end(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        # gradient accumulation: several batches make one optimiser step
        if trainer.is_global_zero and trainer.global_step != self._step:
            self._step = trainer.global_step
            if self.watch.due(self._step):
                self._score(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.is_global_zero and not self.watch.scored(trainer.global_step):
            self._score(trainer)

    def _score(self, trainer: Any) -> None:
        logs = self.watch.measure(self._model, trainer.global_step)
        for logger in trainer.loggers:
            logger.log_metrics(logs, step=trainer.global_step)


def _find(module: nn.Module, attribute: str | None) -> nn.Module:
    if attribute is not None:
        found = getattr(module, attribute, None)
        if not isinstance(found, nn.Module):
            raise InputError(f"attribute={attribute!r}: the LightningModule has no such module")
        return found
    from transformers import PreTrainedModel

    outer: list[nn.Module] = []
    inside: set[int] = set()
    for child in module.modules():
        if isinstance(child, PreTrainedModel) and id(child) not in inside:
            outer.append(child)
            inside.update(map(id, child.modules()))
    if len(outer) != 1:
        raise InputError(
            f"attribute: the LightningModule holds {len(outer)} transformers models, say which"
        )
    return outer[0]
