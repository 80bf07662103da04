"""Names in scripts that Matplotlib's own font lacks: another font's letters, or one warning."""

import warnings

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager
from matplotlib.text import Text
from tables import make_result

from ilo_fast import plots

CODES = ("中文", "eng_Latn", "ไทย")


@pytest.fixture
def matplotlibs_own(monkeypatch):
    """Only the fonts that come with Matplotlib, whatever this machine has."""
    own = [entry for entry in fontManager.ttflist if "mpl-data" in entry.fname]
    monkeypatch.setattr(fontManager, "ttflist", own)


def make_font(path, letters, name):
    """A font whose letters are squares."""
    names = {letter: f"uni{ord(letter):04X}" for letter in letters}
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", *names.values()])
    font.setupCharacterMap({ord(letter): glyph for letter, glyph in names.items()})
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for corner in ((100, 700), (800, 700), (800, 0)):
        pen.lineTo(corner)
    pen.closePath()
    square = pen.glyph()
    font.setupGlyf(dict.fromkeys([".notdef", *names.values()], square))
    font.setupHorizontalMetrics(dict.fromkeys([".notdef", *names.values()], (900, 100)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": name, "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(path)
    fontManager.addfont(path)


def pictures():
    points = np.random.default_rng(0).normal(size=(3 * len(CODES), 2))
    yield plots.plane(points, list(CODES) * 3, [True] * len(points), title="中")[1]
    yield plots.languages(make_result(3, CODES, model="中"))
    yield plots.neighbors(np.ones((len(CODES), len(CODES)), dtype=int), CODES)


def texts(ax):
    return {text.get_text(): text for text in ax.get_figure().findobj(Text)}


@pytest.mark.usefixtures("matplotlibs_own")
@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_letters_come_from_a_font_that_has_them(tmp_path, ending):
    make_font(tmp_path / "a.ttf", "中", "Some Font")
    make_font(tmp_path / "b.ttf", "中文", "Some Sans")
    make_font(tmp_path / "c.ttf", "ไทย", "Some Thai")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number, ax in enumerate(pictures()):
            plots.save(ax, tmp_path / f"{number}.{ending}")
            assert texts(ax)["中文"].get_fontfamily() == ["sans-serif", "Some Sans"]
            assert texts(ax)["ไทย"].get_fontfamily() == ["sans-serif", "Some Thai"]
            assert not any(
                "English" in name and len(text.get_fontfamily()) > 1
                for name, text in texts(ax).items()
            )


@pytest.mark.usefixtures("matplotlibs_own")
def test_letters_that_no_font_has_are_said_once(tmp_path):
    make_font(tmp_path / "c.ttf", "ไทย", "Some Thai")
    for ax in pictures():
        with pytest.warns(
            UserWarning, match="x.png: no installed font has '[中文]{2,}', which"
        ) as got:
            plots.save(ax, tmp_path / "x.png")
        assert len(got) == 1
