"""YAML with the line of every key, so that a mistake can be pointed at."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import yaml

from ilo_fast.errors import InputError

__all__ = ["KeyPath", "Located", "load_yaml", "show_path"]

KeyPath = tuple[str | int, ...]
_MOST_BYTES = 1 << 20  # a plan is written by hand or a small script; aliases could make it explode
_DEEPEST = 20  # of the keys that there are no more than 4


@dataclass(frozen=True)
class Located:
    """Plain values, and the line (from 1) where each key or list entry stands."""

    data: Any
    lines: dict[KeyPath, int]

    def line(self, path: KeyPath) -> int | None:
        """The line of a key, or of the nearest thing around it that is there."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return None


def load_yaml(text: str, where: str) -> Located:
    """Read one YAML document of plain values: no tags, no aliases, no key twice.

    >>> from ilo_fast.scans.positions import load_yaml
    >>> load_yaml("models:\\n  - tiny\\n", "plan").line(("models", 0))
    2
    """
    if len(text) > _MOST_BYTES:
        raise InputError(f"{where}: a plan has at most {_MOST_BYTES:,} characters: {len(text):,}")
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                line = event.start_mark.line + 1
                raise InputError(f"{where}, line {line}: nested more than {_DEEPEST} deep")
            if isinstance(event, yaml.AliasEvent):
                line = event.start_mark.line + 1
                raise InputError(f"{where}, line {line}: aliases (*{event.anchor}) are not read")
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            lines: dict[KeyPath, int] = {}
            data = None if node is None else _value(loader, node, (), lines, where)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f", line {mark.line + 1}"
        raise InputError(f"{where}{line}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error
    return Located(data, lines)


def _value(
    loader: yaml.SafeLoader, node: Any, path: KeyPath, lines: dict[KeyPath, int], where: str
) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        found: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise InputError(f"{where}, line {line}: keys are text, got {key!r}")
            if key in found:
                name = show_path((*path, key))
                raise InputError(f"{where}, line {line}: {name} is given twice")
            lines[(*path, key)] = line
            found[key] = _value(loader, value_node, (*path, key), lines, where)
        return found
    if isinstance(node, yaml.SequenceNode):
        return [
            _value(loader, child, (*path, number), lines, where)
            for number, child in enumerate(node.value)
        ]
    value = loader.construct_object(node)
    if isinstance(value, int | float) and ":" in node.value:  # 10:20 is 620, to the base of 60
        raise InputError(
            f"{where}, line {node.start_mark.line + 1}, {show_path(path)}: YAML takes {node.value} "
            f"for the number {value}: put it in quotes"
        )
    return value


def show_path(path: KeyPath) -> str:
    """``models[2].k``.

    >>> from ilo_fast.scans.positions import show_path
    >>> show_path(("models", 2, "k"))
    'models[2].k'
    """
    shown = ""
    for part in path:
        shown += f"[{part}]" if isinstance(part, int) else f".{part}" if shown else part
    return shown or "the plan"
