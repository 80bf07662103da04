"""tap(): the user's own forward passes, padded on either side, and hooks that always go away."""

import copy
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
import torch
import transformers
from families import FAMILIES, Characters, make

import ilo_fast
from ilo_fast.activations import ForwardStopped, capability, runner, taps
from ilo_fast.errors import InputError, ModelError
from ilo_fast.models import find_backbone

ROWS = ([5, 6, 7, 8, 9], [11, 12], [13, 14, 15])


def padded(side):
    longest = max(map(len, ROWS))
    ids, mask = [], []
    for row in ROWS:
        gap = [0] * (longest - len(row))
        ids.append([*gap, *row] if side == "left" else [*row, *gap])
        mask.append([*gap, *[1] * len(row)] if side == "left" else [*[1] * len(row), *gap])
    return torch.tensor(ids), torch.tensor(mask)


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def pooled(states, mask, pool):
    """Float64 pooling of padded states, written without the package."""
    rows = []
    for row, keep in zip(states.detach().double().numpy(), mask.numpy().astype(bool), strict=True):
        tokens = row[keep]
        weights = {
            "mean": np.ones(len(tokens)),
            "weighted": np.arange(1, len(tokens) + 1),
            "last": np.eye(len(tokens))[-1],
        }[pool]
        rows.append(weights @ tokens / weights.sum())
    return np.stack(rows)


def test_layers_come_in_the_order_asked_for():
    model = make("llama")
    with ilo_fast.tap(model, [3, 0]) as tap, ilo_fast.tap(model, [0, 3]) as other:
        model(torch.tensor(ROWS[:1]))
    assert tap.layers == (3, 0)
    assert torch.equal(tap.states, other.states[[1, 0]])
    with pytest.raises(InputError, match="layers must name each layer once, got 3 more often"):
        ilo_fast.tap(model, [3, -1]).__enter__()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pool", ["mean", "weighted", "last"])
def test_pools_the_users_own_batches(side, pool):
    model = make("llama")
    ids, mask = padded(side)
    with ilo_fast.tap(model, [0, 2, 3], pool) as tap:
        output = model(ids, attention_mask=mask, output_hidden_states=True)
        model(ids[1:], mask[1:])  # a second batch, the mask by position
    assert tap.states.shape == (3, 5, 32)
    assert tap.n_points == 5
    for row, layer in enumerate((0, 2, 3)):
        expected = pooled(output.hidden_states[layer], mask, pool)
        np.testing.assert_allclose(tap.states[row, :3].numpy(), expected, rtol=1e-5, atol=1e-6)
    assert output.logits.shape == (3, 5, 99)


def test_a_tap_that_is_cleared_starts_anew():
    model, (ids, mask) = make("llama"), padded("right")
    with ilo_fast.tap(model, 3) as tap:
        model(ids, attention_mask=mask)
        tap.clear()
        assert tap.n_points == 0
        with pytest.raises(ModelError, match="no forward pass"):
            _ = tap.states
        expected = model(ids[:1], output_hidden_states=True).hidden_states[3]
    torch.testing.assert_close(tap.states[0], expected.mean(1))


def test_a_tap_that_is_cleared_forgets_a_pass_that_another_tap_stopped():
    model, ids = make("llama"), torch.tensor([[5, 6, 7]])
    with ilo_fast.tap(model, 0) as kept, ilo_fast.tap(model, 1, stop_early=True):
        with suppress(ForwardStopped):
            model(ids)
        assert kept.n_points == 1
        kept.clear()
        assert kept.n_points == 0
        with suppress(ForwardStopped):
            model(ids)
    assert kept.n_points == 1


def test_a_mask_that_is_not_one_number_a_token_is_refused():
    model, (ids, mask) = make("llama"), padded("right")
    with (
        ilo_fast.tap(model),
        pytest.raises(ModelError, match=r"attention_mask \[batch, tokens\], got \[3, 1, 1, 5\]"),
    ):
        model(ids, attention_mask=mask[:, None, None, :])
    assert hooks(model) == 0


