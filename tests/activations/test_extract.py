"""extract(): layers, budgets, early stop, bad input, out of memory, the model left as it was."""

import io
from types import SimpleNamespace

import pytest
import torch
import transformers
from families import SENTENCES, Characters, make

import ilo_fast
from ilo_fast import Corpus, extract
from ilo_fast.activations import capability, store
from ilo_fast.activations.runner import Runner
from ilo_fast.errors import CorpusError, HiddenStateError, InputError, ModelError
from ilo_fast.models import wrap_model
from ilo_fast.models.fingerprint import weights_sha256
from ilo_fast.models.structure import find_backbone
from ilo_fast.progress import PlainProgress

CORPUS = Corpus("pair", ("one", "two"), SENTENCES)


def relative(ours, truth):
    return ((ours - truth).norm(dim=2) / truth.norm(dim=2)).max().item()


@pytest.mark.parametrize("name", ["llama", "bloom"])
def test_any_budget_gives_the_same(name):
    model, tokenizer = make(name), Characters()
    whole = extract(model, tokenizer, CORPUS, batch_tokens=10_000)
    for budget in (1, 20, 33):
        store = extract(model, tokenizer, CORPUS, batch_tokens=budget)
        assert relative(store.states, whole.states) < 1e-6
        assert store.record["batch_tokens"] == budget
    assert whole.record["tokens"] == sum(len(tokenizer.encode(text)) for text in CORPUS.texts)


def test_long_rope_never_turns_short_sentences_by_the_long_angles():
    rope = {
        "rope_type": "longrope", "rope_theta": 10_000.0, "original_max_position_embeddings": 8,
        "short_factor": [1.0] * 4, "long_factor": [3.0] * 4,
    }  # fmt: skip
    model = make("llama", rope_parameters=rope)
    loaded = weights_sha256(model)
    assert {len(text) > 8 for text in CORPUS.texts} == {True, False}
    together = extract(model, Characters(), CORPUS, batch_tokens=10_000)
    assert together.record["batches"] == "packed"
    alone = extract(model, Characters(), CORPUS, batch_tokens=1)
    assert relative(together.states, alone.states) < 1e-5
    long = Corpus("long", ("aa", "bb"), (("abcdefghij",), ("klmnopqrst",)))
    extract(model, Characters(), long)  # leaves the long angles in the model
    assert weights_sha256(model) == loaded


def llama4(**more):
    """Layers without rotary embedding, whose queries grow with their place in the row."""
    torch.manual_seed(0)
    settings = transformers.Llama4TextConfig(
        vocab_size=99, hidden_size=32, intermediate_size=48, intermediate_size_mlp=48,
        num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        num_local_experts=2, num_experts_per_tok=1, max_position_embeddings=64, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, attn_scale=2.0, **more,
    )  # fmt: skip
    model = transformers.Llama4TextModel(settings).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.25)
    return model


def test_places_in_a_row_never_count_for_llama_4():
    model = llama4(floor_scale=25)  # beyond the row that a model is tried on
    together = extract(model, Characters(), CORPUS, batch_tokens=10_000)
    assert together.record["batches"] == "packed"
    assert together.record["batch_tokens"] == 24
    alone = extract(model, Characters(), CORPUS, batch_tokens=1)
    assert relative(together.states, alone.states) < 1e-5
    untuned = llama4(floor_scale=25, attn_temperature_tuning=False)
    assert extract(untuned, Characters(), CORPUS, batch_tokens=99).record["batch_tokens"] == 99


def test_experts_that_take_a_share_of_a_batch_get_one_sentence():
    torch.manual_seed(0)
    settings = transformers.NllbMoeConfig(
        vocab_size=99, d_model=32, encoder_layers=2, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, num_experts=4,
        encoder_sparse_step=1, max_position_embeddings=64, moe_eval_capacity_token_fraction=0.3,
    )  # fmt: skip
    model = transformers.NllbMoeModel(settings).eval()
    alike = Corpus("alike", ("aa", "bb"), (("abcdefgh", "ijklmnop"), ("qrstuvwx", "yzabcdef")))
    together = extract(model, Characters(), alike, batch_tokens=100)
    assert together.record["batch_tokens"] == 1
    alone = [
        extract(model, Characters(), Corpus("c", ("aa",), ((text,),))).states
        for text in alike.texts
    ]
    assert relative(together.states, torch.cat(alone, dim=1)) < 1e-5
    settings.moe_eval_capacity_token_fraction = 1.0
    assert extract(model, Characters(), alike, batch_tokens=99).record["batch_tokens"] == 99


