"""What a folder of states says of itself in JSON, checked before it is believed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ilo_fast.errors import InputError
from ilo_fast.files import read_json as read_values

__all__ = ["check_key", "damaged", "describes", "read_json"]


def damaged(folder: Path, name: str, why: str) -> InputError:
    """The error that a file of a folder is damaged."""
    return InputError(
        f"folder: {name} in {folder} is damaged ({why}); give another folder or delete it"
    )


def read_json(folder: Path, name: str, *keys: str) -> dict[str, Any]:
    """A JSON file of a folder of states; InputError when it is damaged or lacks one of ``keys``."""
    try:
        content = read_values(folder / name)
    except FileNotFoundError:
        raise InputError(f"folder: {folder} holds states without their {name}") from None
    except ValueError as error:  # no JSON, or no UTF-8
        raise damaged(folder, name, str(error)) from error
    whole = isinstance(content, dict) and all(key in content for key in keys)
    if not whole or not isinstance(content.get("key", {}), dict):
        raise damaged(folder, name, f"it must hold {' and '.join(keys) or 'a record'}")
    return dict(content)


def check_key(folder: Path, name: str, key: dict[str, Any]) -> None:
    """That a stored key tells the states' shape, layers and languages, and of what they are.

    Raises:
        InputError: naming the first field that cannot be so.
    """
    shape, layers, languages = (_listed(key.get(of)) for of in ("shape", "layers", "languages"))
    rules = {
        "shape": len(shape) == 3 and all(type(n) is int and n > 0 for n in shape),
        "layers": len(layers) == (*shape, 0)[0]
        and all(type(n) is int and n >= 0 for n in layers)
        and len(set(layers)) == len(layers),
        "languages": bool(languages)
        and all(isinstance(code, str) for code in languages)
        and len(set(languages)) == len(languages),
        "model": isinstance(key.get("model"), str),
        "corpus": isinstance(key.get("corpus"), str),
    }
    for field, right in rules.items():
        if not right:
            raise damaged(folder, name, f"its {field} cannot be {key.get(field)!r:.80}")
    if shape[1] % len(languages):
        raise damaged(folder, name, f"{shape[1]} points are not of {len(languages)} languages")


def describes(about: object) -> bool:
    """Whether a value can say of model and corpus what they are: a mapping of mappings.

    Names are text, ``n_layers`` and ``sentences`` numbers, where they are there at all.
    """
    if not isinstance(about, Mapping):
        return False
    model, corpus = about.get("model", {}), about.get("corpus", {})
    return (
        isinstance(model, Mapping)
        and isinstance(corpus, Mapping)
        and all(isinstance(of.get("name", ""), str) for of in (model, corpus))
        and all(type(n) is int for n in (model.get("n_layers", 1), corpus.get("sentences", 1)))
    )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
