"""The Trainer's callback on a real Trainer and a tiny model."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import transformers
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from ilo_fast import Corpus, Result, score
from ilo_fast.errors import HiddenStateError, InputError, ModelError
from ilo_fast.finetune import ILOCallback, freeze
from ilo_fast.finetune.scoring import untouched
from ilo_fast.finetune.watch import LOGGED, Watch, _resolve_groups
from ilo_fast.sources import read_sources

STEPS = 6


def random_states():
    """Torch's, NumPy's and Python's."""
    _, words, *rest = np.random.get_state()  # noqa: NPY002 (the global one is meant)
    return torch.get_rng_state().tolist(), words.tolist(), rest, random.getstate()


class Seen(transformers.TrainerCallback):
    """What a logger would be handed, and every step's random state and modes."""

    def __init__(self):
        self.logs, self.states, self.modes = [], [], []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.logs.append((state.global_step, dict(logs)))

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        self.states.append(random_states())
        self.modes.append([module.training for module in model.modules()])


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 2 * STEPS

    def __getitem__(self, at):
        ids = torch.arange(3, 11) + at
        return {"input_ids": ids, "labels": ids}


@pytest.fixture
def corpus(parallel_text):
    return Corpus.from_mapping(parallel_text, name="tiny")


@pytest.fixture
def make(tiny_model, tmp_path, corpus):
    """make(callback) -> (trainer, what its loggers saw)."""

    def trainer(callback, steps=STEPS, **options):
        torch.manual_seed(3)
        # dropout, so that an advanced random state would show in the losses
        model = transformers.AutoModelForCausalLM.from_pretrained(
            tiny_model, attention_dropout=0.3, dtype=torch.float32
        )
        args = transformers.TrainingArguments(
            output_dir=str(tmp_path / "out"),
            per_device_train_batch_size=2,
            max_steps=steps,
            logging_steps=1,
            report_to=[],
            disable_tqdm=True,
            learning_rate=1e-2,
            use_cpu=True,
            **{"save_strategy": "no", **options},
        )
        seen = Seen()
        made = transformers.Trainer(
            model=model,
            args=args,
            train_dataset=Rows(),
            eval_dataset=Rows(),
            data_collator=transformers.default_data_collator,
            processing_class=transformers.AutoTokenizer.from_pretrained(tiny_model),
            callbacks=[seen],
        )
        if callback is not None:
            callback.attach(made)
        return made, seen

    return trainer


def losses(seen):
    return [logs["loss"] for _, logs in seen.logs if "loss" in logs]


def test_training_is_what_it_would_be_without_it(make, corpus):
    plain, plain_seen = make(None)
    plain.train()
    watched, watched_seen = make(ILOCallback(corpus, every=1))
    watched.train()
    assert losses(watched_seen) == losses(plain_seen)
    for (name, ours), theirs in zip(
        watched.model.named_parameters(), plain.model.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs), name
    assert watched_seen.states == plain_seen.states
    assert watched_seen.modes == plain_seen.modes
    assert not any(module._forward_pre_hooks for module in watched.model.modules())


def test_a_training_scored_at_some_layers_is_as_deep_as_its_model(make, corpus, tmp_path):
    """Layers of two results are paired by depth, so the deepest one scored would not do."""
    trainer, _ = make(ILOCallback(corpus, every=100, layers="1,2"))
    trainer.train()
    first = read_sources(tmp_path / "out")[0]
    assert (first.layers, first.depth) == ((1, 2), 3)


@pytest.mark.parametrize(
    ("layers", "sizes"), [(1, [1]), (2, [1, 1]), (4, [2, 1, 1]), (7, [3, 2, 2]), (16, [6, 5, 5])]
)
def test_thirds_are_as_even_as_they_can_be(layers, sizes):
    groups = _resolve_groups(None, tuple(range(layers + 1)), layers + 1)
    assert [len(group) for group in groups.values()] == sizes
    assert sum(groups.values(), ()) == tuple(range(1, layers + 1))
    assert list(groups) == ["early", "middle", "late"][: len(sizes)]


