"""A folder of text files: one a language, one sentence a line, aligned by line."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from ilo_fast.corpora.corpus import Corpus, choose_languages, is_blank, some
from ilo_fast.corpora.lines import check_labels, decode_lines, read_bytes
from ilo_fast.errors import CorpusError
from ilo_fast.shown import counted

__all__ = ["SPLITS", "assemble", "read_folder"]

SPLITS = ("txt", "dev", "devtest")


def read_folder(
    folder: Path, languages: Iterable[str] | None = None, split: str | None = None
) -> Corpus:
    """Read ``<language>.txt`` (or .dev, .devtest) files, sorted by name; see `load_corpus`."""
    files = _files(folder, split)
    chosen = choose_languages(languages, tuple(files), where=str(folder))
    check_labels(chosen, str(folder), "file name")
    contents = {files[language].name: read_bytes(files[language]) for language in chosen}
    columns = assemble(contents, str(folder))
    return Corpus(folder.resolve().name or "corpus", chosen, columns, source=str(folder))


def assemble(contents: Mapping[str, bytes], where: str) -> tuple[tuple[str, ...], ...]:
    """Decode and check files of parallel lines; ``contents`` maps file names to their bytes."""
    lines = {name: decode_lines(data, f"{where}/{name}") for name, data in contents.items()}
    _check_alignment({name: len(column) for name, column in lines.items()}, where)
    empty = []
    for name, column in lines.items():
        numbers = [str(n) for n, line in enumerate(column, start=1) if is_blank(line)]
        if numbers:
            plural = "s" if len(numbers) > 1 else ""
            empty.append(f"{name} line{plural} {some(numbers)}")
    if empty:
        raise CorpusError(f"{where}: empty sentences: {'; '.join(empty)}")
    return tuple(map(tuple, lines.values()))


def _files(folder: Path, split: str | None) -> dict[str, Path]:
    try:
        # A broken link or a folder of such a name is kept, to fail when it is read rather than drop
        # a language unseen.
        kinds = (Path.is_file, Path.is_symlink, Path.is_dir)
        entries = sorted(path for path in folder.iterdir() if any(kind(path) for kind in kinds))
    except OSError as error:
        raise CorpusError(f"{folder}: cannot be read: {error.strerror or error}") from error
    found: dict[str, dict[str, Path]] = {}
    for path in entries:
        suffix = path.suffix.lower().removeprefix(".")
        if suffix in SPLITS and not path.name.startswith("."):
            twin = found.setdefault(suffix, {}).setdefault(path.stem, path)
            if twin != path:
                raise CorpusError(f"{folder}: {twin.name} and {path.name} are one language twice")
    if split is None and len(found) > 1:
        counts = ", ".join(f"{len(found[s])} .{s}" for s in SPLITS if s in found)
        raise CorpusError(
            f"{folder}: holds {counts} files; say which to read with split="
            + " or ".join(repr(s) for s in SPLITS if s in found)
            + " (--split)"
        )
    files = found.get(split, {}) if split is not None else next(iter(found.values()), {})
    if not files:
        raise CorpusError(f"{folder}: {_nothing(folder, split, found)}")
    return files


def _nothing(folder: Path, split: str | None, found: Mapping[str, Mapping[str, Path]]) -> str:
    wanted = f".{split}" if split is not None else ".txt, .dev or .devtest"
    message = f"no {wanted} files; expected one <language>.txt (or .dev, .devtest) per language"
    if found:
        return message + f"; there are {', '.join('.' + suffix for suffix in found)} files"
    inside = [
        path.name
        for path in sorted(folder.iterdir())
        if path.is_dir()
        and any(p.suffix.lower().removeprefix(".") in SPLITS for p in path.glob("*.*"))
    ]
    return message + (f"; did you mean its folder {' or '.join(inside)}?" if inside else "")


def _check_alignment(counts: Mapping[str, int], where: str) -> None:
    if not any(counts.values()):
        raise CorpusError(f"{where}: no sentences: {some(list(counts))} hold no text")
    ranked = Counter(counts.values()).most_common(2)
    if len(ranked) == 1:
        return
    listed = sorted(counts)
    if ranked[0][1] > ranked[1][1]:
        expected, share = ranked[0]
        odd = [f"{name} has {counts[name]}" for name in listed if counts[name] != expected]
        raise CorpusError(
            f"{where}: not aligned: expected {counted(expected, 'line')} as in {share} of "
            f"{len(counts)} files, but {some(odd, 40)} (every .txt, .dev or .devtest "
            "file counts as a language)"
        )
    pairs = [f"{name} has {counts[name]}" for name in listed]
    raise CorpusError(
        f"{where}: not aligned: expected the same number of lines in every file, but "
        f"{some(pairs, 40)}"
    )
