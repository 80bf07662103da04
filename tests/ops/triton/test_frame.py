"""What points are taken relative to: the sample's mean, and its dimensions of largest variance."""

import numpy as np
import pytest
import torch
from clouds import cloud

from ilo_fast.ops.knn_triton import _scaled
from ilo_fast.ops.request import Request
from ilo_fast.ops.triton_config import SLOTS
from ilo_fast.ops.triton_frame import Frame, choose_frame


def _frame(x: torch.Tensor, metric: str) -> tuple[Frame, np.ndarray]:
    """The frame, and the sampled points as it is to see them, float64 ``[layers, sampled, d]``."""
    layers, n, _ = x.shape
    request = Request(x=x, row_max=x.double().abs().amax(2), k=1, metric=metric)
    points, largest = _scaled(request, 0, layers)
    frame = choose_frame(points, largest, metric)
    z = x.double().cpu().numpy()
    if metric == "cosine":
        norm = np.linalg.norm(z, axis=2, keepdims=True)
        z = np.divide(z, norm, out=np.zeros_like(z), where=norm > 0)
    else:
        _, exponent = np.frexp(np.abs(z).max(axis=(1, 2), keepdims=True))
        z = z * 2.0**-exponent
    sampled = min(n, 1024, max(256, n // 8))
    return frame, z[:, np.arange(sampled) * n // sampled]


@pytest.mark.parametrize(
    ("name", "metric", "shape", "dtype"),
    [
        ("massive", "cosine", (2, 300, 130), torch.float32),
        ("zeros", "cosine", (1, 70, 65), torch.float16),
        ("near_ties", "cosine", (1, 40, 64), torch.float32),
        ("huge", "inner_product", (2, 30, 33), torch.float32),
        ("mixed_norms", "euclidean", (2, 20, 40), torch.float64),
        ("gauss", "cosine", (1, 2, 1), torch.bfloat16),
    ],
)
def test_mean_and_dimensions(
    name: str, metric: str, shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device
) -> None:
    layers, n, d = shape
    x = np.stack([cloud(name, n, d, seed) for seed in range(layers)])
    frame, sample = _frame(torch.tensor(x).to(dtype).to(device), metric)
    centre = frame.centre.cpu().numpy()
    np.testing.assert_allclose(centre, sample.mean(axis=1), rtol=2.0**-29, atol=1e-12)
    square = (centre.astype(np.longdouble) ** 2).sum(axis=1).astype(np.float64)
    np.testing.assert_allclose(frame.centre_sq.cpu().numpy(), square, rtol=1e-13)
    if metric == "cosine":
        assert (square <= 1).all()
    used = min(SLOTS - 2, d)
    variance = sample.var(axis=1)
    for layer in range(layers):
        split = frame.split[layer].cpu().numpy()
        assert len(set(split[:used])) == used
        assert (split[used:] == -1).all()
        mask = np.zeros(d, dtype=bool)
        mask[split[:used]] = True
        np.testing.assert_array_equal(frame.is_split[layer].cpu().numpy() != 0, mask)
        least = np.sort(variance[layer])[::-1][used - 1]
        assert (variance[layer][split[:used]] >= least - 1e-12).all()


def test_equal_variances_go_to_the_lower_dimension(device: torch.device) -> None:
    x = torch.zeros(1, 5, 70, device=device)
    x[0, :, 0] = 1
    frame, _ = _frame(x, "cosine")
    assert frame.split[0, :30].tolist() == list(range(30))


def test_points_that_nobody_checked_keep_dimensions_in_range(device: torch.device) -> None:
    """`torch.ops.ilo_fast.knn` may be given NaN: what is read by index must be there."""
    x = torch.ones(1, 5, 70, device=device)
    x[0, 2] = torch.nan
    x[0, 3, 40] = torch.inf
    frame = choose_frame(x, torch.ones(1, 5, dtype=torch.float64, device=device), "cosine")
    assert sorted(frame.split[0, :30].tolist()) == sorted(set(frame.split[0, :30].tolist()))
    assert 0 <= int(frame.split[0, :30].min()) <= int(frame.split[0].max()) < 70