def test_logs_and_table(make, corpus, tmp_path):
    callback = ILOCallback(corpus, every=2, threshold=2)
    trainer, seen = make(callback)
    trainer.train()
    steps = [step for step, logs in seen.logs if "ilo/early" in logs]
    assert steps == [0, 2, 4, 6]
    assert any("ilo/late" in entry for entry in trainer.state.log_history)
    read = Result.read_parquet(tmp_path / "out" / "alignment.parquet")
    table = read.table
    assert list(table.columns)[-1] == "step"
    assert table.groupby("step").size().to_dict() == dict.fromkeys([0, 2, 4, 6], 4 * 4)
    assert read.record["groups"] == {"early": [1], "middle": [2], "late": [3]}
    sources = read_sources(tmp_path / "out")  # the training's folder, whose name it has
    assert [(source.training, source.step) for source in sources] == [
        ("out", step) for step in (0, 2, 4, 6)
    ]
    means = table.groupby(["layer", "step"])["ilo"].mean()
    layers = read.layers().set_index(["layer", "step"])
    assert layers["ilo"].to_dict() == pytest.approx(means.to_dict())
    assert layers["languages"].unique().tolist() == [4]
    for step in (2, 4):
        logs = next(entry for at, entry in seen.logs if at == step and "ilo/early" in entry)
        for name in LOGGED:
            rows = table[(table["step"] == step) & (table["layer"] == 2)]
            assert logs[f"{name}/middle"] == pytest.approx(rows[name].mean())


def test_the_table_holds_what_score_says_of_the_saved_model(make, corpus, tmp_path):
    callback = ILOCallback(corpus, every=3)
    trainer, _ = make(callback)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    expected = score(str(tmp_path / "saved"), corpus, dtype="float32").table
    got = callback.result.table
    got = got[got["step"] == STEPS].drop(columns="step").reset_index(drop=True)
    for column in expected.columns.drop("model"):
        assert got[column].tolist() == expected[column].tolist(), column
    moved = callback.result.table.groupby("step")["translation_hit"].mean()
    assert moved.nunique() > 1 or callback.result.table.groupby("step")["ilo"].mean().nunique() > 1


@pytest.mark.parametrize("every", [100, 1])
def test_the_best_model_loaded_at_the_end_is_not_taken_for_the_last(make, corpus, tmp_path, every):
    callback = ILOCallback(corpus, every=every, layers=[-1])
    trainer, _ = make(
        callback, load_best_model_at_end=True, save_steps=2, eval_strategy="steps", eval_steps=2,
        metric_for_best_model="eval_loss", greater_is_better=True,  # the worst: the first
        save_strategy="steps",
    )  # fmt: skip
    trainer.train()
    assert trainer.state.best_global_step == 2
    table = callback.result.table
    assert set(table["step"]) == {0, 2, STEPS} | set(range(0, STEPS + 1, every))
    assert table["step"].is_monotonic_increasing
    for step in (2, STEPS):
        saved = tmp_path / "out" / f"checkpoint-{step}"
        expected = score(str(saved), corpus, dtype="float32", layers=[-1]).table
        assert table[table["step"] == step]["ilo"].tolist() == expected["ilo"].tolist()
        hits = table[table["step"] == step]["translation_hit"].tolist()
        assert hits == expected["translation_hit"].tolist()


def test_a_training_stopped_early_has_its_last_step_too(make, corpus, tmp_path):
    callback = ILOCallback(corpus, every=100, layers=[-1])
    trainer, seen = make(
        callback, steps=-1, num_train_epochs=4, load_best_model_at_end=True,
        eval_strategy="epoch", save_strategy="epoch",
        metric_for_best_model="eval_loss", greater_is_better=True,  # the first
    )  # fmt: skip
    trainer.add_callback(transformers.EarlyStoppingCallback(early_stopping_patience=1))
    trainer.train()
    assert trainer.state.global_step == 2 * STEPS
    table = callback.result.table
    assert sorted(set(table["step"])) == [0, STEPS, 2 * STEPS]
    assert [step for step, logs in seen.logs if "ilo/early" in logs] == [0, 2 * STEPS, 2 * STEPS]
    for step in (STEPS, 2 * STEPS):
        saved = tmp_path / "out" / f"checkpoint-{step}"
        expected = score(str(saved), corpus, dtype="float32", layers=[-1]).table
        assert table[table["step"] == step]["ilo"].tolist() == expected["ilo"].tolist()


def test_no_hook_stays_on_a_watched_model(make, corpus):
    trainer, _ = make(ILOCallback(corpus, every=1), steps=1)
    trainer.train()
    assert not any(module._forward_hooks for module in trainer.model.modules())


