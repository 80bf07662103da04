"""Where a model's name points to: the hub, a folder, a GGUF file."""

from pathlib import Path
from typing import Literal

from ilo_fast.errors import ModelError
from ilo_fast.files import expanded

__all__ = ["Source", "cached_commit", "locate", "looks_local"]

Source = Literal["hub", "folder", "gguf", "memory"]


def looks_local(model: str) -> bool:
    """Whether a name that is no file here can only have meant one: a hub id has one slash."""
    return model.endswith(".gguf") or model.startswith((".", "/", "~")) or model.count("/") > 1


def locate(model: str, revision: str | None) -> tuple[Source, Path | None]:
    """Whether a name is a hub id, a folder or a GGUF file, and where that is; None for the hub's.

    Raises:
        ModelError: when it can be none of them, or is local and has a revision.
    """
    if not model.strip():
        raise ModelError(
            f"model: expected a hub id, a folder or a .gguf file, got the text {model!r}"
        )
    path = expanded(model)
    if path.is_file() and path.suffix == ".gguf":
        source: Source = "gguf"
    elif path.is_dir():
        if not (path / "config.json").is_file():
            adapter = (path / "adapter_config.json").is_file()
            hint = ", but an adapter: merge it into its model (peft: merge_and_unload), save that"
            inside = sorted(file.parent.name for file in path.glob("*/config.json"))
            if inside and not adapter:
                more = f" and {len(inside) - 2} more" if inside[2:] else ""
                hint = f", but {' and '.join(inside[:2])}{more} in it do"
            raise ModelError(
                f"model: the folder {model} holds no config.json{hint * bool(adapter or inside)}",
                kind="missing",
            )
        source = "folder"
    elif path.exists():
        raise ModelError(f"model: {model} is neither a folder nor a .gguf file")
    elif looks_local(model):
        raise ModelError(f"model: there is no file or folder {model}", kind="missing")
    else:
        return "hub", None
    if revision is not None:
        raise ModelError(f"revision: only a hub id has revisions, {model} is a local {source}")
    return source, path


def cached_commit(repository: str, revision: str | None) -> str | None:
    """The commit of what the hub's cache holds of a repository at a revision; None of nothing."""
    import huggingface_hub

    found = huggingface_hub.try_to_load_from_cache(repository, "config.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else None