def test_the_callers_autocast_stays_outside():
    expected = extract(make("llama"), Characters(), CORPUS)
    with torch.autocast("cpu", torch.bfloat16):
        states = extract(make("llama"), Characters(), CORPUS).states
    assert torch.equal(states, expected.states)


@pytest.mark.parametrize("name", ["gemma3", "bert", "bloom"])
def test_a_default_device_changes_nothing(name, tmp_path):
    """`torch.set_default_device` is the caller's own: what we make lies where we say."""
    model, tokenizer = make(name), Characters()
    expected = extract(model, tokenizer, CORPUS, batch_tokens=50).states
    with torch.device("meta"):  # whatever is made there fails as soon as it is read
        states = extract(model, tokenizer, CORPUS, batch_tokens=50).states
        kept = extract(model, tokenizer, CORPUS, batch_tokens=50, folder=tmp_path / "kept").states
    assert torch.equal(states, expected)
    assert torch.equal(kept, expected)


def test_every_part_keeps_its_mode():
    model = make("llama").train()
    model.model.layers[0].eval()
    model.model.layers[1].mlp.eval()
    before = [module.training for module in model.modules()]
    extract(model, Characters(), CORPUS)
    assert [module.training for module in model.modules()] == before


def hooks(model):
    return {
        (name, number): hook
        for name, module in model.named_modules()
        for number, hook in module._forward_hooks.items()
    }


@pytest.mark.parametrize("name", ["llama", "bloom", "gemma3", "mt5", "mamba"])
def test_the_hooks_of_a_model_are_what_they_were(name):
    model, mine = make(name), []
    inner = find_backbone(model).module
    inner.get_input_embeddings().register_forward_hook(lambda *_: mine.append(1))
    before, ids = hooks(model), torch.tensor([[5, 6, 7, 8]])
    fresh = make(name)
    truth = find_backbone(fresh).module(ids, output_hidden_states=True).hidden_states
    extract(model, Characters(), CORPUS)
    assert hooks(model) == before
    assert mine
    for _ in range(2):  # once transformers' own hooks have gone they come again, and then stay
        states = inner(ids, output_hidden_states=True).hidden_states
        assert len(states) == 4
        assert all(map(torch.equal, states, truth))
        captured = hooks(model)
        extract(model, Characters(), CORPUS)
        assert hooks(model) == captured


def test_padding_may_be_the_last_of_few_tokens():
    model = make("llama", vocab_size=11, pad_token_id=10)
    assert int(capability._probe_ids(find_backbone(model), torch.device("cpu")).max()) < 10


def test_chosen_layers_stop_the_forward_pass():
    model, tokenizer = make("llama"), Characters()
    ran = {"head": 0, "last block": 0}

    def count(what):
        def hook(*_):
            ran[what] += 1

        return hook

    model.lm_head.register_forward_hook(count("head"))
    all_layers = extract(model, tokenizer, CORPUS)
    assert ran["head"] == 0
    assert all_layers.layers == (0, 1, 2, 3)
    model.model.layers[2].register_forward_hook(count("last block"))
    some = extract(model, tokenizer, CORPUS, layers=[1, 0])
    assert ran["last block"] == 3  # the probe's three passes over a few tokens, nothing else
    assert some.layers == (1, 0)
    assert torch.equal(some.states, all_layers.states[[1, 0]])
    assert [layer for layer, _ in some.by_layer()] == [0, 1]
    assert all(torch.equal(states, all_layers.states[layer]) for layer, states in some.by_layer())


def test_the_store_describes_its_points():
    store = extract(make("gpt2"), Characters(), CORPUS, layers="0,-1")
    assert store.languages == ("one", "two")
    assert store.language_ids.tolist() == [0] * 6 + [1] * 6
    assert store.sentence_ids.tolist() == [*range(6)] * 2
    assert store.record["attention"] == ["sdpa by length"]
    assert store.record["dtype"] == "float32"
    groups = list(store.groups(max_bytes=1))
    assert [layers for layers, _ in groups] == [(0,), (3,)]
    assert torch.equal(torch.cat([states for _, states in groups]), store.states)
    [(layers, states)] = store.groups(device="meta")
    assert (layers, states.device.type) == ((0, 3), "meta")
    for bad, error in ((0, InputError), (4e9, TypeError)):
        with pytest.raises(error, match="max_bytes must be"):
            next(store.groups(bad))