_BART = {
    "vocab_size": 99, "d_model": 32, "encoder_layers": 3, "decoder_layers": 3,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48, "max_position_embeddings": 64,
}  # fmt: skip
_LLAMA_4 = {
    "vocab_size": 99, "hidden_size": 32, "intermediate_size": 48, "intermediate_size_mlp": 48,
    "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "num_local_experts": 2, "pad_token_id": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("head", "config", "runs", "batches"),
    [
        ("OPTForCausalLM", transformers.OPTConfig(**FAMILIES["opt"][2]), "OPTDecoder", "packed"),
        ("BartForCausalLM", transformers.BartConfig(**_BART), "BartDecoder", "equal lengths"),
        (
            "Llama4ForCausalLM",
            transformers.Llama4TextConfig(**_LLAMA_4),
            "Llama4TextModel",
            "packed",
        ),
    ],
)
def test_a_head_that_calls_past_its_base_model(head, config, runs, batches):
    """OPT's calls its base model's decoder, and Llama 4's has a base model that goes unnamed."""
    torch.manual_seed(0)
    model = getattr(transformers, head)(config).eval()
    assert type(find_backbone(model).module).__name__ == runs
    ids, mask = padded("right")
    with ilo_fast.tap(model) as tap, torch.no_grad():
        states = model(ids, attention_mask=mask, output_hidden_states=True).hidden_states
    expected = np.stack([pooled(each, mask, "mean") for each in states])
    np.testing.assert_allclose(tap.states.numpy(), expected, rtol=1e-5, atol=1e-6)
    corpus = ilo_fast.Corpus("c", ("aa", "bb"), (("abc", "de"), ("fg", "hij")))
    store = ilo_fast.extract(model, Characters(), corpus)
    assert (store.record["batches"], store.record["taps"]) == (batches, "hooks")


def test_a_mask_by_position_wherever_it_stands():
    model = make("gpt2")  # its second parameter is past_key_values
    ids, mask = padded("right")
    with ilo_fast.tap(model) as tap:
        model(ids, None, mask)
    with ilo_fast.tap(model) as expected:
        model(ids, attention_mask=mask)
    assert torch.equal(tap.states, expected.states)


def test_decoding_from_a_cache_is_refused():
    model = make("llama")
    ids = torch.tensor(ROWS[:1] * 2)
    with ilo_fast.tap(model) as tap, pytest.raises(ModelError, match="goes on from 5 cached"):
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=3)
    assert tap.n_points == 2  # the prompts
    prompt = model(ids, use_cache=True)
    name = "cache" if "cache" in prompt else "past_key_values"  # before transformers 5.24
    with ilo_fast.tap(model), pytest.raises(ModelError, match="use_cache=False"):
        model(ids[:, :1], **{name: prompt[name]})


def test_a_state_space_model_that_decodes_is_refused():
    model = transformers.MambaForCausalLM(
        transformers.MambaConfig(vocab_size=99, hidden_size=16, state_size=4, num_hidden_layers=2)
    ).eval()
    ids = torch.tensor(ROWS[:1] * 2)
    with ilo_fast.tap(model, 2) as tap, pytest.raises(ModelError, match="from a cached state"):
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=3)
    assert tap.n_points == 2  # the prompts


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, ""),
        ({"cache": None, "state": None, "mems": None, "past_key_values": ()}, ""),
        ({"past_key_values": ((torch.zeros(2, 4, 7, 8),) * 2,)}, "7 cached tokens"),
        ({"cache_params": transformers.DynamicCache()}, ""),
        ({"state": [torch.zeros(2, 8, 3)] * 5}, "a cached state"),  # RWKV
        ({"mems": (torch.zeros(9, 2, 8),)}, "a cached state"),  # XLNet
        ({"state": {"beam": 3}}, ""),  # a model's own argument
        ({"state": torch.tensor(0.5)}, ""),
    ],
)
def test_what_a_pass_goes_on_from(given, said):
    assert taps._cached(given) == said


