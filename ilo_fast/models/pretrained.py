"""transformers' loading of a model and its tokenizer: in silence, its errors in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ilo_fast.errors import ModelError

__all__ = ["dequantised", "in_short", "pretrained", "quiet", "without_bars"]


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep transformers' and the hub library's bars off the terminal, where our progress goes."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def quiet() -> Iterator[None]:
    """Without bars, transformers' reports of loading and the hub library's lines about its
    retries: what becomes of them is said in one error.
    """
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    verbosity, hub_verbosity = logging.get_verbosity(), hub_logging.get_verbosity()
    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        with without_bars():
            yield
    finally:
        hub_logging.set_verbosity(hub_verbosity)
        logging.set_verbosity(verbosity)


def dequantised() -> dict[str, Any]:
    """What keeps a transformers that could compute with a GGUF file's packed weights from it."""
    import transformers

    made = getattr(transformers, "GgufConfig", None)
    return {} if made is None else {"quantization_config": made(dequantize=True)}


def _damaged_files(where: str) -> list[str]:
    """Names of a local folder's safetensors files that cannot be opened."""
    from safetensors import SafetensorError, safe_open

    damaged = []
    for path in sorted(Path(where).glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                pass
        except SafetensorError:
            damaged.append(path.name)
    return damaged


def _holds_tokenizer(folder: Path) -> bool:
    return any(any(folder.glob(name)) for name in ("*token*", "vocab*", "*.model", "*.gguf"))


def pretrained(where: str, options: dict[str, Any], load: dict[str, Any]) -> tuple[Any, Any]:
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    name = where if "gguf_file" not in options else str(Path(where) / options["gguf_file"])
    kind = "model"
    try:
        if "gguf_file" not in options:  # small, and fails first on what is wrong with a model
            AutoConfig.from_pretrained(where, **options)
        kind = "tokenizer"
        tokenizer = AutoTokenizer.from_pretrained(where, **options)
        kind = "model"
        model, report = AutoModel.from_pretrained(
            where,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported instead, and refused by name below
            **options,
            **load,
        )
    except SafetensorError as error:
        named = ", ".join(_damaged_files(where)) or "a weights file"
        raise ModelError(
            f"model: cannot load {name}: {named} is damaged or cut short ({error}); "
            "fetch or save it again"
        ) from error
    except Exception as error:  # any: what is amiss in files of others has no end
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"model: {name} needs code from its own repository to run; "
                "trust_remote_code=True or --trust-remote-code allows it",
                kind=kind,
            ) from error
        if kind == "tokenizer" and Path(where).is_dir() and not _holds_tokenizer(Path(where)):
            raise ModelError(
                f"model: the folder {where} holds no tokenizer: save the model's there, by "
                "tokenizer.save_pretrained",
                kind=kind,
            ) from error
        # one line for the user; the cause is chained for --debug
        hint = "" if Path(where).exists() else f" (no folder or file {name} exists here)"
        raise ModelError(
            f"model: cannot load {name}: {in_short(error)}{hint}", kind=kind
        ) from error
    # What the checkpoint lacks is filled with random numbers. Only the pooler, which comes after
    # the hidden states, may be so.
    lacking = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if lacking:
        raise ModelError(
            f"model: the checkpoint {name} lacks {len(lacking)} weights of "
            f"{type(model).__name__}: {', '.join(lacking[:3])}"
        )
    if report["mismatched_keys"]:
        key, found, wanted = min(report["mismatched_keys"])
        raise ModelError(
            f"model: the checkpoint {name} does not fit its configuration: {key} is "
            f"{list(found)}, {type(model).__name__} wants {list(wanted)}"
        )
    return model, tokenizer


def in_short(error: Exception) -> str:
    """An error's kind and the first two lines of what it says, in one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])}"
