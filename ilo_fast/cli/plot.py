"""``ilo-fast plot``: one picture of a result."""

from pathlib import Path

import click

from ilo_fast.cli.options import WritablePath, debug, state_options

__all__ = ["plot"]

_KINDS = ("layers", "languages", "neighbours", "overlap", "map")
_OF_KINDS = {
    "score": ("languages",),
    "layer": ("neighbours", "map"),
    "method": ("map",),
    "seed": ("map",),
}
_SCORES = ("ilo", "bridge", "reach", "translation_hit", "same_language")


@click.command(short_help="One picture of a result.")
@click.argument("result")
@click.option(
    "--kind",
    type=click.Choice(_KINDS),
    default="layers",
    show_default=True,
    help="layers: curves over layers. languages: languages against layers. neighbours: who "
    "neighbours whom in one layer. overlap: shared neighbours of all pairs of layers. map: one "
    "layer's points in two dimensions.",
)
@click.option(
    "--out",
    type=WritablePath(dir_okay=False, path_type=Path),
    required=True,
    help="The picture to write; its ending chooses the format (.png, .pdf, .svg).",
)
@click.option(
    "--score", type=click.Choice(_SCORES), default="ilo", show_default=True, help="Of languages."
)
@click.option(
    "--layer",
    type=int,
    help="Of neighbours and map; where languages overlap most when left out.",
)
@click.option("--step", type=int, help="Of a training's table; its last when left out.")
@click.option(
    "--method",
    type=click.Choice(["pca", "umap"]),
    default="pca",
    show_default=True,
    help="Of map; umap needs: pip install 'ilo-fast[umap]'.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of UMAP.")
@state_options
@debug
@click.pass_context
def plot(
    context: click.Context,
    result: str,
    kind: str,
    out: Path,
    score: str,
    layer: int | None,
    step: int | None,
    method: str,
    seed: int,
    k: int | None,
    threshold: int | None,
    metric: str | None,
) -> None:
    """Draw RESULT: a folder of results, a table of scores, or a folder of stored states.

    The kinds neighbours and overlap need neighbour lists (`ilo-fast score --metrics neighbors`) or
    stored states, map needs stored states.
    """
    for name, kinds in _OF_KINDS.items():
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and kind not in kinds:
            raise click.UsageError(f"--{name} is for --kind {' or '.join(kinds)}, not {kind}")
        if name == "seed" and given and method != "umap":
            raise click.UsageError(f"--seed is for --method umap, not {method}")
    from ilo_fast.errors import InputError
    from ilo_fast.files import staged
    from ilo_fast.pictures import picture, shown_layer
    from ilo_fast.plots import check_format, save
    from ilo_fast.sources import from_states_beside, read_inputs

    check_format(out)
    [sources] = read_inputs([result], k=k, threshold=threshold, metric=metric)
    chosen = sources[-1]
    if step is not None:
        there = {source.step: source for source in sources}
        if step not in there:
            known = ", ".join(str(one) for one in there if one is not None) or "none"
            raise InputError(f"step: {result!r} holds steps {known}, got {step}")
        chosen = there[step]
    if kind == "map" or (kind in ("neighbours", "overlap") and chosen.lists is None):
        chosen = from_states_beside(chosen, result)
    axes = picture(chosen, kind, score=score, layer=layer, method=method, seed=seed)
    with staged(out.parent) as temporary:
        save(axes, temporary / out.name)
    of_layer = f" (layer {shown_layer(chosen, layer)})" if kind in _OF_KINDS["layer"] else ""
    click.echo(f"Written to {out}{of_layer}")