def test_states_turned_within_are_refused():
    """XLNet's would be taken for other sentences: its batch is the second dimension within."""
    model = make("xlnet")
    with pytest.raises(ModelError, match="XLNetModel cannot be hooked"), ilo_fast.tap(model):
        pass
    fsmt = transformers.FSMTConfig(
        langs=["en", "de"], src_vocab_size=9, tgt_vocab_size=9, d_model=8, encoder_layers=1,
        decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
    )  # fmt: skip
    said = "FSMTEncoder, the encoder of FSMTModel, has no configuration of its own .* ilo_fast.knn"
    with pytest.raises(ModelError, match=said):
        find_backbone(transformers.FSMTModel(fsmt))


def test_states_of_another_batch_are_refused():
    """As of a model that turns them and is not known to."""
    model = make("llama")
    turn = model.model.layers[1].register_forward_pre_hook(
        lambda _, args: (args[0].transpose(0, 1),)
    )
    with ilo_fast.tap(model), pytest.raises(ModelError, match=r"2 sequences .* got \[5, 2, 32\]"):
        model(torch.tensor(ROWS[:1] * 2))
    with ilo_fast.tap(model), pytest.raises(ModelError, match=r"2 sequences .* got \[5, 2, 32\]"):
        model(inputs_embeds=torch.ones(2, 5, 32))
    turn.remove()


@pytest.mark.parametrize(
    ("make_model", "wrong"),
    [
        (lambda: make("mamba"), [0, 1, 2]),  # its hidden_states begin behind the first layer
        (
            lambda: transformers.CLIPTextModel(  # whose last are those before the final norm
                transformers.CLIPTextConfig(
                    vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
                    num_attention_heads=4, bos_token_id=1, eos_token_id=2,
                )
            ).eval(),
            [3],
        ),
    ],
)  # fmt: skip
def test_states_that_the_model_counts_otherwise_are_refused(make_model, wrong):
    model = make_model()
    ids = torch.tensor(ROWS[:1])
    for layers in (None, wrong[-1:]):
        named = wrong if layers is None else layers
        with (
            pytest.raises(ModelError, match=rf"at layers \[{named[0]}.*`extract` gives those"),
            ilo_fast.tap(model, layers),
        ):
            pass
    right = [entry for entry in range(4) if entry not in wrong]
    with ilo_fast.tap(model, right) as tap:
        model(ids)
    truth = model(ids, output_hidden_states=True).hidden_states
    for row, entry in enumerate(right):
        expected = truth[entry].detach().double().mean(1)
        torch.testing.assert_close(tap.states[row].double(), expected, rtol=1e-5, atol=1e-6)


def test_trying_a_model_leaves_no_trace():
    model = make("llama").train()
    model.model.layers[1].eval()
    modes, before = [module.training for module in model.modules()], hooks(model)
    passes = []
    run, model.model.forward = model.model.forward, lambda *a, **k: passes.append(1) or run(*a, **k)
    with ilo_fast.tap(model) as outer:
        model(torch.tensor(ROWS[:1]))
        with ilo_fast.tap(model) as inner:
            model(torch.tensor(ROWS[:1]))
    assert (outer.n_points, inner.n_points) == (2, 1)
    assert len(passes) == 3  # one try, and the user's own
    assert [module.training for module in model.modules()] == modes
    assert hooks(model) == before


def test_threads_that_tap_a_model_at_once_try_it_once():
    model, passes, begin = make("llama"), [], threading.Barrier(4)
    run = model.model.forward

    def slow(*args, **kwargs):
        passes.append(threading.get_ident())
        time.sleep(0.05)
        return run(*args, **kwargs)

    model.model.forward = slow

    def tapped(_):
        begin.wait()
        with ilo_fast.tap(model) as tap:
            begin.wait()  # until all have their hooks on
        return tap.n_points

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(tapped, range(4))) == [0, 0, 0, 0]
    assert len(passes) == 1


def test_others_hooks_on_the_layers_do_not_see_a_try():
    """One that steers would make the model's own hidden states look counted otherwise."""
    model, calls = make("llama"), []

    def steer(_, args):
        calls.append(1)
        return (args[0] + 1, *args[1:])

    handle = model.model.layers[1].register_forward_pre_hook(steer)
    ids = torch.tensor(ROWS[:1])
    with ilo_fast.tap(model, [1]) as tap:
        states = model(ids, output_hidden_states=True).hidden_states
    assert len(calls) == 1
    torch.testing.assert_close(tap.states[0], states[1].detach().mean(1) + 1)
    handle.remove()


