"""Fonts for names in any script: Matplotlib's own have no Chinese, Thai or Devanagari letters."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache

from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

__all__ = ["boxes_unsaid", "give_fonts"]

_NO_FONT = "Last Resort"  # Matplotlib's, with a box for every letter


def give_fonts(texts: Iterable[Text]) -> str:
    """Let texts fall back to installed fonts for letters that theirs lack.

    Looks at every installed font, once, where a letter is lacking.

    Returns:
        The letters that no font has, which stay boxes.
    """
    boxes: dict[str, None] = {}
    for text in texts:
        letters = [letter for letter in text.get_text() if letter.isprintable()]
        if "".join(letters).isascii():
            continue
        families = text.get_fontfamily()
        own = [get_font(findfont(FontProperties(family=[family]))) for family in families]
        lacking = frozenset(
            letter
            for letter in letters
            if not any(font.get_char_index(ord(letter)) for font in own)
        )
        more, nowhere = _fallbacks(lacking, len(fontManager.ttflist))
        if more:
            text.set_fontfamily([*families, *more])
        boxes.update(dict.fromkeys(letter for letter in letters if letter in nowhere))
    return "".join(boxes)


@contextmanager
def boxes_unsaid() -> Iterator[None]:
    """Matplotlib warns of each letter that `give_fonts` has found no font for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from")
        yield


@lru_cache
def _fallbacks(letters: frozenset[str], fonts: int) -> tuple[tuple[str, ...], frozenset[str]]:
    """Families that have the letters, and the letters none has; ``fonts``: how many there are."""
    found: dict[str, set[str]] = {}
    for entry in fontManager.ttflist:
        if entry.style == "normal" and not entry.name.startswith(_NO_FONT):
            found.setdefault(entry.name, set()).update(_those_in(entry.fname, letters))
    families: list[str] = []
    while letters:
        best = max(
            sorted(found), key=lambda name: (len(found[name] & letters), "Sans" in name), default=""
        )
        if not best or not found[best] & letters:
            break
        families.append(best)
        letters -= found[best]
    return tuple(families), letters


def _those_in(path: str, letters: Iterable[str]) -> set[str]:
    try:
        font = FT2Font(path)
    except (OSError, RuntimeError):  # gone or damaged since Matplotlib listed it
        return set()
    return {letter for letter in letters if font.get_char_index(ord(letter))}