def test_the_model_is_left_as_it_was():
    model = make("llama").train()
    model(torch.tensor([[5]]), output_hidden_states=True)  # transformers sets idle hooks of its own
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    extract(model, Characters(), CORPUS)
    with pytest.raises(CorpusError):
        extract(model, Characters(), Corpus("long", ("a", "b"), (("x" * 99,), ("y",))))
    assert model.training
    assert model.model.layers[0].training
    assert model.config._attn_implementation == "sdpa"
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]


def test_works_inside_inference_mode():
    model, tokenizer = make("llama"), Characters()
    plain = extract(model, tokenizer, CORPUS).states
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            inside = extract(model, tokenizer, CORPUS).states
        assert torch.equal(inside, plain)
        inside += 1  # the caller's to change


def test_what_a_model_is_set_to_hand_out_is_off_meanwhile_and_comes_back():
    model, seen = make("llama"), []
    model.config.output_hidden_states, model.config.return_dict = True, False
    model.model.register_forward_pre_hook(
        lambda module, _: seen.append(
            (module.config.output_hidden_states, module.config.return_dict)
        )
    )
    states = extract(model, Characters(), CORPUS).states
    assert set(seen) == {(False, True)}
    assert (model.config.output_hidden_states, model.config.return_dict) == (True, False)
    plain = extract(make("llama"), Characters(), CORPUS).states
    assert torch.equal(states, plain)


def test_dropout_is_off():
    model = make("gpt2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5).train()
    first, second = (extract(model, Characters(), CORPUS).states for _ in range(2))
    assert torch.equal(first, second)
    assert model.training


class Heard:
    def __init__(self):
        self.calls = []

    def start(self, total_tokens):
        self.calls.append(("start", total_tokens))

    def advance(self, tokens, sentences):
        self.calls.append((tokens, sentences))

    def finish(self):
        self.calls.append(("finish",))


def test_progress_counts_every_token_and_sentence():
    heard, tokenizer = Heard(), Characters()
    extract(make("llama"), tokenizer, CORPUS, batch_tokens=30, progress=heard)
    tokens = sum(len(tokenizer.encode(text)) for text in CORPUS.texts)
    assert heard.calls[0] == ("start", tokens)
    assert heard.calls[-1] == ("finish",)
    assert sum(call[0] for call in heard.calls[1:-1]) == tokens
    assert sum(call[1] for call in heard.calls[1:-1]) == 12


@pytest.mark.parametrize("kept", [False, True])
def test_what_takes_time_before_the_first_pass_is_said(tmp_path, kept):
    stream = io.StringIO()
    place = {"folder": tmp_path / "states"} if kept else {}
    extract(make("llama"), Characters(), CORPUS, progress=PlainProgress(stream), **place)
    said = stream.getvalue().splitlines()
    hashing = ["Hashing the weights"] if kept else []
    assert said[:-1] == [*hashing, "Trying how the model takes batches"]
    assert "12 sentences" in said[-1]


def test_a_listener_without_the_calls_is_named():
    with pytest.raises(TypeError, match="progress must be True or have the methods start"):
        extract(make("llama"), Characters(), CORPUS, progress=print)


def test_out_of_memory_halves_the_budget_and_goes_on(monkeypatch):
    model, tokenizer = make("llama"), Characters()
    whole = extract(model, tokenizer, CORPUS)
    run = Runner.run

    def small(self, row, lengths):
        if len(row) > 25:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, row, lengths)

    monkeypatch.setattr(Runner, "run", small)
    with pytest.warns(ResourceWarning, match="out of memory at .* going on with") as heard:
        store = extract(model, tokenizer, CORPUS, batch_tokens=100_000)
    assert len(heard) == 1  # halved from the tokens of the batch, far from the budget
    assert store.record["batch_tokens"] <= 50
    assert relative(store.states, whole.states) < 1e-6

    def never(self, row, lengths):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Runner, "run", never)
    with pytest.warns(ResourceWarning), pytest.raises(torch.OutOfMemoryError):
        extract(model, tokenizer, CORPUS)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_name_layer_and_sentence(value):
    model = make("llama")
    with torch.no_grad():  # only "quick brown fox" holds a q
        model.model.embed_tokens.weight[Characters().encode("q")[1]] = value
    with pytest.raises(HiddenStateError, match=r"in layer 0 at sentence 5 of one .*float32"):
        extract(model, Characters(), CORPUS)