@pytest.mark.parametrize("place", ["embed_tokens", "layers.1.mlp", "norm"])
def test_a_users_hooks_see_their_own_passes_only(place):
    """As those that keep what a part within the layers gives."""
    model, seen = make("llama"), []
    model.model.get_submodule(place).register_forward_hook(lambda *_: seen.append(1))
    with ilo_fast.tap(model) as tap:
        assert seen == []
        model(torch.tensor(ROWS[:1]))
    assert (len(seen), tap.n_points) == (1, 1)


@pytest.mark.xdist_group("compiler")
def test_a_model_compiled_whole_is_tried_as_it_is():
    model = make("llama").model
    model.compile(backend="eager")  # at its first pass, with the hooks that are there then
    ids = torch.tensor(ROWS[:1])
    with ilo_fast.tap(model) as tap, torch.no_grad():
        model(ids)
        model(ids)
    assert tap.n_points == 2
    wrapped = torch.compile(make("llama"), backend="eager")
    with ilo_fast.tap(wrapped) as around, torch.no_grad():
        wrapped(ids)
    torch.testing.assert_close(around.states, tap.states[:, :1])
    torch._dynamo.reset()


def test_a_model_that_wants_more_than_ids_is_tapped_untried():
    config = transformers.BrosConfig(
        vocab_size=99, hidden_size=64, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4,
    )  # fmt: skip
    model = transformers.BrosModel(config).eval()
    with ilo_fast.tap(model) as tap:
        model(torch.tensor(ROWS[:1]), bbox=torch.rand(1, 5, 4))
    assert tap.states.shape == (3, 1, 64)


@pytest.mark.parametrize("layers", [None, [0, 1]])
def test_a_pass_that_fails_midway_adds_nothing(layers):
    model = make("llama")
    ids = torch.tensor([[5, 6, 7], [8, 9, 10], [11, 12, 13]])

    def fail(*_):
        raise torch.OutOfMemoryError

    with ilo_fast.tap(model, layers) as tap:
        model(ids[:1])
        handle = model.model.layers[1].register_forward_hook(fail)
        with pytest.raises(torch.OutOfMemoryError):
            model(ids[1:])
        handle.remove()
        assert tap.n_points == 1
        model(ids[1:2])
        model(ids[2:])
    with ilo_fast.tap(model, layers) as expected:
        for row in ids:
            model(row[None])
    assert torch.equal(tap.states, expected.states)


def test_a_tap_that_stops_early_leaves_nothing_half_done_in_another():
    model = make("llama")
    ids = torch.tensor([[5, 6, 7]])
    with ilo_fast.tap(model) as whole, ilo_fast.tap(model, [0]) as first:
        with ilo_fast.tap(model, [1], stop_early=True), suppress(ForwardStopped):
            model(ids)
        assert (whole.n_points, first.n_points) == (0, 1)
        model(ids)
    assert whole.states.shape[:2] == (4, 1)
    assert first.states.shape[:2] == (1, 2)


@pytest.mark.filterwarnings("ignore")  # of transformers' and torch's own
@pytest.mark.parametrize("reentrant", [False, True])
def test_layers_run_again_for_gradients_add_no_points(reentrant):
    model = make("llama").train()
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    with ilo_fast.tap(model) as tap:
        model(ids, labels=ids, use_cache=False).loss.backward()
        # as versions of transformers that checkpoint a layer's hooks along with it
        model.model.layers[1](
            torch.zeros(2, 3, 32), position_embeddings=(torch.zeros(1, 3, 8),) * 2
        )
    assert tap.states.shape[:2] == (4, 2)


def test_without_a_mask_every_token_counts():
    model = make("bert")
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    with ilo_fast.tap(model, 1) as tap, torch.no_grad():
        states = model(ids, output_hidden_states=True).hidden_states[1]
    torch.testing.assert_close(tap.states[0], states.mean(1))
    assert repr(tap) == "Tap(layers=(1,), n_points=2)"


