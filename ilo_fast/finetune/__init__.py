"""Fine-tuning: freeze what languages share, and watch alignment while a model trains."""

from ilo_fast.finetune.freeze import freeze
from ilo_fast.finetune.parts import Parts, find_parts
from ilo_fast.finetune.report import FreezeReport, FrozenPart

__all__ = ["FreezeReport", "FrozenPart", "Parts", "find_parts", "freeze"]
