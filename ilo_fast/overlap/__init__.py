"""How alike two spaces place the same points: by neighbour lists, ranks or distances."""

from ilo_fast.overlap.layers import LayerOverlap, layer_overlap, relabel
from ilo_fast.overlap.lists import (
    cycle_knn,
    edit_distance_knn,
    jaccard,
    label_overlap,
    lcs_knn,
    mutual_knn,
    neighborhood_overlap,
    rank_similarity,
)
from ilo_fast.overlap.states import information_imbalance, neighbor_ranks, second_order_cosine

__all__ = [
    "LayerOverlap",
    "cycle_knn",
    "edit_distance_knn",
    "information_imbalance",
    "jaccard",
    "label_overlap",
    "layer_overlap",
    "lcs_knn",
    "mutual_knn",
    "neighbor_ranks",
    "neighborhood_overlap",
    "rank_similarity",
    "relabel",
    "second_order_cosine",
]
