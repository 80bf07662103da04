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
metric = ILO(k=3, threshold=1)
mine = slice(0, 20) if rank == 0 else slice(20, 50)
metric.update(hidden[:, mine], codes[mine])
assert torch.equal(metric.compute(), whole.compute())
dist.destroy_process_group()
print("done", rank)
"""


def test_two_processes(tmp_path):
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for rank, worker in enumerate(workers):
        try:
            out, err = worker.communicate(timeout=180)
        finally:
            worker.kill()
        assert worker.returncode == 0, err
        assert out.strip() == f"done {rank}"


def test_numpy_arrays_are_taken():
    hidden, labels = points()
    metric = ILO(LANGUAGES, k=3, threshold=1)
    metric.update(hidden.numpy(), np.array(labels))
    torch.testing.assert_close(metric.compute(), expected(hidden, labels))
