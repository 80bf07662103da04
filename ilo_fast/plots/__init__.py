"""Pictures of results, as Matplotlib axes on figures of their own (no pyplot, no global state)."""

from ilo_fast.plots.differences import differences, group_differences
from ilo_fast.plots.maps import neighbors, overlap
from ilo_fast.plots.plane import plane, plane_languages, plane_parts
from ilo_fast.plots.scores import languages, layers
from ilo_fast.plots.style import check_format, save

__all__ = [
    "check_format",
    "differences",
    "group_differences",
    "languages",
    "layers",
    "neighbors",
    "overlap",
    "plane",
    "plane_languages",
    "plane_parts",
    "save",
]
