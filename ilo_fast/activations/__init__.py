"""Hidden states of sentences: packed forward passes, taps, pooling, and where they are kept."""

from ilo_fast.activations.disk import open_store
from ilo_fast.activations.extract import extract
from ilo_fast.activations.hooks import ForwardStopped
from ilo_fast.activations.store import ActivationStore
from ilo_fast.activations.taps import Tap, tap

__all__ = ["ActivationStore", "ForwardStopped", "Tap", "extract", "open_store", "tap"]
