"""Watch alignment from a `transformers.Trainer`."""

from pathlib import Path
from typing import Any

from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from ilo_fast.errors import InputError
from ilo_fast.finetune.watch import Watch
from ilo_fast.results import TRAINING_FILE, Result

__all__ = ["ILOCallback"]


class ILOCallback(TrainerCallback):  # type: ignore[misc]
    """Score a parallel corpus on the model while a `transformers.Trainer` trains it.

    Before training, at chosen steps and after it, every layer and language is scored on the model
    as it stands; the model's modes, random states, gradients and hooks are left as they were.
    ``ilo/early``, ``bridge/middle`` and the like go to the Trainer's loggers and its log history,
    and the whole table, with a ``step`` column, to ``alignment.parquet`` in its output folder,
    whole after each scoring.

    Under data parallelism the first process scores its replica while the others wait. Sharded
    parameters (FSDP, DeepSpeed, tensor parallelism) are refused: score the checkpoints instead.

    Args:
        corpus, **options: as of `ilo_fast.finetune.Watch`: ``every="auto"``, ``overhead=0.02``,
            ``groups``, ``out``, ``tokenizer`` (default: the Trainer's ``processing_class``),
            ``languages``, ``limit``, and those of `ilo_fast.score`: ``k``, ``layers``, ``pool``, …
            What cannot be used is refused here, not in the middle of a training.

    >>> from ilo_fast.finetune import ILOCallback
    >>> callback = ILOCallback("demo", every=100)
    >>> callback.attach(trainer)  # doctest: +SKIP
    >>> trainer.train()  # doctest: +SKIP
    """

    def __init__(self, corpus: Any = "demo", **options: Any) -> None:
        self.watch = Watch(corpus, **options)
        self._trainer: Any = None

    def __repr__(self) -> str:
        return f"ILOCallback({self.watch.shown})"

    def attach(self, trainer: Any) -> "ILOCallback":
        """Join ``trainer``'s callbacks, with its loggers within reach; returns itself.

        transformers tells callbacks nothing of the Trainer, so a callback that is only passed in
        ``callbacks=[...]`` could not log.

        Raises:
            InputError: where neither this callback nor ``trainer`` was given a tokenizer.
        """
        self.watch.choose_tokenizer(trainer.callback_handler.processing_class)
        if self not in trainer.callback_handler.callbacks:
            trainer.add_callback(self)
        self._trainer = trainer
        return self

    @property
    def result(self) -> Result:
        """All that is scored so far, with a ``step`` column."""
        return self.watch.result

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._trainer is None:
            raise InputError(
                "ILOCallback: call callback.attach(trainer) before trainer.train(), so that it can "
                "reach the Trainer's loggers"
            )
        _refuse_sharded(self._trainer, args, kwargs["model"])
        if not state.is_world_process_zero:
            return
        tokenizer = kwargs.get("processing_class")
        out = Path(args.output_dir) / TRAINING_FILE
        callbacks = self._trainer.callback_handler.callbacks
        beside = [each.watch for each in callbacks if isinstance(each, ILOCallback)]
        self.watch.begin(kwargs["model"], tokenizer, state.global_step, out, beside)
        if state.global_step == 0:
            self._score(kwargs["model"], state.global_step, control)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero and self.watch.due(state.global_step):
            self._score(kwargs["model"], state.global_step, control)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any
    ) -> None:
        # the training's own summary: the last step's weights are still there, whatever ended it; at
        # the end those of the best may be
        if control.should_training_stop and "train_loss" in logs:
            self._score_end(kwargs["model"], state, control, state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        best = args.load_best_model_at_end and state.best_model_checkpoint is not None
        step = state.best_global_step if best else state.global_step
        self._score_end(kwargs["model"], state, control, step)

    def _score_end(self, model: Any, state: Any, control: Any, step: int) -> None:
        if state.is_world_process_zero and not self.watch.scored(step):
            self._score(model, step, control)

    def _score(self, model: Any, step: int, control: Any) -> None:
        logs = self.watch.measure(model, step)
        wanted = control.should_log  # logging clears it, and with it the Trainer's own turn to log
        self._trainer.log(logs)
        control.should_log = wanted


def _refuse_sharded(trainer: Any, args: Any, model: Any) -> None:
    sharded = [
        name
        for name in ("fsdp", "deepspeed")
        # accelerate's launcher switches them on past the arguments
        if getattr(args, name, None) or getattr(trainer, f"is_{name}_enabled", False)
    ]
    if any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        sharded.append("tensor parallelism")
    if sharded:
        raise InputError(
            f"ILOCallback: the parameters are sharded ({sharded[0]}), so no process has the whole "
            "model to score; score the checkpoints with `ilo-fast score` or `ilo-fast scan`"
        )
