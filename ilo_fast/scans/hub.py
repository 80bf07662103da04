"""What the hub, or its cache on this machine, says of a model before it is loaded; its files."""

import json
import logging
import os
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from typing import Any

import huggingface_hub

from ilo_fast.errors import InputError
from ilo_fast.models.locate import cached_commit
from ilo_fast.models.pretrained import in_short

__all__ = ["HubModel", "check_id", "config_of", "fetch", "look_up", "matching_revisions"]

_TIMEOUT = 20.0
_SMALL_FILES = (".json", ".txt", ".model", ".py", ".jinja")
_WEIGHTS = (
    re.compile(r"model(-\d+-of-\d+)?\.safetensors"),
    re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin"),
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HubModel:
    """A repository at a revision.

    commit: None where neither hub nor cache knows it. size: bytes still to download, None where
    unknown.
    """

    commit: str | None
    size: int | None


def offline() -> bool:
    """Whether the user told Hugging Face's libraries to stay off the network."""
    values = (os.environ.get(name, "") for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return any(value.upper() in ("1", "ON", "YES", "TRUE") for value in values)


def check_id(repository: str) -> None:
    """Raise InputError unless a name, of nothing on this machine, can be a hub's."""
    from huggingface_hub import errors, utils

    try:
        utils.validate_repo_id(repository)  # type: ignore[attr-defined]
    except errors.HFValidationError as error:
        raise InputError(
            f"there is no file or folder {repository!r}, and it is no hub id: {error}"
        ) from error


def matching_revisions(repository: str, pattern: str) -> list[str]:
    """The branches and tags of a repository that match a glob; asks the hub.

    Raises InputError when the hub cannot be asked or nothing matches.
    """
    if offline():
        raise InputError(
            f"the revisions of {repository} that match {pattern!r} are known to the hub only, and "
            "HF_HUB_OFFLINE is set; name the revisions one by one"
        )
    try:
        refs = _api().list_repo_refs(repository)
    except Exception as error:  # the hub library raises requests', httpx's and its own kinds
        raise InputError(
            f"the hub cannot say which revisions of {repository} match {pattern!r}: "
            f"{in_short(error)}"
        ) from error
    names = {ref.name for ref in [*refs.branches, *refs.tags]}
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise InputError(f"no branch or tag of {repository} matches {pattern!r}")
    return found


def look_up(repository: str, revision: str | None) -> HubModel:
    """Commit and download size, from the hub, or from the cache when offline."""
    cached = cached_commit(repository, revision)
    of_cache = HubModel(cached, 0 if cached else None)
    if offline():
        return of_cache
    try:
        info = _api().model_info(
            repository, revision=revision, files_metadata=True, timeout=_TIMEOUT
        )
    except Exception as error:
        _log.info("%s: the hub does not answer: %s", repository, error)
        return of_cache
    here = cached == info.sha and _weights_cached(repository, info)
    return HubModel(info.sha, 0 if here else _download_size(info))


def fetch(repository: str, commit: str) -> None:
    """Bring the files that transformers loads into the hub's cache; raises what the hub raises."""
    info = _api().model_info(repository, revision=commit, timeout=_TIMEOUT)
    names = [escape(file.rfilename) for file in _loaded_files(info)]
    huggingface_hub.snapshot_download(repository, revision=commit, allow_patterns=names)


def config_of(repository: str, revision: str | None) -> dict[str, Any] | None:
    """config.json of a repository, from the cache or the hub; None where it cannot be had."""
    path = _cached(repository, "config.json", revision)
    if path is None:
        if offline():
            return None
        try:
            path = huggingface_hub.hf_hub_download(repository, "config.json", revision=revision)
        except Exception as error:
            _log.info("%s: no config.json: %s", repository, error)
            return None
    loaded: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return loaded


def _api() -> Any:
    return huggingface_hub.HfApi()


def _cached(repository: str, name: str, revision: str | None) -> str | None:
    """The path of a file in the cache."""
    found = huggingface_hub.try_to_load_from_cache(repository, name, revision=revision)
    return found if isinstance(found, str) else None


def _weights(info: Any) -> list[Any]:
    """The files transformers would load: safetensors, or where there are none, .bin."""
    for name in _WEIGHTS:
        weights = [file for file in info.siblings or [] if name.fullmatch(file.rfilename)]
        if weights:
            return weights
    return []


def _weights_cached(repository: str, info: Any) -> bool:
    weights = _weights(info)
    return bool(weights) and all(_cached(repository, w.rfilename, info.sha) for w in weights)


def _loaded_files(info: Any) -> list[Any]:
    small = [file for file in info.siblings or [] if file.rfilename.endswith(_SMALL_FILES)]
    return [*_weights(info), *small]


def _download_size(info: Any) -> int:
    return sum(file.size or 0 for file in _loaded_files(info))
