"""``ilo-fast env``: what is installed, what it can compute on, and which backend would be used."""

import click

from ilo_fast.cli.options import debug

__all__ = ["env"]


@click.command(short_help="Versions, devices, search backends.")
@debug
def env() -> None:
    """Show versions, devices and the neighbour-search backends."""
    from ilo_fast.cli import display

    display.show_environment()
