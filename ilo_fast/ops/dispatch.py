"""The one place that decides which backend serves a neighbour search.

A backend is a row of ``BACKENDS``: its engine (a function ``Request -> EngineResult``) and a
function ``(device, Request | None) -> str`` that says why it cannot serve, or "" when it can. Both
are named as "module:function" and imported only when asked for, so that no kernel language is
loaded by a search that does not use it.
"""

import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from ilo_fast.arguments import check_choice
from ilo_fast.errors import InputError
from ilo_fast.ops.request import EngineResult, Request

__all__ = [
    "BACKENDS",
    "Backend",
    "check_name",
    "choose",
    "described",
    "explain",
    "explain_kernels",
]


@dataclass(frozen=True)
class Backend:
    """One way to serve a search. ``automatic`` backends are tried in the table's order.

    ``doubt`` names a function ``(device, Request) -> str`` that says why ``auto`` should not trust
    the backend with a request that it could serve; ``auto`` then warns and tries the next.
    """

    name: str
    engine: str
    cannot_serve: str
    automatic: bool
    describe: str
    doubt: str = ""

    def load(self) -> Callable[[Request], EngineResult]:
        """Import and return the engine."""
        return _load(self.engine)  # type: ignore[no-any-return]

    def obstacle(self, device: torch.device, request: Request | None = None) -> str:
        """Why this backend cannot serve ``device`` (and ``request``), "" when it can."""
        return _load(self.cannot_serve)(device, request)  # type: ignore[no-any-return]

    def doubted(self, device: torch.device, request: Request) -> str:
        """Why ``auto`` should leave ``request`` to another backend, "" when it need not."""
        if not self.doubt:
            return ""
        return _load(self.doubt)(device, request)  # type: ignore[no-any-return]


BACKENDS: tuple[Backend, ...] = (
    Backend(
        name="triton",
        engine="ilo_fast.ops.knn_triton:search",
        cannot_serve="ilo_fast.ops.knn_triton:cannot_serve",
        automatic=True,
        describe="fused float16 kernels with a certificate, float64 where they leave a doubt; "
        "tried against plain torch on this card before its first use",
        doubt="ilo_fast.ops.triton_trial:doubt",
    ),
    Backend(
        name="torch",
        engine="ilo_fast.ops.knn_torch:search",
        cannot_serve="ilo_fast.ops.knn_torch:cannot_serve",
        automatic=True,
        describe="float32 filter with a certificate, float64 where it leaves a doubt",
    ),
    Backend(
        name="reference",
        engine="ilo_fast.ops.knn_reference:search",
        cannot_serve="ilo_fast.ops.knn_reference:cannot_serve",
        automatic=False,
        describe="the public research code's arithmetic, quirks and all; certifies nothing",
    ),
)

# The CUDA C++ kernels take over behind the search, on a card with CuPy, whatever backend served it.
_NO_SEARCH = {
    "cuda": "CUDA C++ kernels serve languages and intersections of neighbour lists, no search",
}
# What else has a kernel: its work, the kernel, and a function that says why it cannot serve.
_KERNELS = (
    ("pooling", "a Triton kernel", "ilo_fast.ops.segment_pool:obstacle"),
    ("counting over neighbour lists", "CUDA C++ kernels", "ilo_fast.ops.cuda:obstacle"),
    ("cosines of language pairs", "float16 products", "ilo_fast.ops.half_products:obstacle"),
    ("the largest of those cosines", "a Triton kernel", "ilo_fast.ops.largest:obstacle"),
    ("float32 products", "oneDNN", "ilo_fast.ops.products:obstacle"),
)
_KNOWN = ("auto", "torch", "triton", "cuda", "reference")


def check_name(backend: str) -> None:
    """Raise unless ``backend`` is a backend's name, as `check_choice`."""
    check_choice(backend, "backend", _KNOWN)


def described() -> tuple[tuple[str, str], ...]:
    """Each value of ``backend=`` with a line on what it does.

    >>> [name for name, _ in described()]
    ['auto', 'torch', 'triton', 'cuda', 'reference']
    """
    lines = {candidate.name: candidate.describe for candidate in BACKENDS}
    lines["auto"] = "the first of the automatic ones that serves the device"
    return tuple((name, lines.get(name, _NO_SEARCH.get(name, ""))) for name in _KNOWN)


def choose(backend: str, request: Request, device: torch.device | None = None) -> Backend:
    """Return the backend for a request; raise ``InputError`` when a forced one cannot serve.

    ``device`` is where the request will be, for one that is asked about before it is there (its
    points on the meta device); the request's own otherwise.
    """
    check_name(backend)
    device = request.x.device if device is None else device
    if backend == "auto":
        for candidate in BACKENDS:
            if not candidate.automatic or candidate.obstacle(device, request):
                continue
            doubt = candidate.doubted(device, request)
            if not doubt:
                return candidate
            warnings.warn(
                f"backend {candidate.name!r} does not serve this search: {doubt}",
                RuntimeWarning,
                stacklevel=3,
            )
        raise InputError(f"no backend serves {device}: {explain(device)}")
    for candidate in BACKENDS:
        if candidate.name == backend:
            obstacle = candidate.obstacle(device, request)
            if obstacle:
                raise InputError(f"backend {backend!r} cannot serve this search: {obstacle}")
            return candidate
    raise InputError(f"backend {backend!r} cannot serve this search: {_NO_SEARCH[backend]}")


def explain(device: torch.device | str, served: Collection[str] = ()) -> str:
    """Say in one line which backend ``auto`` takes on a device and why not the others.

    ``served`` names those that did serve some searches, which may leave out one that could serve
    the device: for their shapes, or for a doubt.

    >>> explain("cpu").startswith("torch")
    True
    """
    device = torch.device(device)
    chosen, others = "", []
    for candidate in BACKENDS:
        obstacle = candidate.obstacle(device, None)
        if obstacle:
            others.append(f"{candidate.name}: {obstacle}")
        elif candidate.automatic and served and candidate.name not in served:
            if not chosen:
                others.append(f"{candidate.name}: not for these searches")
        elif candidate.automatic and not chosen:
            chosen = f"{candidate.name} on {device}: {candidate.describe}"
    chosen = chosen or f"none on {device}"
    return "; not ".join([chosen, *others])


def explain_kernels(device: torch.device | str) -> tuple[str, ...]:
    """Say in a line each what serves the work beside the search on a device, and why.

    >>> explain_kernels("cpu")[0]
    'pooling: plain torch on cpu (Triton needs a CUDA device, not cpu)'
    """
    device = torch.device(device)
    lines = []
    for work, kernel, obstacle in _KERNELS:
        reason = _load(obstacle)(device)
        served = f"plain torch on {device} ({reason})"
        if not reason:
            served = f"{kernel} on {device}, once tried there"
        lines.append(f"{work}: {served}")
    return tuple(lines)


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
