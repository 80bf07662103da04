"""Groups of languages: all, by script, family and branch, and each alone."""

from collections.abc import Sequence
from dataclasses import dataclass

from ilo_fast.corpora.languages import language, order_languages

__all__ = ["KINDS", "Group", "language_groups"]

KINDS = ("all", "script", "family", "branch", "language")
"""What a group can be, the largest first."""


@dataclass(frozen=True)
class Group:
    """Some of the languages.

    Attributes:
        kind: one of `KINDS`.
        name: of the script, family, branch or language; ``all`` for all.
        members: codes.
    """

    kind: str
    name: str
    members: tuple[str, ...]

    @property
    def key(self) -> str:
        """Different for every group."""
        return "all" if self.kind == "all" else f"{self.kind}: {self.name}"


def language_groups(languages: Sequence[str]) -> list[Group]:
    """All groups of these languages, in the order of `KINDS`, members as in `order_languages`.

    A language without a branch counts under its family as branch, so that every kind holds every
    language once.

    >>> [(g.kind, g.name, g.members) for g in language_groups(["deu_Latn", "jpn_Jpan"])][1:5]
    [('script', 'Latn', ('deu_Latn',)), ('script', 'Jpan', ('jpn_Jpan',)),
     ('family', 'Indo-European', ('deu_Latn',)), ('family', 'Japonic', ('jpn_Jpan',))]
    """
    codes = order_languages(languages)
    groups = [Group("all", "all", tuple(codes))]
    for kind in ("script", "family", "branch"):
        found: dict[str, list[str]] = {}
        for code in codes:
            known = language(code)
            name = str(getattr(known, kind)) or known.family
            found.setdefault(name, []).append(code)
        groups += [Group(kind, name, tuple(members)) for name, members in found.items()]
    return groups + [Group("language", code, (code,)) for code in codes]