def test_chosen_steps_and_own_groups(make, corpus):
    groups = {"first": "0:2", "last": -1}
    callback = ILOCallback(corpus, every=(1, 5), groups=groups, layers="3,0,1", limit=8)
    trainer, seen = make(callback)
    trainer.train()
    assert [step for step, logs in seen.logs if "ilo/first" in logs] == [0, 1, 5, 6]
    assert callback.result.table["layer"].unique().tolist() == [0, 1, 3]
    assert callback.result.table["n_points"].unique().tolist() == [8]


def test_with_frozen_layers_and_accumulated_gradients(make, corpus):
    callback = ILOCallback(corpus, every=1)
    trainer, seen = make(callback, steps=3, gradient_accumulation_steps=2)
    with freeze(trainer.model, first=2):
        before = [p.clone() for p in trainer.model.parameters() if not p.requires_grad]
        trainer.train()
        after = [p for p in trainer.model.parameters() if not p.requires_grad]
    assert all(map(torch.equal, before, after))
    assert [step for step, logs in seen.logs if "ilo/early" in logs] == [0, 1, 2, 3]
    assert [step for step, logs in seen.logs if "loss" in logs] == [1, 2, 3]


def test_a_resumed_training_goes_on_with_the_table(make, corpus, tmp_path):
    trainer, _ = make(None)
    trainer.args.save_strategy = transformers.trainer_utils.SaveStrategy.STEPS
    trainer.args.save_steps = 4
    trainer.args.save_only_model = False
    ILOCallback(corpus, every=2).attach(trainer)
    trainer.train()
    path = tmp_path / "out" / "alignment.parquet"
    first = Result.read_parquet(path).table
    again, _ = make(ILOCallback(corpus, every=2))
    again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-4"))
    second = Result.read_parquet(path).table
    assert second["step"].unique().tolist() == [0, 2, 4, 6]
    same = first["step"] <= 4
    assert (
        second[second["step"] <= 4]
        .reset_index(drop=True)
        .equals(first[same].reset_index(drop=True))
    )


