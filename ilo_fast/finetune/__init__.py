"""Fine-tuning: freeze what languages share, and watch alignment while a model trains."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ilo_fast.finetune.callback import ILOCallback
    from ilo_fast.finetune.change import Change, score_change
    from ilo_fast.finetune.freezing import freeze
    from ilo_fast.finetune.lightning import LightningILOCallback as LightningILOCallback
    from ilo_fast.finetune.parts import Parts, find_parts
    from ilo_fast.finetune.report import FreezeReport, FrozenPart
    from ilo_fast.finetune.watch import Watch

# Loaded on first use: freezing needs no Trainer, and Lightning is an extra.
_WHERE = {
    "Change": "change",
    "FreezeReport": "report",
    "FrozenPart": "report",
    "ILOCallback": "callback",
    "LightningILOCallback": "lightning",
    "Parts": "parts",
    "Watch": "watch",
    "find_parts": "parts",
    "freeze": "freezing",
    "score_change": "change",
}

# Without LightningILOCallback: a star import would fail where Lightning is not installed.
__all__ = [
    "Change",
    "FreezeReport",
    "FrozenPart",
    "ILOCallback",
    "Parts",
    "Watch",
    "find_parts",
    "freeze",
    "score_change",
]


if not TYPE_CHECKING:  # a type checker knows the names above, and that there are no others

    def __getattr__(name: str) -> Any:
        if name not in _WHERE:
            raise AttributeError(f"module 'ilo_fast.finetune' has no attribute {name!r}")
        value = getattr(import_module(f"ilo_fast.finetune.{_WHERE[name]}"), name)
        globals()[name] = value
        return value