def test_a_mask_that_the_model_drops_is_missed():
    config = transformers.FNetConfig(
        vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=2, pad_token_id=0
    )
    model, (ids, mask) = transformers.FNetForMaskedLM(config).eval(), padded("right")
    refused = pytest.raises(ModelError, match="does not hand its attention_mask on to FNetModel")
    with ilo_fast.tap(model) as tap:
        model(ids[:1], attention_mask=mask[:1])  # without padding
        with refused:
            model(ids, attention_mask=mask)
        model.fnet(ids)  # given none
    assert tap.n_points == 1 + 3
    assert hooks(model) == 0


def test_rows_of_several_sentences_are_refused():
    model, (ids, mask) = make("llama"), padded("left")
    row, positions = torch.tensor([[5, 6, 7, 11, 12]]), torch.tensor([[0, 1, 2, 0, 1]])
    ends = torch.tensor([0, 3, 5], dtype=torch.int32)
    with ilo_fast.tap(model) as tap:
        for more in ({"position_ids": positions}, {"cu_seq_lens_q": ends}):
            with pytest.raises(ModelError, match="a row holds several sentences"):
                model(row, **more)
        assert tap.n_points == 0
        model(row, position_ids=torch.arange(3, 8)[None])
        model(ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1) % 5)
    assert tap.n_points == 4


def test_masks_of_other_numbers_than_0_and_1_are_refused():
    """Of those to be added, padding was pooled; of a row's sentences, all as one."""
    model, (ids, mask) = make("llama"), padded("right")
    with ilo_fast.tap(model) as tap:
        for kind in (torch.bool, torch.uint8, torch.float16, torch.float64):
            model(ids, attention_mask=mask.to(kind))
        assert torch.equal(tap.states[:, :3], tap.states[:, -3:])
        added = torch.where(mask.bool(), 0.0, torch.finfo(torch.float32).min)
        numbered = torch.tensor([[1, 1, 2, 2, 2], [1, 2, 0, 0, 0], [1, 1, 1, 0, 0]])
        for other in (added, numbered):
            with pytest.raises(ModelError, match="1 for tokens and 0 for padding, got other"):
                model(ids, attention_mask=other)
    assert tap.n_points == 12


def test_an_extraction_within_a_tap_adds_no_points():
    """As that of a training's callback; in packed rows, as without the tap."""
    model, ids = make("llama"), torch.tensor(ROWS[:1])
    corpus = ilo_fast.Corpus("c", ("aa", "bb"), (("abc", "de"), ("fg", "hij")))
    with ilo_fast.tap(model) as expected:
        run_quietly(model, ids)
    states = ilo_fast.extract(model, Characters(), corpus).states
    with ilo_fast.tap(model) as tap:
        run_quietly(model, ids)
        store = ilo_fast.extract(model, Characters(), corpus)
    assert torch.equal(store.states, states)
    assert torch.equal(tap.states, expected.states)


def test_a_function_pools_packed_states():
    def largest(states, offsets):
        parts = zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
        return torch.stack([states[first:end].amax(0) for first, end in parts])

    model = make("llama")
    ids, mask = padded("right")
    with ilo_fast.tap(model, "-1", largest) as tap, torch.no_grad():
        states = model.model(ids, attention_mask=mask)[0]
    expected = torch.stack(
        [row[keep.bool()].amax(0) for row, keep in zip(states, mask, strict=True)]
    )
    torch.testing.assert_close(tap.states[0], expected)
    with pytest.raises(InputError, match=r"pool: .*\[sentences, dim\] = \[3, 32\], got \[10, 32\]"):  # noqa: SIM117
        with ilo_fast.tap(model, 0, lambda states, _: states):
            model(ids, attention_mask=mask)
    assert hooks(model.model.layers) == 0


