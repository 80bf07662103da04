"""Names of files and folders made from names that come from outside; the order of names."""

import hashlib
import re

__all__ = ["natural", "safe_name"]

_LONGEST = 60


def safe_name(name: str) -> str:
    """One component of a path, letters, digits, ``-``, ``_`` and ``.`` only, for any text.

    Names that had to be changed get a digest, so that different ones stay different.

    >>> from ilo_fast.scans.names import safe_name
    >>> safe_name("gemma-3"), safe_name("../../x")
    ('gemma-3', 'x-9cdf6a50')
    """
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")[:_LONGEST]
    # Lower-case names only may go unmarked: some file systems take "A" and "a" for one.
    if cleaned == name and cleaned == cleaned.lower():
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{cleaned or 'name'}-{digest}"


def natural(name: str) -> list[tuple[int, int | str]]:
    """A key to sort by that counts as people do.

    >>> from ilo_fast.scans.names import natural
    >>> sorted(["step10", "step9"], key=natural)
    ['step9', 'step10']
    """
    parts = re.split(r"(\d+)", name)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]
