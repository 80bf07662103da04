"""Models and tokenizers: a hub id, a local folder or a GGUF file, and where hidden states are."""

from ilo_fast.models.load import LoadedModel, load_model, wrap_model
from ilo_fast.models.structure import Backbone, find_backbone, token_limit

__all__ = ["Backbone", "LoadedModel", "find_backbone", "load_model", "token_limit", "wrap_model"]