def test_sentences_the_model_cannot_take():
    model = make("llama")
    long = Corpus("long", ("aa", "bb"), (("x", "y"), ("z", "w" * 70)))
    named = "sentence 2 of bb has 71 tokens, the model takes 64 "
    with pytest.raises(CorpusError, match=named):
        extract(model, Characters(), long)
    cut = extract(model, Characters(), long, truncate=True)
    expected = extract(
        model, Characters(), Corpus("c", ("aa", "bb"), (("x", "y"), ("z", "w" * 63)))
    )
    assert torch.equal(cut.states, expected.states)

    class Silent(Characters):
        def encode(self, text):
            return [] if text == "z" else super().encode(text)

    with pytest.raises(CorpusError, match="sentence 1 of bb gives no tokens: 'z'"):
        extract(model, Silent(), long, truncate=True)


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"layers": [4]}, InputError, "4"),
        ({"layers": []}, InputError, "layer"),
        ({"pool": "max"}, InputError, "pool: expected"),
        ({"batch_tokens": 0}, InputError, "batch_tokens: expected at least 1, got 0"),
        ({"batch_tokens": "many"}, InputError, "batch_tokens: expected 'auto'"),
        ({"truncate": "no"}, TypeError, "truncate must be True or False; got 'no'"),
        ({"store": "tape"}, InputError, "store must be one of auto, memory, cuda, disk"),
        ({"store": "disk"}, InputError, "folder: expected a folder"),
        ({"store": "cuda"}, InputError, "store: 'cuda' needs a model on a CUDA device"),
        ({"store": "memory", "folder": "x"}, InputError, "folder: only"),
    ],
)
def test_refuses(options, error, named):
    with pytest.raises(error, match=named):
        extract(make("llama"), Characters(), CORPUS, **options)


@pytest.mark.xdist_group("compiler")
def test_compiled_layers_are_run_without_compiling_each_row():
    model, compiled = make("llama"), []
    expected = extract(model, Characters(), CORPUS, batch_tokens=30).states

    def backend(graph, _):
        compiled.append(graph)
        return graph

    for layer in model.model.layers:
        layer.compile(backend=backend)
    assert torch.equal(extract(model, Characters(), CORPUS, batch_tokens=30).states, expected)
    assert compiled == []
    model(torch.tensor([[3, 4, 5]]))
    assert compiled  # the caller's own passes are as they were


def test_a_tokenizer_of_another_model_is_named():
    model = make("llama")
    model.resize_token_embeddings(43)  # one too few for a z, as in "xyz"
    with pytest.raises(ModelError, match=r"ids 0 … 42, .* got 43 in sentence 4 of one"):
        extract(model, Characters(), CORPUS)

    class Negative(Characters):
        def encode(self, text):
            return [*super().encode(text), -1]

    with pytest.raises(ModelError, match=r"ids 0 … 98, .* got -1 in sentence 1 of one"):
        extract(make("llama"), Negative(), CORPUS)


def test_a_tokenizer_of_fewer_sentences_is_named():
    """Their places held what was in memory."""

    class Fewer(Characters):
        def __call__(self, texts, **options):
            return {"input_ids": super().__call__(texts, **options)["input_ids"][:-1]}

    points = CORPUS.n_points
    said = f"tokenizer: expected the ids of {points} sentences, got those of {points - 1}"
    with pytest.raises(ModelError, match=said):
        extract(make("llama"), Fewer(), CORPUS)