def test_hooks_sit_on_asked_layers_only_and_go_away():
    model = make("llama")
    ids = torch.tensor([[5, 6, 7]])
    before = hooks(model)
    with ilo_fast.tap(model, [1]):
        # one layer, two around all of them, and one on the whole model
        assert hooks(model) - before == 4
        assert not model.model.layers[0]._forward_pre_hooks
    assert hooks(model) == before
    with pytest.raises(IndexError), ilo_fast.tap(model):
        model(ids + 1000)
    assert hooks(model) == before
    with pytest.raises(ModelError), ilo_fast.tap(model):
        model(ids, attention_mask=torch.zeros(1, 3, dtype=torch.int64))
    assert hooks(model) == before


@pytest.mark.parametrize("base", [False, True], ids=["head", "base"])
def test_a_copy_made_within_the_block_is_not_tapped(base):
    """As of weights averaged beside a training, or the best so far."""
    model = make("llama").model if base else make("llama")
    ids = torch.tensor([[5, 6, 7]])
    with ilo_fast.tap(model, [1, 3]) as tap:
        copied = copy.deepcopy(model)
        copied(ids)
        assert tap.n_points == 0
        model(ids)
        copied(ids)
    copied(ids)
    assert tap.n_points == 1
    with ilo_fast.tap(model, [1], stop_early=True):
        copied = copy.deepcopy(model)
    copied(ids)  # to its end


def test_gradients_flow_as_before():
    model = make("llama")
    ids = torch.tensor([[5, 6, 7]])
    model(ids).logits.sum().backward()
    plain = model.model.layers[0].mlp.up_proj.weight.grad.clone()
    model.zero_grad()
    with ilo_fast.tap(model) as tap:
        model(ids).logits.sum().backward()
    assert torch.equal(model.model.layers[0].mlp.up_proj.weight.grad, plain)
    assert not tap.states.requires_grad


def test_stops_early_only_when_asked():
    model = make("llama")
    ran = []
    model.model.layers[2].register_forward_hook(lambda *_: ran.append(True))
    ids = torch.tensor([[5, 6, 7]])
    with ilo_fast.tap(model, [1]), torch.no_grad():
        model(ids)
    assert len(ran) == 1
    with ilo_fast.tap(model, [0, 1], stop_early=True) as tap, suppress(ForwardStopped):
        model(ids)
    assert len(ran) == 1
    assert tap.states.shape == (2, 1, 32)


def test_refuses():
    model = make("llama")
    with pytest.raises(InputError, match="3"), ilo_fast.tap(model, [4]):
        pass
    unknown_pool = pytest.raises(InputError, match="pool: expected one of mean, weighted, last")
    with unknown_pool, ilo_fast.tap(model, 0, "max"):
        pass
    no_model = pytest.raises(ModelError, match="expected a transformers PreTrainedModel")
    with no_model, ilo_fast.tap(torch.nn.Linear(2, 2), 0):
        pass
    wrapped = pytest.raises(ModelError, match=r"got DataParallel, whose \.module is one")
    with wrapped, ilo_fast.tap(torch.nn.DataParallel(model), 0):
        pass
    with pytest.raises(ModelError, match="cannot be hooked"), ilo_fast.tap(make("albert"), 0):
        pass
    with ilo_fast.tap(model, 0) as tap, pytest.raises(ModelError, match="no forward pass"):
        _ = tap.states


def several_streams():
    """Gemma 3n carries four states of every token from layer to layer."""
    config = transformers.Gemma3nTextConfig(
        vocab_size=99, vocab_size_per_layer_input=99, hidden_size=32,
        hidden_size_per_layer_input=8, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, sliding_window=4,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        num_kv_shared_layers=0, altup_num_inputs=4, laurel_rank=4,
        activation_sparsity_pattern=[0.0] * 3, pad_token_id=0,
    )  # fmt: skip
    return transformers.Gemma3nTextModel(config).eval()


