"""``python -m benchmarks NAME [options]``: one sub-command a module of this package.

To add one, write a module with a click command called ``command`` and name it in ``COMMANDS``.
"""

from importlib import import_module
from typing import Any

import click

COMMANDS = {
    "adapters": "benchmarks.adapters",
    "cpu": "benchmarks.cpu",
    "extraction": "benchmarks.extraction",
    "finetune": "benchmarks.finetune",
    "gpu": "benchmarks.gpu",
    "pairs": "benchmarks.pairs",
}


class Commands(click.Group):
    """Sub-commands that are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> Any:
        if name not in COMMANDS:
            return None
        return import_module(COMMANDS[name]).command


@click.command(cls=Commands)
def main() -> None:
    """Time ilo_fast beside its peers, after checking their answers."""


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
