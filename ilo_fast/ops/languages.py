"""Languages among every point's neighbours: bit masks, bridge counts, reach unions.

For a point i of layer l with neighbours N(i), S_i = {language of j : j in N(i)} without i's own
(Wilie et al. 2025, arXiv 2503.11280). One pass gives every S_i as bits, how many points of each
language have ``|S_i| >= threshold``, and each language's union of S_i.
"""

from functools import cache

import torch

from ilo_fast.ops import cuda
from ilo_fast.ops.trial import agrees, passed

__all__ = ["count_bits", "languages_torch", "neighbor_languages", "unpack_masks"]

WORD = 64


def neighbor_languages(
    indices: torch.Tensor, language: torch.Tensor, languages: int, threshold: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Masks, bridge counts and reach unions of all layers.

    Args:
        indices: int64 ``[layers, n, k]``, neighbours.
        language: int64 ``[n]``, each point's language, in ``0 .. languages - 1``.
        languages: number of languages, any.
        threshold: other languages a point must see to bridge.

    Returns:
        masks: int64 ``[layers, n, words]``, bit b of word w is language ``64 w + b``.
        bridging: int64 ``[layers, languages]``, points with at least ``threshold`` bits.
        reach: int64 ``[layers, languages, words]``, union of the masks of a language's points.

    Runs the CUDA kernel on a CUDA device with CuPy, plain torch elsewhere; as
    ``torch.ops.ilo_fast.neighbor_languages`` it works under ``torch.compile``.

    >>> lists = torch.tensor([[[1, 2], [0, 2], [0, 1]]])
    >>> masks, bridging, reach = neighbor_languages(lists, torch.tensor([0, 1, 1]), 2, 1)
    >>> masks.flatten().tolist(), bridging.tolist(), reach.flatten().tolist()
    ([2, 1, 1], [[1, 2]], [2, 1])
    """
    if torch.compiler.is_compiling():
        op = torch.ops.ilo_fast.neighbor_languages
        return op(indices, language, languages, threshold)  # type: ignore[no-any-return]
    # Not by the operator: a process's first one imports all of torch's compiler.
    serve = _neighbor_languages_cuda if indices.is_cuda else languages_torch
    return serve(indices, language, languages, threshold)


def languages_torch(
    indices: torch.Tensor, language: torch.Tensor, languages: int, threshold: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same in plain torch, any device: the truth beside the kernel and the CPU's path."""
    layers, n, _ = indices.shape
    words = -(-languages // WORD)
    device = indices.device
    each = torch.arange(languages, device=device)
    bit = torch.zeros(languages, words, dtype=torch.int64, device=device)
    bit[each, each // WORD] = torch.bitwise_left_shift(torch.ones_like(each), each % WORD)
    own = bit[language]
    masks = torch.zeros(layers, n, words, dtype=torch.int64, device=device)
    reached = torch.zeros(layers, languages * languages, dtype=torch.bool, device=device)
    layer = torch.arange(layers, device=device)[:, None]
    for column in indices.unbind(2):
        seen = language[column]
        masks |= bit[seen]
        reached[layer, language * languages + seen] = True
    masks &= ~own
    bridging = torch.zeros(layers, languages, dtype=torch.int64, device=device)
    wide = (count_bits(masks).sum(dim=2) >= threshold).to(torch.int64)
    bridging.scatter_add_(1, language.expand(layers, n), wide)
    pairs = reached.view(layers, languages, languages).to(torch.int64)
    pairs.diagonal(dim1=1, dim2=2).fill_(0)
    padded = torch.nn.functional.pad(pairs, (0, words * WORD - languages))
    shifts = torch.arange(WORD, device=device)
    bits = torch.bitwise_left_shift(padded.view(layers, languages, words, WORD), shifts)
    return masks, bridging, bits.sum(dim=3)  # distinct bits: their sum is their union


def count_bits(words: torch.Tensor) -> torch.Tensor:
    """How many bits of each int64 are set; torch has no popcount (Warren, Hacker's Delight, 5-1).

    >>> count_bits(torch.tensor([0, 5, -1])).tolist()
    [0, 2, 64]
    """
    words = words - ((words >> 1) & 0x5555555555555555)
    words = (words & 0x3333333333333333) + ((words >> 2) & 0x3333333333333333)
    words = (words + (words >> 4)) & 0x0F0F0F0F0F0F0F0F
    return (words * 0x0101010101010101) >> 56


def unpack_masks(masks: torch.Tensor, languages: int) -> torch.Tensor:
    """bool ``[..., languages]`` from masks ``[..., words]``.

    >>> unpack_masks(torch.tensor([5]), 3).tolist()
    [True, False, True]
    """
    shifts = torch.arange(WORD, device=masks.device)
    bits = torch.bitwise_right_shift(masks[..., None], shifts).bitwise_and(1)
    return bits.flatten(-2)[..., :languages].to(torch.bool)


@torch.library.custom_op("ilo_fast::neighbor_languages", mutates_args=())
def _neighbor_languages(
    indices: torch.Tensor, language: torch.Tensor, languages: int, threshold: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return languages_torch(indices, language, languages, threshold)


@_neighbor_languages.register_fake
def _(
    indices: torch.Tensor, language: torch.Tensor, languages: int, threshold: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    layers, n, _ = indices.shape
    words = -(-languages // WORD)
    return (
        indices.new_empty(layers, n, words),
        indices.new_empty(layers, languages),
        indices.new_empty(layers, languages, words),
    )


@_neighbor_languages.register_kernel("cuda")
def _neighbor_languages_cuda(
    indices: torch.Tensor, language: torch.Tensor, languages: int, threshold: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    words = -(-languages // WORD)
    # No CuPy, or a kernel that fails its trial: the same numbers from plain torch.
    if cuda.obstacle(indices.device) or not passed(_trial, indices.device, words):
        return languages_torch(indices, language, languages, threshold)
    return _launch(indices, language, languages, threshold)


@cache
def _trial(device: torch.device, words: int) -> str:
    """Why the kernel for so many words should not serve on a device, "" when it may."""
    languages, n = words * WORD, 300  # the top bit too, and two blocks and a part
    points = torch.arange(n, device=device)
    language = points * 7 % languages
    near = torch.stack([points + 1, points * points, points * 31 + 5, points.flip(0)], dim=1) % n
    indices = torch.stack([near, near.flip(0)])

    def compare() -> bool:
        found = _launch(indices, language, languages, 3)
        truth = languages_torch(indices, language, languages, 3)
        return all(torch.equal(ours, plain) for ours, plain in zip(found, truth, strict=True))

    return agrees("languages_of_neighbours", device, compare)


def _launch(
    indices: torch.Tensor, language: torch.Tensor, languages: int, threshold: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    layers, n, k = indices.shape
    words = -(-languages // WORD)
    masks = indices.new_empty(layers, n, words)
    bridging = indices.new_zeros(layers, languages)
    reach = indices.new_zeros(layers, languages, words)
    cuda.launch(
        "languages.cu", "languages_of_neighbours", layers * n,
        (
            indices.contiguous(), language.contiguous(), masks, bridging, reach,
            layers, n, k, languages, threshold,
        ),
        device=indices.device, defines=(f"WORDS={words}",),
    )  # fmt: skip
    return masks, bridging, reach