def test_several_states_a_token_are_refused():
    model = several_streams()
    said = r"hidden state 0 of Gemma3nTextModel must be \[batch, tokens, 32\], got \[4, 1, 11, 32\]"
    with pytest.raises(ModelError, match=said), ilo_fast.tap(model, [0, 3]):
        pass
    assert hooks(model) == 0
    corpus = ilo_fast.Corpus("c", ("aa", "bb"), (("abc", "de"), ("fg", "hij")))
    with pytest.raises(ModelError, match=r"must be \[batch, tokens, 32\], got \[4, 1, 11, 32\]"):
        ilo_fast.extract(model, Characters(), corpus)


def test_a_last_state_of_another_width_leaves_the_others():
    """As in OPT-350m, which projects what its last layer gives."""
    model = make("opt", word_embed_proj_dim=16)
    corpus = ilo_fast.Corpus("c", ("aa", "bb"), (("abc", "de"), ("fg", "hij")))
    said = r"hidden state 3 of OPTDecoder .* got \[1, 11, 16\]; layers can leave it out"
    for layers in (None, [-1, 0]):
        with pytest.raises(ModelError, match=said):
            ilo_fast.extract(model, Characters(), corpus, layers=layers)
        with pytest.raises(ModelError, match=said), ilo_fast.tap(model, layers):
            pass
    store = ilo_fast.extract(model, Characters(), corpus, layers=":-1")
    assert store.record["batches"] == "packed"
    with ilo_fast.tap(model, ":-1") as tap:
        for text in corpus.texts:
            run_quietly(model, torch.tensor([Characters().encode(text)]))
    assert tap.states.shape == (3, 4, 32)
    torch.testing.assert_close(store.states, tap.states)


@pytest.mark.parametrize("name", ["llama", "bloom"])
def test_states_of_fewer_tokens_are_refused(name, monkeypatch):
    """A batch whose states came out shorter must not be pooled as if they were all there."""
    model, forward = make(name), capability.Forward.__call__

    class Shorter(capability.Forward):
        def __call__(self, ids, segments, **extra):
            return forward(self, ids[:, 1:], None, **extra)

    monkeypatch.setattr(runner, "Forward", Shorter)
    corpus = ilo_fast.Corpus("c", ("aa", "bb"), (("abc", "de"), ("fg", "hij")))
    with pytest.raises(ModelError, match=r"hidden state 0 of \w+ must have a vector for each of"):
        ilo_fast.extract(model, Characters(), corpus)


def run_quietly(model, ids):
    with torch.no_grad():
        model(ids)


def test_threads_that_run_the_model_at_once_keep_their_passes_apart():
    model = make("llama").eval()
    batches = [torch.arange(4).repeat(2, 1) + 3 * number for number in range(12)]
    alone = []
    for ids in batches:
        with ilo_fast.tap(model) as one:
            run_quietly(model, ids)
        alone.append(one.states)
    together_midway, waited = threading.Barrier(3, timeout=60), []
    model.model.layers[1].register_forward_hook(lambda *_: waited.append(together_midway.wait()))
    with ilo_fast.tap(model) as together, ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda ids: run_quietly(model, ids), batches))
    assert together.n_points == 24
    for place in range(0, 24, 2):  # whole passes, in whatever order
        part = together.states[:, place : place + 2]
        assert any(torch.allclose(part, states, atol=1e-6) for states in alone)


def test_looking_at_a_tap_within_a_pass_changes_nothing():
    model = make("llama").eval()
    seen = []
    with ilo_fast.tap(model) as collected:
        look = model.model.layers[1].register_forward_hook(
            lambda *_: seen.append(collected.n_points)
        )
        run_quietly(model, torch.arange(4).repeat(2, 1))
        look.remove()
    assert (seen, collected.n_points) == ([0], 2)


def test_a_pass_that_fails_before_the_tap_hears_of_it_leaves_the_one_before():
    model = make("llama").eval()

    def broken(*_):
        raise RuntimeError("broken")

    with ilo_fast.tap(model, layers=[1], stop_early=True) as collected:
        with pytest.raises(ForwardStopped):
            model(torch.arange(4).repeat(2, 1))
        handle = model.model.register_forward_pre_hook(broken, prepend=True)
        with pytest.raises(RuntimeError, match="broken"):
            model(torch.arange(4).repeat(2, 1))
        handle.remove()
    assert collected.n_points == 2
