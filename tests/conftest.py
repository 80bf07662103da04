"""What several test modules share: a tiny model on disk and parallel text."""

import os
import signal
from functools import partial
from pathlib import Path

import pytest
from tiny import LANGUAGES, SENTENCES, save_tiny_model, sentence

# Several workers share the cores; threads of their own would only get in each other's way. Set
# before torch is imported, which reads it then.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts its background jobs with Ctrl-C ignored, and their children inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

try:
    from hypothesis import HealthCheck, settings
except ImportError:
    pass  # an environment of the foreign tools
else:
    # How fast inputs are drawn tells what else the machine does, not whether the package is right.
    patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("patient", patient)
    settings.load_profile("patient")


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


@pytest.fixture(scope="session")
def compiler() -> None:
    """Skips where torch cannot compile."""
    import torch

    try:
        torch.compile(torch.nn.Tanh())(torch.ones(3))
    except Exception as error:
        pytest.skip(f"torch.compile wants a C++ compiler and Python's headers: {error!r:.200}")


@pytest.fixture
def graphs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch makes its graphs and runs them as they are: compiling them takes a minute."""
    import torch

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))


@pytest.fixture
def run(capsys):
    """Run the command line in this process: (exit status, standard output, standard error)."""

    from ilo_fast import cli

    def run_cli(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run_cli


@pytest.fixture
def fails(run, tmp_path):
    """Run a command that must end in one clear line, exit status 2 and no files; that line."""

    def run_failing(*arguments, status=2):
        out = tmp_path / "out"
        code, shown, said = run(*arguments, "--out", out, "--quiet")
        assert (code, shown) == (status, ""), said
        lines = said.splitlines()
        assert len(lines) == 1, said
        assert lines[0].startswith("ilo-fast: ")
        assert not out.exists() or list(out.iterdir()) == []
        return lines[0].removeprefix("ilo-fast: ")

    return run_failing
