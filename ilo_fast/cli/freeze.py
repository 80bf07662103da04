"""``ilo-fast freeze``: what freezing a model would freeze."""

import json
from pathlib import Path

import click

from ilo_fast.cli.options import WritablePath, debug

__all__ = ["freeze"]


@click.command(short_help="What freezing a model would freeze.")
@click.argument("model")
@click.option(
    "--first", type=click.IntRange(min=0), default=8, show_default=True, help="Layers to freeze."
)
@click.option(
    "--last", type=click.IntRange(min=0), default=0, show_default=True, help="Last layers as well."
)
@click.option("--embeddings/--no-embeddings", default=True, show_default=True)
@click.option("--head/--no-head", default=True, show_default=True)
@click.option("--final-norm/--no-final-norm", default=True, show_default=True)
@click.option(
    "--stack",
    type=click.Choice(["auto", "encoder", "decoder", "both"]),
    default="auto",
    show_default=True,
    help="Of an encoder-decoder model; auto is the encoder.",
)
@click.option(
    "--reference-count",
    is_flag=True,
    help="One layer more, as the paper's public code freezes (nine for eight).",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="What this command does in any case: freezing itself is done in training code.",
)
@click.option(
    "--json",
    "path",
    type=WritablePath(dir_okay=False, path_type=Path),
    help="Also write the report, all names in it, to this file.",
)
@click.option("--revision", help="Branch, tag or commit of a hub model.")
@click.option(
    "--trust-remote-code", is_flag=True, help="Run Python code that the model's repository brings."
)
@debug
def freeze(
    model: str,
    first: int,
    last: int,
    embeddings: bool,
    head: bool,
    final_norm: bool,
    stack: str,
    reference_count: bool,
    dry_run: bool,
    path: Path | None,
    revision: str | None,
    trust_remote_code: bool,
) -> None:
    """Show what freezing MODEL, a hub id, a folder or a .gguf file, would freeze.

    Reads the configuration only, no weights. In training code, the same is done by
    ilo_fast.finetune.freeze(model, first=8).
    """
    from ilo_fast.files import write_text
    from ilo_fast.finetune import freeze as freeze_parts
    from ilo_fast.finetune.skeleton import skeleton

    report = freeze_parts(
        skeleton(model, revision=revision, trust_remote_code=trust_remote_code),
        first=first,
        embeddings=embeddings,
        head=head,
        final_norm=final_norm,
        last=last,
        stack=stack,  # type: ignore[arg-type]
        reference_count=reference_count,
    )
    click.echo(report)
    if not dry_run:
        click.echo(
            "Nothing was frozen, which lasts as long as a model is in memory: call "
            "ilo_fast.finetune.freeze(model, ...) in your training code",
            err=True,
        )
    if path is not None:
        text = json.dumps({"model": model, **report.to_dict()}, indent=2, ensure_ascii=False)
        write_text(path, text + "\n")
        click.echo(f"Written to {path}")
