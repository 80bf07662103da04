"""The languages each point sees, from the engine's bit masks."""

from torch import Tensor

from ilo_fast.ops.languages import neighbor_languages, unpack_masks

__all__ = ["seen_languages"]


def seen_languages(layer: Tensor, language: Tensor, languages: int) -> Tensor:
    """Which languages other than its own each point has among its neighbours.

    Args:
        layer: int64 ``[n, k]``, one layer's lists.
        language: int64 ``[n]``, codes 0 … languages - 1.
        languages: how many there are.

    Returns:
        bool ``[n, languages]``, false at the point's own.

    >>> import torch
    >>> seen_languages(torch.tensor([[1], [0], [0]]), torch.tensor([0, 1, 0]), 2).tolist()
    [[False, True], [True, False], [False, False]]
    """
    masks, _, _ = neighbor_languages(layer[None], language, languages, 1)
    return unpack_masks(masks[0], languages)
