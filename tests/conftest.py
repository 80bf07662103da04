"""What several test modules share: a tiny model on disk and parallel text."""

import os
from pathlib import Path

import pytest
from tiny import LANGUAGES, SENTENCES, save_tiny_model, sentence

# Several workers share the cores; threads of their own would only get in each other's way. Set
# before torch is imported, which reads it then.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def parallel_text() -> dict[str, list[str]]:
    """4 languages × 12 sentences."""
    return {
        language: [sentence(at, number) for number in range(SENTENCES)]
        for at, language in enumerate(LANGUAGES)
    }


@pytest.fixture
def corpus_folder(tmp_path: Path, parallel_text: dict[str, list[str]]) -> Path:
    """The same as a folder of <language>.txt files."""
    folder = tmp_path / "text"
    folder.mkdir()
    for language, lines in parallel_text.items():
        (folder / f"{language}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random model of 3 layers × 32, float32, at most 64 tokens a sentence."""
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny-llama")
