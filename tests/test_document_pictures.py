"""The documents show pictures that exist, and carry none that nobody sees."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)]+)\)")


def shown(page):
    return [
        (text, (page.parent / path).resolve()) for text, path in IMAGE.findall(page.read_text())
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pictures_exist_say_what_they_show_and_are_small(page):
    for text, path in shown(page):
        assert path.is_file(), path
        assert len(text.split()) >= 5
        assert path.stat().st_size < 300_000


def test_every_picture_is_on_a_page():
    linked = {path for page in PAGES for _, path in shown(page)}
    assert set((ROOT / "docs" / "images").iterdir()) <= linked
