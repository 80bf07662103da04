"""Make a training text of one language from Debian's package `debian-handbook`.

The Debian Administrator's Handbook (Raphaël Hertzog, Roland Mas; GPL-2.0+ or CC-BY-SA-3.0) is
translated into some 25 languages, paragraph by paragraph. Paragraphs that nobody has translated
stand there in English: those are left out, and so is what a terminal shows.

    apt-get download debian-handbook && dpkg-deb -x debian-handbook_*.deb book
    python handbook.py book/usr/share/doc/debian-handbook/html de-DE --out text-de
"""

import argparse
from html.parser import HTMLParser
from pathlib import Path

SHORTEST = 80  # characters; captions and menu entries are shorter


class Paragraphs(HTMLParser):
    """The running text of a page: paragraphs outside of screens and programs."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self._text: list[str] = []
        self._in_screen = 0

    def handle_starttag(self, tag, attrs):
        if tag == "pre":
            self._in_screen += 1
        if tag in ("p", "div", "li"):
            self._end()

    def handle_endtag(self, tag):
        if tag == "pre":
            self._in_screen -= 1
        if tag in ("p", "div", "li"):
            self._end()

    def handle_data(self, data):
        if not self._in_screen:
            self._text.append(data)

    def _end(self):
        text = " ".join("".join(self._text).split())
        self._text.clear()
        if len(text) >= SHORTEST:
            self.found.append(text)


def paragraphs(folder: Path) -> list[str]:
    """Every paragraph of a book once, in its order."""
    pages = sorted(folder.glob("*.html"))
    if not pages:
        raise SystemExit(f"{folder} holds no .html pages")
    seen: dict[str, None] = {}
    for page in pages:
        parser = Paragraphs()
        parser.feed(page.read_text(encoding="utf-8"))
        parser.close()
        seen.update(dict.fromkeys(parser.found))
    return list(seen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("html", type=Path, help="the package's html folder")
    parser.add_argument("language", help="a folder in it, such as de-DE, id-ID or en-US")
    parser.add_argument("--out", type=Path, required=True, help="folder for <language>.txt")
    given = parser.parse_args()
    text = paragraphs(given.html / given.language)
    if given.language != "en-US":
        english = set(paragraphs(given.html / "en-US"))
        text = [paragraph for paragraph in text if paragraph not in english]
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / f"{given.language}.txt"
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    print(f"{path}: {len(text)} paragraphs, {sum(map(len, text)):,} characters")


if __name__ == "__main__":
    main()