def test_a_second_training_has_its_own_folder_and_tokenizer(corpus, tmp_path, tiny_model):
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    watch = Watch(corpus)
    for name in ("a", "b"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
        watch.begin(model, tokenizer, 0, tmp_path / f"{name}.parquet")
        assert watch.tokenizer is tokenizer
        watch.measure(model, 0)
        assert (tmp_path / f"{name}.parquet").is_file()
    given = Watch(corpus, out=tmp_path / "c.parquet")
    given.begin(model, tokenizer, 0, tmp_path / "b.parquet")
    assert given.out == tmp_path / "c.parquet"


def test_two_callbacks_of_a_training_write_two_tables(make, corpus, tmp_path):
    first = ILOCallback(corpus, every=2, k=3)
    trainer, _ = make(first)
    second = ILOCallback(corpus, every=3, k=5).attach(trainer)
    with pytest.raises(InputError, match=r"out: another callback .*alignment.parquet too"):
        trainer.train()
    trainer.remove_callback(second)
    other = tmp_path / "other.parquet"
    second = ILOCallback(corpus, every=3, k=5, out=other).attach(trainer)
    trainer.train()
    tables = [
        Result.read_parquet(path).table for path in (tmp_path / "out/alignment.parquet", other)
    ]
    assert [sorted(set(table["step"])) for table in tables] == [[0, 2, 4, 6], [0, 3, 6]]
    assert [set(table["k"]) for table in tables] == [{3}, {5}]
    ILOCallback(corpus, out=tmp_path / "out" / ".." / "other.parquet").attach(trainer)
    with pytest.raises(InputError, match="out: another callback"):
        trainer.train()


def test_a_callback_says_what_it_watches(make, corpus):
    callback = ILOCallback(corpus, every=3)
    assert repr(callback) == f"ILOCallback({corpus!r}, every=3, scorings=0)"
    trainer, _ = make(callback)
    trainer.train()
    assert repr(callback) == f"ILOCallback({corpus!r}, every=3, scorings=3)"
    assert repr(callback.watch).startswith("Watch(Corpus('tiny'")


def test_a_resumed_training_refuses_a_table_scored_otherwise(corpus, tmp_path, tiny_model):
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    first, out = Watch(corpus), tmp_path / "a.parquet"
    first.begin(model, tokenizer, 0, out)
    first.measure(model, 0)
    Watch(corpus).begin(model, tokenizer, 2, out)
    for options, named in (
        ({"k": 4}, "k"),
        ({"limit": 6, "threshold": 2}, "corpus and threshold"),
        ({"pool": "last"}, "pool"),
        ({"truncate": True}, "truncate"),
        ({"layers": "1:3"}, "layers"),
    ):
        with pytest.raises(InputError, match=f"with another {named}: give the callback the same"):
            Watch(corpus, **options).begin(model, tokenizer, 2, out)
    Watch(corpus, k=4).begin(model, tokenizer, 0, out)  # a new training: the table is replaced


def test_a_prompt_that_scoring_would_leave_out_is_refused(corpus, tmp_path, tiny_model):
    """Its training would score the same model at every step, without its prompt."""

    class Prompted(torch.nn.Module):
        active_peft_config = SimpleNamespace(is_prompt_learning=True)

        def __init__(self, model):
            super().__init__()
            self.base_model = model

        def get_base_model(self):
            return self.base_model

    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    wrapped = torch.nn.DataParallel(Prompted(model))
    with pytest.raises(ModelError, match="Prompted puts virtual tokens before the text"):
        Watch(corpus).begin(wrapped, tokenizer, 0, tmp_path / "a.parquet")


def test_nan_states_name_the_layer(make, corpus):
    callback = ILOCallback(corpus, every=2)
    trainer, _ = make(callback)
    with torch.no_grad():
        trainer.model.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(HiddenStateError, match="layer 2"):
        trainer.train()


def test_what_cannot_work_is_said(make, corpus):
    trainer, _ = make(None)
    callback = ILOCallback(corpus)
    trainer.add_callback(callback)
    with pytest.raises(InputError, match="attach"):
        trainer.train()
    callback.attach(trainer)
    assert trainer.callback_handler.callbacks.count(callback) == 1
    trainer.args.fsdp = "full_shard"
    with pytest.raises(InputError, match="sharded"):
        callback.on_train_begin(trainer.args, trainer.state, trainer.control, model=trainer.model)
    trainer.args.fsdp = None
    trainer.is_fsdp_enabled = True  # by accelerate's launcher; the arguments say nothing
    with pytest.raises(InputError, match=r"sharded \(fsdp\)"):
        callback.on_train_begin(trainer.args, trainer.state, trainer.control, model=trainer.model)
    trainer, _ = make(None)
    trainer.callback_handler.processing_class = None
    with pytest.raises(InputError, match="tokenizer: neither the callback nor the trainer"):
        ILOCallback(corpus).attach(trainer)
    with pytest.raises(ModelError, match="tokenizer: expected a transformers tokenizer, got str"):
        ILOCallback(corpus, tokenizer="gpt2").attach(trainer)
    assert not any(isinstance(c, ILOCallback) for c in trainer.callback_handler.callbacks)


def test_a_model_in_tensor_parallel_is_refused(make, corpus):
    trainer, _ = make(ILOCallback(corpus))
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        head, mesh = trainer.model.lm_head, init_device_mesh("cpu", (1,))
        head.weight = torch.nn.Parameter(distribute_tensor(head.weight.detach(), mesh, [Shard(0)]))
        with pytest.raises(InputError, match=r"sharded \(tensor parallelism\)"):
            trainer.train()
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"every": 0}, InputError, "every must be"),
        ({"every": "epoch"}, InputError, "every must be"),
        ({"every": ()}, InputError, "every must be"),
        ({"every": 2.5}, InputError, "every must be"),
        ({"overhead": 0}, InputError, "overhead must lie"),
        ({"overhead": "2 %"}, TypeError, "overhead must be a number"),
        ({"k": 48}, InputError, "k must be less than the number of points, 48"),
        ({"k": 2.5}, TypeError, "k must be an integer; got 2.5"),
        ({"k": 0}, InputError, "k must be at least 1; got 0"),
        ({"threshold": 0}, InputError, "threshold must be at least 1; got 0"),
        ({"metric": "manhattan"}, InputError, "metric must be one of cosine.*'manhattan'"),
        ({"pool": "max"}, InputError, "pool: expected one of mean"),
        ({"layers": "a"}, InputError, "layers must be"),
        ({"batch_tokens": 0}, InputError, "batch_tokens: expected at least 1, got 0"),
        ({"backend": "gpu"}, InputError, "backend must be one of auto.*'gpu'"),
        ({"fused": "on"}, InputError, "fused must be one of auto, off, liger, compile; got 'on'"),
        ({"truncate": "no"}, TypeError, "truncate must be True or False; got 'no'"),
        ({"threshold": 4}, InputError, "threshold must be at most 3.*; got 4"),
        ({"languages": ["eng_Latn"]}, InputError, "at least 2"),
        ({"groups": {"x": "1:a"}}, InputError, "layers must be"),
        ({"out": "results"}, InputError, "out must be the name of a .parquet file, got 'results'"),
        ({"poolz": "mean"}, TypeError, "unknown argument 'poolz'"),
    ],
)
def test_hostile_options(corpus, options, error, says):
    with pytest.raises(error, match=says):
        ILOCallback(corpus, **options)


