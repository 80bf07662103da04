"""The neighbour search as a torch operator."""

import pytest
import torch

from ilo_fast import knn
from ilo_fast.ops.knn_op import knn_op


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "inner_product"])
def test_equals_knn(metric: str) -> None:
    x = torch.randn(2, 50, 9, generator=torch.Generator().manual_seed(0))
    lists, distances, proved = knn_op(x, 4, metric)
    expected = knn(x, 4, metric=metric)
    assert torch.equal(lists, expected.indices)
    assert torch.equal(distances, expected.distances)
    assert bool(proved.all())


def test_operator_contract() -> None:
    x = torch.randn(2, 20, 5, generator=torch.Generator().manual_seed(1))
    torch.library.opcheck(torch.ops.ilo_fast.knn, (x, 3, "cosine", True))


def test_under_compile() -> None:
    x = torch.randn(1, 20, 5, generator=torch.Generator().manual_seed(2))
    compiled = torch.compile(lambda y: knn_op(y * 2, 3)[0] + 1, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), knn_op(x, 3)[0] + 1)


def test_beside_what_takes_gradients() -> None:
    def spread(x: torch.Tensor) -> torch.Tensor:
        lists, distances, _ = knn_op(x[None], 3)
        assert not distances.requires_grad
        return (x[:, None] - x[lists[0]]).square().sum()

    x = torch.randn(20, 5, generator=torch.Generator().manual_seed(3), requires_grad=True)
    (plain,) = torch.autograd.grad(spread(x), x)
    compiled = torch.compile(spread, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(torch.autograd.grad(compiled(x), x)[0], plain)
    torch.testing.assert_close(torch.func.grad(spread)(x.detach()), plain)
    both = torch.stack([x, x]).detach()
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(spread))(both)[1], plain)


def test_batches_of_points_are_searched_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    """Without torch's warning of a loop."""
    x = torch.randn(4, 2, 30, 5, generator=torch.Generator().manual_seed(4))
    vmap = torch.func.vmap
    each = [torch.stack(parts) for parts in zip(*(knn_op(part, 3) for part in x), strict=True)]
    batched = vmap(lambda y: knn_op(y, 3))(x)
    last = vmap(lambda y: knn_op(y, 3), in_dims=2)(x.movedim(0, 2))
    nested = vmap(vmap(lambda y: knn_op(y[None], 3)), in_dims=1)(x)
    for expected, one, two, three in zip(each, batched, last, nested, strict=True):
        assert torch.equal(one, expected)
        assert torch.equal(two, expected)
        assert torch.equal(three[:, :, 0], expected.movedim(1, 0))
    assert "performance drop" not in capfd.readouterr().err


def test_shapes_and_k_are_checked() -> None:
    """Beyond the points, lists held -1, which indexes the last one."""
    x = torch.randn(1, 5, 3)
    assert knn_op(x, 5, exclude_self=False)[0].amin() == 0
    for k, message in ((5, "between 1 and 4 for 5 points; got 5"), (0, "got 0")):
        with pytest.raises(ValueError, match=message):
            knn_op(x, k)
    with pytest.raises(ValueError, match=r"x must be \[layers, n, d\]; got shape \[5, 3\]"):
        knn_op(x[0], 2)
    with pytest.raises(ValueError, match="metric must be one of"):
        knn_op(x, 2, "l2")


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device: python -m benchmarks gpu"
)
@pytest.mark.parametrize(("n", "d", "k"), [(3001, 576, 5), (257, 1030, 40), (5000, 4096, 128)])
@pytest.mark.parametrize("metric", ["cosine", "euclidean", "inner_product"])
def test_card_equals_cpu(n: int, d: int, k: int, metric: str) -> None:
    """Lists of the card and the CPU are the same, on a side stream and on every run."""
    x = torch.randn(1, n, d, generator=torch.Generator().manual_seed(n))
    x[..., 3] += 50
    x[0, 100:110] = x[0, 5]
    expected = knn(x, k, metric=metric, backend="torch")
    card = x.cuda()
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        found = [knn(card, k, metric=metric, backend="triton") for _ in range(2)]
    torch.cuda.synchronize()
    assert torch.equal(found[0].indices.cpu(), expected.indices)
    assert torch.equal(found[0].indices, found[1].indices)
    assert torch.equal(found[0].distances, found[1].distances)
    torch.testing.assert_close(found[0].distances.cpu(), expected.distances, rtol=1e-6, atol=1e-12)
    assert bool(found[0].certified.all())
