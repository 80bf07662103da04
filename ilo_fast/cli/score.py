"""``ilo-fast score``: one model, one corpus, one folder of results."""

import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilo_fast.cli.options import WritablePath, metric_options, names, run_options

if TYPE_CHECKING:
    from ilo_fast.results import Result

__all__ = ["score", "score_and_save"]


@click.command(short_help="Score a model on a parallel corpus.")
@click.argument("model")
@click.option(
    "--corpus",
    required=True,
    help="A folder with one <language>.txt per language, aligned by line; a .tsv, .csv, .jsonl or "
    ".parquet table with one column per language; 'flores'; or 'demo'.",
)
@click.option(
    "--out",
    type=WritablePath(file_okay=False, path_type=Path),
    required=True,
    help="Folder for the scores, pictures and run record.",
)
@click.option("--languages", callback=names, metavar="A,B,...", help="Only these, in this order.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first sentences.")
@click.option("--split", help="Of FLORES+, or of a folder with several: dev or devtest.")
@click.option("--corpus-revision", help="Branch, tag or commit of FLORES+.")
@click.option("--revision", help="Branch, tag or commit of a hub model.")
@click.option("--truncate", is_flag=True, help="Cut sentences longer than the model's limit.")
@click.option(
    "--trust-remote-code", is_flag=True, help="Run Python code that the model's repository brings."
)
@click.option(
    "--metrics",
    callback=names,
    metavar="LIST|all",
    help="Further tables: mrr, fragments, null, intervals, hubness, pairs, neighbors; names "
    "between commas, or all.",
)
@click.option(
    "--profile",
    is_flag=True,
    help="Write trace.json.gz, a Chrome trace of the whole run (large: try --limit first).",
)
@metric_options
@run_options
def score(
    model: str,
    corpus: str,
    out: Path,
    languages: list[str] | None,
    limit: int | None,
    split: str | None,
    corpus_revision: str | None,
    metrics: list[str] | None,
    no_plots: bool,
    quiet: bool,
    profile: bool,
    **options: Any,
) -> None:
    """Score MODEL, a hub id, a local folder or a .gguf file, on a parallel corpus."""
    from ilo_fast.cli import display
    from ilo_fast.corpora import load_corpus

    text = load_corpus(
        corpus, languages=languages, limit=limit, split=split, revision=corpus_revision
    )
    for note in text.notes:
        click.echo(f"Note: corpus {text.name}: {note}", err=True)
    result, paths, removed = score_and_save(
        model,
        text,
        out,
        plots=not no_plots,
        quiet=quiet,
        profile=profile,
        metrics=metrics or (),
        **options,
    )
    display.show(result, paths, removed)


def score_and_save(
    model: str,
    corpus: Any,
    out: Path,
    *,
    plots: bool,
    quiet: bool,
    profile: bool = False,
    **options: Any,
) -> "tuple[Result, list[Path], list[Path]]":
    """Score, record the command, write the files.

    Returns the result, what was written, and what an earlier run left that went away.
    """
    from torch.profiler import record_function

    from ilo_fast.environment import require_space
    from ilo_fast.pipeline import score as run
    from ilo_fast.profiling import chrome_trace
    from ilo_fast.progress import make_progress
    from ilo_fast.results import TRACE_FILE, left_behind

    _require_writable(out)
    require_space(out, 16 << 20)
    trace = out / TRACE_FILE
    with ExitStack() as stack:
        progress = stack.enter_context(make_progress(quiet=quiet))
        if profile:
            stack.enter_context(chrome_trace(trace, options.get("device", "auto")))
        result = run(model, corpus, progress=progress, **options)
        result = replace(result, record={"command": sys.argv[:], **result.record})
        progress.stage(f"Writing {out}")
        earlier = [out / name for name in sorted(left_behind(out, result.record))]
        earlier = [path for path in earlier if path.is_file()]
        with record_function("files"):
            paths = result.save(out, plots=plots)
    paths = [*paths, trace] if profile else paths
    return result, paths, [path for path in earlier if not path.exists()]


def _require_writable(out: Path) -> None:
    """Fail now rather than after minutes of work."""
    from ilo_fast.errors import InputError
    from ilo_fast.files import staged

    try:
        with staged(out):
            pass
    except OSError as error:
        what = error.strerror or error
        raise InputError(f"--out: {str(out)!r} cannot be written: {what}") from error