def test_whole_numbers_of_numpy_are_steps(corpus):
    assert Watch(corpus, every=np.int64(5)).every == 5
    assert Watch(corpus, every=(1, np.int32(4))).every == (1, 4)


@pytest.mark.parametrize(
    ("every", "scored"), [(5, [6, 10]), (1, [2, 4, 6, 8, 10]), ((1, 5, 6), [2, 6]), ((4,), [4])]
)
def test_steps_that_are_passed_over_count(corpus, tmp_path, tiny_model, every, scored):
    """As where a batch steps two optimisers."""
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    watch = Watch(corpus, every=every)
    watch.begin(model, tokenizer, 0, tmp_path / "a.parquet")
    assert [step for step in range(2, 11, 2) if watch.due(step)] == scored


@pytest.mark.parametrize("every", [5, (2, 5)])
def test_steps_before_a_resumed_training_are_not_made_up_for(corpus, tmp_path, tiny_model, every):
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    watch = Watch(corpus, every=every)
    watch.begin(model, tokenizer, 7, tmp_path / "a.parquet")
    assert not watch.due(8)


def test_the_record_says_what_was_watched(corpus, tmp_path, tiny_model):
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    out = tmp_path / "a.parquet"
    for name, called in ((None, str(tiny_model)), ("mine", "mine")):
        watch = Watch(corpus, every=(2, 5), groups={"deep": "2:"}, name=name, backend="reference")
        watch.begin(model, tokenizer, 0, out)
        watch.due(2)
        watch.measure(model, 2)
        read = Result.read_parquet(out)
        record = read.record
        kept = [record[key] for key in ("kind", "groups", "every", "corpus", "backend")]
        groups, backend = {"deep": [2, 3]}, {"name": "reference"}
        assert kept == ["training", groups, [2, 5], watch.corpus.record, backend]
        assert record["model"] == {"name": called, "class": "LlamaForCausalLM", "n_layers": 3}
        assert set(read.table["model"]) == {called}
        cost = record["overhead"]
        assert cost["scoring_seconds"] == pytest.approx(cost["share"] * cost["training_seconds"])
        assert 0 < cost["scoring_seconds"] < watch.scoring_seconds  # writing comes after


def test_groups_must_be_scored(make, corpus):
    trainer, _ = make(ILOCallback(corpus, layers=[1, 2], groups={"last": 3}))
    with pytest.raises(InputError, match=r"holds layers \[3\]"):
        trainer.train()


@pytest.mark.parametrize(
    ("first", "later", "steps", "expected"),
    [
        (2.0, 2.0, 1000, list(range(200, 1001, 100))),
        (20.0, 0.5, 2200, list(range(2000, 2201, 25))),  # no burst after an expensive first one
    ],
)
def test_the_default_cadence_keeps_to_its_share(monkeypatch, corpus, first, later, steps, expected):
    """A clock by hand: steps of 1 s, scorings of so many seconds, at most 2 %."""
    clock = [0.0]
    watch = Watch(corpus)
    monkeypatch.setattr("ilo_fast.finetune.watch.time.perf_counter", lambda: clock[0])
    watch._mark, watch._last_scoring, watch.scoring_seconds = 0.0, first, first  # step 0 is scored
    scored = []
    for step in range(1, steps + 1):
        clock[0] += 1.0
        if watch.due(step):
            scored.append(step)
            clock[0] += later
            watch.scoring_seconds += later
            watch._last_scoring, watch._trained_before = later, watch.training_seconds
            watch._mark = clock[0]
        assert watch.scoring_seconds <= max(first, 0.02 * watch.training_seconds + 1e-9)
    assert scored == expected


def test_untouched_restores_on_errors():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout())
    model[1].eval()
    before = random_states()

    def meddle():
        with untouched(model):
            model.train()
            torch.rand(3)
            np.random.rand(3)  # noqa: NPY002
            random.random()
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        meddle()
    assert [module.training for module in model.modules()] == [True, True, False]
    assert random_states() == before