class Both(transformers.ProcessorMixin):
    """As of a vision-language model: what it is called with first are images."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer


def test_refuses_what_is_no_model_tokenizer_or_corpus():
    with pytest.raises(ModelError, match="expected a transformers PreTrainedModel, got Linear"):
        extract(torch.nn.Linear(2, 2), Characters(), CORPUS)
    with pytest.raises(ModelError, match="tokenizer: expected a transformers tokenizer, got str"):
        extract(make("llama"), "gpt2", CORPUS)
    both = Both(Characters())
    with pytest.raises(ModelError, match=r"tokenizer, got Both \(its \.tokenizer is one\)"):
        extract(make("llama"), both, CORPUS)
    with pytest.raises(ModelError, match="tokenizer, got Both"):
        wrap_model(make("llama"), both)
    assert extract(make("llama"), both.tokenizer, CORPUS).states.shape[1] == CORPUS.n_points
    with pytest.raises(TypeError, match=r"corpus must be an ilo_fast\.Corpus"):
        extract(make("llama"), Characters(), "demo")


def test_too_little_memory_is_said_before_anything_runs(monkeypatch):
    monkeypatch.setattr(store, "free_memory", lambda device: 1000)
    for place in ("auto", "memory"):
        with pytest.raises(InputError, match=r"store: the states take 6\.1 kB"):
            extract(make("llama"), Characters(), CORPUS, store=place)


def test_host_memory_is_pinned_where_the_power_of_two_that_torch_takes_fits(monkeypatch):
    for free, need, fits in ((100, 32, True), (100, 33, False), (108, 64, True), (106, 64, False)):
        monkeypatch.setattr(store, "free_memory", lambda _, free=free: free)
        assert store.pinning_fits(need) == fits, (free, need)


def test_the_model_is_looked_over_once_and_not_in_every_batch(monkeypatch):
    looked, offset = [], capability.position_offset

    def counted(module):
        looked.append(module)
        return offset(module)

    monkeypatch.setattr(capability, "position_offset", counted)
    counts = []
    for budget in (10_000, 1):
        extract(make("llama"), Characters(), CORPUS, batch_tokens=budget)
        counts.append(len(looked))
        looked.clear()
    assert counts == [4, 4]  # three passes of the probe, and the run


class Wrapped(torch.nn.Module):
    """The shape of a PEFT model: a wrapper in which ``base_model`` is no transformers model."""

    def __init__(self, model, prompt=False):
        super().__init__()
        self.config, self.base_model = model.config, torch.nn.Module()
        self.base_model.model, self.base_model.config = model, model.config
        self.active_peft_config = SimpleNamespace(is_prompt_learning=prompt)

    def get_base_model(self):
        return self.base_model.model

    def forward(self, *args, **kwargs):
        return self.get_base_model()(*args, **kwargs)


def test_a_model_within_pefts_wrapper():
    model = make("llama")
    expected, ids = extract(model, Characters(), CORPUS), torch.tensor([[5, 6, 7]])
    store = extract(Wrapped(model), Characters(), CORPUS)
    assert store.record["batches"] == "packed"
    assert torch.equal(store.states, expected.states)
    with ilo_fast.tap(Wrapped(model)) as ours, ilo_fast.tap(model) as theirs:
        Wrapped(model)(ids)
    assert torch.equal(ours.states, theirs.states)
    with pytest.raises(ModelError, match="Wrapped puts virtual tokens before the text"):
        extract(Wrapped(model, prompt=True), Characters(), CORPUS)


def test_a_model_whose_weights_are_offloaded(tmp_path):
    accelerate = pytest.importorskip("accelerate", reason="needs the extra 'demo': make test")
    expected = extract(make("llama"), Characters(), CORPUS).states
    model = accelerate.cpu_offload(make("llama"), execution_device=torch.device("cpu"))
    assert next(model.parameters()).is_meta
    assert torch.equal(extract(model, Characters(), CORPUS).states, expected)
    with pytest.raises(ModelError, match=r"weight is offloaded, so its weights have no hash"):
        extract(model, Characters(), CORPUS, folder=tmp_path / "states")
    with pytest.raises(ModelError, match="LlamaModel are on the device meta, without data"):
        extract(make("llama").to("meta"), Characters(), CORPUS)


def test_a_model_without_one_table_of_embeddings():
    canine = transformers.CanineModel(
        transformers.CanineConfig(
            hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_hash_buckets=16,
        )
    )  # fmt: skip
    with pytest.raises(ModelError, match="CanineModel reads no token ids"):
        extract(canine, Characters(), CORPUS)
