"""What tells the files of one model from those of another under the same name."""

import hashlib
import json
import os
import re
from pathlib import Path

from ilo_fast.models.fingerprint import deciding_settings

__all__ = ["model_digest", "tokenizer_digest"]

_READ = {".safetensors", ".bin", ".gguf", ".json", ".txt", ".model", ".py", ".tiktoken", ".spm"}
_IDLE = {"generation_config.json"}  # hidden states are those of sentences as they stand
_TOKENIZER = re.compile(
    r"tokenizer.*|.*\.(model|tiktoken|spm)|vocab.*|merges\.txt|(special|added)_tokens.*\.json"
)
_WHOLE = 64 << 20  # files up to this size, and the beginnings of others, are read whole
_SAMPLES, _SAMPLE = 64, 1 << 16


def model_digest(path: Path) -> str:
    """SHA-256 (hex) over names, sizes and contents of a model's files: a folder's, or a GGUF file.

    Of a file above 64 MiB the first 64 MiB, the end and 64 pieces spread between are read, so that
    a model of any size takes a moment: training moves every weight. It is no protection against a
    forger. Only the kinds of files that models are loaded from count.
    """
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(path.iterdir())
    for file in files:
        counts = file.suffix in _READ and not file.name.startswith(".") and file.name not in _IDLE
        if counts and file.is_file():
            settings = _settings(file) if file.name == "config.json" else None
            if settings is None:
                _add(digest, file, _WHOLE)
            else:
                digest.update(b"config.json\0" + settings)
    return digest.hexdigest()


def tokenizer_digest(path: Path) -> str:
    """The same of the tokenizer alone; in a GGUF file it stands within the first 64 MiB."""
    digest = hashlib.sha256()
    if path.is_file():
        if _readable(digest, path):
            with path.open("rb") as stream:
                digest.update(stream.read(_WHOLE))
        return digest.hexdigest()
    for file in sorted(path.iterdir()):
        if file.is_file() and _TOKENIZER.fullmatch(file.name):
            _add(digest, file, file.stat().st_size)
    return digest.hexdigest()


def _settings(file: Path) -> bytes | None:
    """What of a configuration decides hidden states; None of a file that cannot be read so."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return json.dumps(deciding_settings(config), sort_keys=True).encode()


def _add(digest: "hashlib._Hash", file: Path, whole: int) -> None:
    size = file.stat().st_size
    digest.update(f"{file.name}\0{size}\0".encode("utf-8", "surrogateescape"))
    if not _readable(digest, file):
        return
    with file.open("rb") as stream:
        digest.update(stream.read(whole))
        if size > whole:
            for number in range(1, _SAMPLES + 1):
                stream.seek(whole + (size - whole - _SAMPLE) * number // _SAMPLES)
                digest.update(stream.read(_SAMPLE))


def _readable(digest: "hashlib._Hash", file: Path) -> bool:
    """Whether a file may be read; one that may not is no reason to stop: its model fails alone."""
    readable = os.access(file, os.R_OK)
    if not readable:
        digest.update(b"unreadable")
    return readable
