"""``ilo-fast score``: one model, one corpus, one folder of results."""

import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ilo_fast.cli.options import WritablePath, metric_options, names, run_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from ilo_fast.results import Result

__all__ = ["save_scores", "score"]

_OF_THE_CORPUS = ("corpus", "languages", "limit", "split", "corpus_revision")
_OF_THE_MODEL = (
    "revision",
    "truncate",
    "trust_remote_code",
    "pool",
    "dtype",
    "batch_tokens",
    "fused",
)


def _model_or_states(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Callback: MODEL may be left out beside --states; options that are given come before it."""
    if value is None and ctx.params.get("states") is None:
        raise click.MissingParameter(
            "Only --states DIR, which scores kept states again, goes without.",
            param_type="argument",
            param_hint="'MODEL'",
        )
    return value


@click.command(short_help="Score a model on a parallel corpus.")
@click.argument("model", required=False, callback=_model_or_states)
@click.option(
    "--corpus",
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
    model: str | None,
    out: Path,
    metrics: list[str] | None,
    no_plots: bool,
    quiet: bool,
    profile: bool,
    **options: Any,
) -> None:
    """Score MODEL, a hub id, a local folder or a .gguf file, on a parallel corpus.

    Without MODEL the hidden states that an earlier run kept in --states are scored again, with
    another k, threshold or metric; neither model nor corpus need be there.
    """
    from ilo_fast.cli import display

    options["metrics"] = metrics or ()
    run = _of_states(options) if model is None else _of_model(model, options)
    device = options["device"]
    scored = save_scores(run, out, plots=not no_plots, quiet=quiet, profile=profile, device=device)
    display.show(*scored)


def _of_model(model: str, options: dict[str, Any]) -> "Callable[..., Result]":
    from ilo_fast.corpora import load_corpus
    from ilo_fast.pipeline import score as run

    if options["corpus"] is None:
        raise click.MissingParameter(param_type="option", param_hint="'--corpus'")
    text = load_corpus(
        options["corpus"],
        languages=options["languages"],
        limit=options["limit"],
        split=options["split"],
        revision=options["corpus_revision"],
    )
    for note in text.notes:
        click.echo(f"Note: corpus {text.name}: {note}", err=True)
    rest = {name: value for name, value in options.items() if name not in _OF_THE_CORPUS}
    return partial(run, model, text, **rest)


def _of_states(options: dict[str, Any]) -> "Callable[..., Result]":
    from ilo_fast.stored import score_states as run

    context = click.get_current_context()
    without = (*_OF_THE_CORPUS, *_OF_THE_MODEL)
    for name in without:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = "--" + name.replace("_", "-")
            raise click.UsageError(f"{option} wants a MODEL: without one, kept states are scored")
    rest = {name: value for name, value in options.items() if name not in (*without, "states")}
    return partial(run, options["states"], **rest)


def save_scores(
    run: "Callable[..., Result]",
    out: Path,
    *,
    plots: bool,
    quiet: bool,
    device: str,
    profile: bool = False,
) -> "tuple[Result, list[Path], list[Path]]":
    """Score, record the command, write the files.

    Args:
        run: scores, telling its ``progress``.

    Returns the result, what was written, and what an earlier run left that went away.
    """
    from torch.profiler import record_function

    from ilo_fast.environment import require_space
    from ilo_fast.files import present
    from ilo_fast.profiling import chrome_trace
    from ilo_fast.progress import make_progress
    from ilo_fast.results import TRACE_FILE, left_behind

    _require_writable(out)
    require_space(out, 16 << 20)
    trace = out / TRACE_FILE
    with ExitStack() as stack:
        progress = stack.enter_context(make_progress(quiet=quiet))
        if profile:
            stack.enter_context(chrome_trace(trace, device))
        result = run(progress=progress)
        result = replace(result, record={"command": sys.argv[:], **result.record})
        progress.stage(f"Writing {out}")
        earlier = present(out, left_behind(out, result.record))
        with record_function("files"):
            paths = result.save(out, plots=plots)
    paths = [*paths, trace] if profile else paths
    return result, paths, [path for path in earlier if not path.exists()]


def _require_writable(out: Path) -> None:
    """Fail now rather than after minutes of work."""
    from ilo_fast.errors import InputError
    from ilo_fast.files import check_no_folders, staged

    check_no_folders(out, ("run.json", "scores.csv", "scores.parquet"))
    try:
        with staged(out):
            pass
    except OSError as error:
        what = error.strerror or error
        raise InputError(f"--out: {str(out)!r} cannot be written: {what}") from error
