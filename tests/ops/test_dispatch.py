"""Which backend serves, and what happens when none can."""

import numpy as np
import pytest
import torch

from ilo_fast import knn
from ilo_fast.errors import InputError
from ilo_fast.ops import cuda, dispatch, segment_pool
from ilo_fast.ops.dispatch import Backend, choose, explain
from ilo_fast.ops.request import METRICS, Request
from ilo_fast.record import backend_record


def request_for(metric="cosine"):
    return Request(torch.zeros(1, 8, 3), torch.ones(1, 8), 2, metric)


def stub(name, obstacle="", automatic=True):
    """A row of the table whose obstacle is a constant."""
    module = "ilo_fast.ops.knn_torch"
    made = Backend(name, f"{module}:search", f"{module}:cannot_serve", automatic, f"stub {name}")
    return made, obstacle


@pytest.fixture
def table(monkeypatch):
    def set_rows(*rows):
        reasons = {made.name: obstacle for made, obstacle in rows}
        monkeypatch.setattr(dispatch, "BACKENDS", tuple(made for made, _ in rows))
        monkeypatch.setattr(
            Backend, "obstacle", lambda self, device, request=None: reasons[self.name]
        )

    return set_rows


def test_the_first_that_can_serve_is_taken(table):
    table(stub("triton", "no GPU"), stub("torch"), stub("cuda"))
    assert choose("auto", request_for()).name == "torch"
    assert choose("cuda", request_for()).name == "cuda"


def test_backends_that_are_not_automatic_wait_to_be_asked(table):
    table(stub("reference", automatic=False), stub("torch"))
    assert choose("auto", request_for()).name == "torch"
    assert choose("reference", request_for()).name == "reference"


def test_a_doubted_backend_is_left_out_and_said(table, monkeypatch):
    table(stub("triton"), stub("torch"))
    monkeypatch.setattr(
        Backend, "doubted", lambda self, *_: "its sums are off" if self.name == "triton" else ""
    )
    with pytest.warns(RuntimeWarning, match="'triton' does not serve this search: its sums are"):
        assert choose("auto", request_for()).name == "torch"
    assert choose("triton", request_for()).name == "triton"  # forced: no trial
    monkeypatch.setattr(Backend, "doubted", lambda self, *_: "")
    assert choose("auto", request_for()).name == "triton"


def test_the_record_says_which_served_and_not_which_could(table):
    table(stub("triton"), stub("torch"))
    cpu = torch.device("cpu")
    torch_served = backend_record("auto", cpu, [{"backend": "torch"}])
    assert torch_served == {
        "name": "torch",
        "why": "torch on cpu: stub torch; not triton: not for these searches",
    }
    assert backend_record("auto", cpu, [{"backend": "triton"}])["why"] == (
        "triton on cpu: stub triton"
    )
    both = backend_record("auto", cpu, [{"backend": "torch"}, {"backend": "triton"}])
    assert both == {"name": "torch, triton", "why": "triton on cpu: stub triton"}
    assert explain("cpu") == "triton on cpu: stub triton"


def test_a_forced_backend_that_cannot_serve_raises(table):
    table(stub("triton", "no GPU"), stub("torch"))
    with pytest.raises(InputError, match="'triton' cannot serve this search: no GPU"):
        choose("triton", request_for())


def test_none_left(table):
    table(stub("torch", "no float64 on mps"))
    with pytest.raises(InputError, match="no backend serves cpu: none on cpu; not torch: no float"):
        choose("auto", request_for())


def test_unknown_and_unregistered_names(table):
    table(stub("torch"))
    with pytest.raises(InputError, match="backend must be one of auto, torch"):
        choose("faiss", request_for())
    with pytest.raises(InputError, match="'cuda' cannot serve this search: CUDA C"):
        choose("cuda", request_for())


def test_explain_names_the_choice_and_the_obstacles(table):
    table(stub("triton", "no GPU"), stub("torch"), stub("reference", automatic=False))
    assert explain("cpu") == "torch on cpu: stub torch; not triton: no GPU"


@pytest.mark.parametrize(
    ("installed", "lines"),
    [
        (
            {"triton", "cupy"},
            ["pooling: a Triton kernel on cuda:0, once tried there",
             "counting over neighbour lists: CUDA C++ kernels on cuda:0, once tried there",
             "cosines of language pairs: float16 products on cuda:0, once tried there",
             "the largest of those cosines: a Triton kernel on cuda:0, once tried there",
             "float32 products: plain torch on cuda:0 (oneDNN's products are the CPU's)"],
        ),
        (
            set(),
            ["pooling: plain torch on cuda:0 (the package triton is not installed)",
             "counting over neighbour lists: plain torch on cuda:0 (the package cupy is not "
             "installed (pip install 'ilo-fast[gpu]'))",
             "cosines of language pairs: plain torch on cuda:0 (compute capability 7.0 or newer "
             "is needed)",
             "the largest of those cosines: plain torch on cuda:0 (the package triton is not "
             "installed)",
             "float32 products: plain torch on cuda:0 (oneDNN's products are the CPU's)"],
        ),
    ],
)  # fmt: skip
def test_what_serves_beside_the_search(installed, lines, monkeypatch):
    for module in (cuda, segment_pool):
        monkeypatch.setattr(module, "find_spec", lambda name: name in installed or None)
    capability = (9, 0) if installed else (6, 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert list(dispatch.explain_kernels("cuda:0")) == lines


def test_the_real_table_on_a_cpu():
    assert explain("cpu").startswith("torch on cpu")
    assert choose("auto", request_for()).name == "torch"
    for row in dispatch.BACKENDS:
        assert callable(row.load())
        assert row.name in dict(dispatch.described())
    for metric in METRICS:
        assert choose("torch", request_for(metric)).name == "torch"


def test_reference_says_what_it_lacks():
    x = np.eye(6)
    assert knn(x, 2, backend="reference").backend == "reference"
    with pytest.raises(ValueError, match="cosine and euclidean only"):
        knn(x, 2, backend="reference", metric="inner_product")
    with pytest.raises(ValueError, match="drops the first neighbour"):
        knn(x, 2, backend="reference", exclude_self=False)


def test_a_request_can_be_asked_about_before_its_points_are_there():
    x = torch.empty(1, 8, 3, device="meta")
    request = Request(x, torch.empty(1, 8, device="meta"), 2, "inner_product")
    assert choose("auto", request, torch.device("cpu")).name == "torch"
    with pytest.raises(InputError, match="cosine and euclidean only"):
        choose("reference", request, torch.device("cpu"))
