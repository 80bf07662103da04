"""The metric as a torchmetrics.Metric: merging, Lightning, two processes."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

torchmetrics = pytest.importorskip("torchmetrics", reason="needs torchmetrics: make test-adapters")

import ilo_fast  # noqa: E402
from ilo_fast.adapters.torchmetrics import ILO  # noqa: E402

pytestmark = pytest.mark.adapters
LANGUAGES = ("de", "en", "fr", "it")


def points(n=48, layers=2, d=5):
    hidden = torch.randn(layers, n, d, generator=torch.Generator().manual_seed(0))
    return hidden, [LANGUAGES[i % 4] for i in range(n)]


def expected(hidden, labels):
    metric = ilo_fast.ILO(k=3, threshold=1)
    metric.update(hidden, labels)
    return torch.from_numpy(metric.compute().ilo.mean(axis=1)).float()


def test_splits_and_merges():
    hidden, labels = points()
    metrics = [ILO(LANGUAGES, k=3, threshold=1) for _ in range(3)]
    for start in range(0, 48, 6):
        part = slice(start, start + 6)
        metrics[start // 6 % 3].update(hidden[:, part], labels[part])
    first, second, third = metrics
    third.merge_state(first)
    third.merge_state(second)
    torch.testing.assert_close(third.compute(), expected(hidden, labels), rtol=0, atol=0)
    assert third.scores().languages == LANGUAGES
    again = pickle.loads(pickle.dumps(third))
    torch.testing.assert_close(again.compute(), third.compute())
    third.reset()
    assert third.hidden == []


def test_the_memory_of_a_batch_may_be_used_again():
    hidden, labels = points(layers=1)
    for batch in (torch.empty(1, 6, 5), torch.empty(6, 5)):
        metric = ILO(LANGUAGES, k=3, threshold=1)
        for start in range(0, 48, 6):
            batch.copy_(hidden[0, start : start + 6])
            metric.update(batch, labels[start : start + 6])
        assert float(metric.compute()) == float(expected(hidden, labels)[0])


def test_merging_after_a_result_and_from_another_order_of_languages():
    hidden, labels = points()
    metric, other = ILO(LANGUAGES, k=3, threshold=1), ILO(LANGUAGES[::-1], k=3, threshold=1)
    metric.update(hidden[:, :20], labels[:20])
    other.update(hidden[:, 20:], labels[20:])
    states = other.metric_state
    assert not torch.equal(metric.compute(), expected(hidden, labels))
    metric.merge_state(other)
    torch.testing.assert_close(metric.compute(), expected(hidden, labels), rtol=0, atol=0)
    empty = ILO(LANGUAGES, k=3, threshold=1)
    empty.merge_state(ILO(LANGUAGES, k=3, threshold=1))
    assert empty.hidden == []
    empty.merge_state(metric)
    torch.testing.assert_close(empty.compute(), expected(hidden, labels), rtol=0, atol=0)
    by_state = ILO(LANGUAGES, k=3, threshold=1)
    by_state.merge_state(states)
    by_state.update(hidden[:, :20], labels[:20])
    torch.testing.assert_close(by_state.compute(), expected(hidden, labels), rtol=0, atol=0)


@pytest.mark.parametrize("on_cpu", [False, True])
@pytest.mark.parametrize("full", [False, True, None])
def test_calling_it_scores_the_batch_and_a_failure_leaves_the_points(full, on_cpu):
    class Metric(ILO):
        full_state_update = full

    hidden, labels = points()
    metric = Metric(LANGUAGES, k=3, threshold=1, compute_on_cpu=on_cpu)
    for start in range(0, 48, 12):
        part = slice(start, start + 12)
        value = metric(hidden[:, part], labels[part])
        assert torch.equal(value, expected(hidden[:, part], labels[part]))
        so_far = expected(hidden[:, : start + 12], labels[: start + 12])
        assert torch.equal(metric.compute(), so_far)
        for batch in ((hidden[:, :3], labels[:3]), (hidden, ["sw"] * 48)):
            with pytest.raises(ValueError, match=r"k must be between|languages must hold only"):
                metric(*batch)
        assert torch.equal(metric.compute(), so_far)
        assert metric.update_count == start // 12 + 1


def test_what_cannot_be_merged():
    hidden, labels = points()
    metric = ILO(LANGUAGES, k=3, threshold=1)
    metric.update(hidden, labels)
    other = ILO(LANGUAGES, k=3, threshold=1)
    other.update(hidden[:1], labels)
    foreign = ILO((*LANGUAGES, "sw"), k=3, threshold=1)
    foreign.update(hidden[:, :1], ["sw"])
    for wrong, error, message in (
        (metric, ValueError, "got itself"),
        (ILO(LANGUAGES, k=4, threshold=1), ValueError, "k 3 like this ILO; got 4"),
        (other, ValueError, "hidden must have 2 layers of 5 dimensions"),
        (foreign, ValueError, "languages must hold only .* got 'sw'"),
        ({"hidden": []}, ValueError, "must have hidden and codes; got .'hidden'."),
        (torchmetrics.CatMetric(), TypeError, "must be an ILO of torchmetrics .* got torchmetrics"),
    ):
        with pytest.raises(error, match=message):
            metric.merge_state(wrong)
    torch.testing.assert_close(metric.compute(), expected(hidden, labels), rtol=0, atol=0)


def test_a_collection_whose_metrics_name_the_languages_in_other_orders():
    """It lets metrics of equal states share them, and judges that by the first batch."""
    hidden, labels = points(layers=1)
    other = LANGUAGES[0], *LANGUAGES[:0:-1]
    collection = torchmetrics.MetricCollection(
        {"one": ILO(LANGUAGES, k=3, threshold=1), "two": ILO(other, k=5, threshold=2)}
    )
    collection.update(hidden[0, ::4], labels[::4])
    for start in (1, 2, 3):
        collection.update(hidden[0, start::4], labels[start::4])
    collection.compute()
    for name, k, threshold in (("one", 3, 1), ("two", 5, 2)):
        whole = ilo_fast.ILO(k=k, threshold=threshold)
        whole.update(hidden, labels)
        scores = collection[name].scores()
        assert scores.languages == whole.compute().languages
        np.testing.assert_array_equal(scores.bridge, whole.compute().bridge)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a card: benchmarks gpu")
def test_states_kept_on_the_host_of_batches_on_a_card():
    hidden, labels = points()
    metric = ILO(LANGUAGES, k=3, threshold=1, compute_on_cpu=True).to("cuda")
    for part in (slice(0, 20), slice(20, 48)):
        metric.update(hidden[:, part].cuda(), labels[part])
    assert {points.device.type for points in metric.hidden + metric.codes} == {"cpu"}
    torch.testing.assert_close(metric.compute().cpu(), expected(hidden, labels), rtol=0, atol=0)


def test_forward_and_integers_and_collection():
    hidden, _ = points(layers=1)
    codes = torch.arange(48) % 4
    metric = ILO(k=3, threshold=1)
    batch = metric(hidden[:, :24], codes[:24])
    assert batch.ndim == 0
    metric(hidden[:, 24:], codes[24:])
    assert float(metric.compute()) == pytest.approx(float(expected(hidden, codes.tolist())[0]))
    collection = torchmetrics.MetricCollection({"ilo": ILO(k=3, threshold=1)})
    collection.update(hidden[0], codes)
    assert float(collection.compute()["ilo"]) == pytest.approx(float(metric.compute()))


def test_unknown_language():
    with pytest.raises(ValueError, match="'es'"):
        ILO(LANGUAGES).update(torch.ones(1, 2), ["es"])
    with pytest.raises(ValueError, match="integers"):
        ILO().update(torch.ones(1, 2), ["de"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"k": 0}, ValueError, "k must be at least 1; got 0"),
        ({"k": 2.5}, TypeError, "k must be an integer; got 2.5"),
        ({"threshold": "3"}, TypeError, "threshold must be an integer"),
        ({"metric": "cos"}, ValueError, "metric must be one of .* got 'cos'"),
        ({"backend": "faiss"}, ValueError, "backend must be one of"),
        ({"languages": "en"}, ValueError, "languages must be .* got one str"),
        ({"languages": ["de", "de"]}, ValueError, "languages must name at least 2"),
        ({"languages": [None, "de"]}, ValueError, "languages must be strings or integers"),
        ({"languages": {"de", "en"}}, TypeError, "languages must have an order, got a set"),
    ],
)
def test_options_are_checked_before_the_first_batch(options, error, message):
    with pytest.raises(error, match=message):
        ILO(**options)


def test_a_batch_that_does_not_fit_is_named_and_leaves_the_others():
    hidden, labels = points()
    metric = ILO(LANGUAGES, k=3, threshold=1)
    metric.update(hidden, labels)
    with pytest.raises(ValueError, match="hidden must have 2 layers of 5 dimensions"):
        metric.update(hidden[:, :, :4], labels)
    torch.testing.assert_close(metric.compute(), expected(hidden, labels))
    numbers = ILO(k=3, threshold=1)
    numbers.update(hidden, torch.arange(48) % 4)
    with pytest.raises(ValueError, match=f"integers of 64 bits; got {2**70}"):
        numbers.update(hidden, [2**70, 1] * 24)
    torch.testing.assert_close(numbers.compute(), expected(hidden, labels))


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_nothing_and_one_point_have_no_score():
    metric = ILO()
    with pytest.raises(ValueError, match="update was never called"):
        metric.compute()
    metric = ILO()
    metric.update(torch.ones(1, 3), [0])
    with pytest.raises(ValueError, match="one point has no neighbours"):
        metric.compute()


def test_labels_and_languages_of_numpy_and_another_dtype():
    hidden, labels = points()
    metric = ILO(np.array(LANGUAGES), k=3, threshold=1)
    metric.update(hidden, labels)
    metric.set_dtype(torch.float64)
    torch.testing.assert_close(metric.compute(), expected(hidden, labels))
    assert metric.scores().languages == LANGUAGES


def test_a_backend_of_choice():
    hidden, labels = points()
    metric = ILO(LANGUAGES, k=3, threshold=1, backend="reference")
    metric.update(hidden, labels)
    scores = ilo_fast.ILO(k=3, threshold=1, backend="reference")
    scores.update(hidden, labels)
    assert metric.compute().tolist() == scores.compute().ilo.mean(axis=1).astype("f4").tolist()


def test_lightning_module(tmp_path):
    lightning = pytest.importorskip(
        "pytorch_lightning", reason="needs pytorch-lightning: make test-adapters"
    )
    hidden, _ = points(layers=1)
    codes = torch.arange(48) % 4

    class Probe(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(5, 5)
            self.metric = ILO(k=3, threshold=1)
            self.plain = ilo_fast.ILO(k=3, threshold=1)

        def training_step(self, batch, _):
            return self.layer(batch[0]).square().mean()

        def on_validation_epoch_start(self):
            self.plain.reset()

        def validation_step(self, batch, _):
            self.metric.update(batch[0], batch[1])
            self.plain.update(batch[0], batch[1])
            self.log("ilo", self.metric)

        def on_validation_epoch_end(self):
            if self.plain.n > 6:  # not in the sanity check's one batch
                self.log("plain", float(self.plain.compute().ilo.mean()))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(hidden[0], codes), batch_size=6
    )
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(Probe(), loader, loader)
    value = float(expected(hidden, codes.tolist())[0])
    assert float(trainer.callback_metrics["ilo"]) == pytest.approx(value)
    assert float(trainer.callback_metrics["plain"]) == pytest.approx(value)


WORKER = """
import sys
import torch
import torch.distributed as dist
from ilo_fast.adapters.torchmetrics import ILO

rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
hidden = torch.randn(2, 50, 5, generator=torch.Generator().manual_seed(0))
codes = torch.arange(50) % 4
whole = ILO(k=3, threshold=1, sync_on_compute=False)
whole.update(hidden, codes)
single, double = torch.float32, torch.float64
for cut, dtype in ((20, single), (50, single), (0, single), (20, double)):
    metric = ILO(k=3, threshold=1)
    mine = slice(0, cut) if rank == 0 else slice(cut, 50)
    given = hidden[:, mine].to(dtype if rank else single)
    if given.shape[1]:
        metric.update(given, codes[mine])
    assert torch.equal(metric.compute(), whole.compute()), (cut, dtype)
    assert sum(map(len, metric.hidden)) == given.shape[1]
for refused, message in (
    (ILO(k=3 + rank, threshold=1), "k must be the same on every rank; got [3, 4]"),
    (ILO(["a", "b"] if rank else ["a", "c"]), "languages must be the same on every rank"),
    (ILO(k=3, threshold=1), "ranks hold points of different layers and dimensions"),
):
    labels = ["a", "a"] * 25 if refused.languages else codes
    refused.update(hidden[rank:], labels)
    try:
        refused.compute()
        raise AssertionError(message)
    except ValueError as error:
        assert message in str(error), error
dist.barrier()
dist.destroy_process_group()
print("done", rank)
"""


def test_two_processes(tmp_path):
    """Also where one of them holds no points, or holds them in another dtype."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", WORKER, str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        ended = [worker.communicate(timeout=180) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    for rank, (worker, (out, err)) in enumerate(zip(workers, ended, strict=True)):
        assert worker.returncode == 0, err
        assert out.strip() == f"done {rank}"


def test_numpy_arrays_are_taken():
    hidden, labels = points()
    metric = ILO(LANGUAGES, k=3, threshold=1)
    metric.update(hidden.numpy(), np.array(labels))
    torch.testing.assert_close(metric.compute(), expected(hidden, labels))
