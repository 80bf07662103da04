"""Layers that torch compiles: the same states, no graph for a batch's own sizes, and undone."""

import pytest
import torch
from families import SENTENCES, Characters, make

from ilo_fast import Corpus, extract
from ilo_fast.activations import fusing
from ilo_fast.errors import InputError
from ilo_fast.models import find_backbone
from ilo_fast.models.compiled import compiled_layers

pytestmark = pytest.mark.xdist_group("compiler")  # one process compiles, and loads what does
CORPUS = Corpus("pair", ("one", "two"), SENTENCES)
LONGER = Corpus("more", ("one", "two"), tuple(tuple(s * 2 for s in each) for each in SENTENCES))


def run(model, corpus=CORPUS, **options):
    return extract(model, Characters(), corpus, batch_tokens=40, **options)


def largest_error(ours, truth):
    return float(((ours - truth).norm(dim=2) / truth.norm(dim=2)).max())


def forwards(model):
    return [vars(module).get("forward") for module in model.modules()]


def graphs():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def test_states_are_those_of_the_models_own_code(compiler):
    check_states("llama")


@pytest.mark.parametrize("name", ["gemma3", "xlm_roberta", "bloom"])
def test_states_of_graphs_are_those_of_the_models_own_code(graphs_alone, name):
    """Packed or by equal lengths, with two kinds of layers, a decoder and an encoder."""
    check_states(name)


def check_states(name):
    model = make(name)
    own, before = run(model), forwards(model)
    ours = run(model, fused="compile")
    assert ours.record["fused"] == f"torch.compile {torch.__version__}"
    assert ours.record["products"] == "torch"  # those of the graphs, whatever the processor
    assert ours.record["batches"] == own.record["batches"]
    assert largest_error(ours.states, own.states) < 1e-5
    assert forwards(model) == before
    assert torch.equal(run(model).states, own.states)


def test_the_compiled_code_is_what_runs_and_serves_every_batch(compiler):
    model = make("llama")
    run(model, fused="compile")
    compiled = graphs()
    assert compiled > 0
    own = run(model, LONGER)
    assert largest_error(run(model, LONGER, fused="compile").states, own.states) < 1e-5
    assert graphs() == compiled


def test_a_trainings_allowance_of_graphs_is_left(compiler):
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    model = make("llama")
    run(model, fused="compile")
    with torch._dynamo.config.patch(recompile_limit=1):
        find_backbone(model).blocks[0].compile(backend=backend)
        model(torch.tensor([[3, 4, 5]]))
    assert graphs


def test_a_forward_of_a_layers_own_comes_back():
    model = make("llama")
    blocks = find_backbone(model).blocks
    calls = []

    def counted(*args, forward=blocks[0].forward, **kwargs):
        calls.append(1)
        return forward(*args, **kwargs)

    def interrupted():
        with compiled_layers(blocks) as description:
            assert description == f"torch.compile {torch.__version__}"
            assert all("forward" in vars(block) for block in blocks)
            raise KeyboardInterrupt

    blocks[0].forward = counted
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert blocks[0].forward is counted
    assert not any("forward" in vars(block) for block in list(blocks)[1:])


def test_kept_states_say_that_they_were_compiled(compiler, tmp_path):
    model = make("llama")
    ours = run(model, folder=tmp_path, fused="compile")
    assert run(model, folder=tmp_path, fused="compile").record["states"] == "read"
    assert ours.record["fused"].startswith("torch.compile")
    with pytest.raises(InputError, match="they differ in fused"):
        run(model, folder=tmp_path)


def test_finished_states_are_read_without_compiling(compiler, tmp_path, monkeypatch):
    model = make("llama")
    ours = run(model, folder=tmp_path, fused="compile")
    own = forwards(model)
    with monkeypatch.context() as within:
        within.setattr(fusing, "trial_states", lambda *_, **__: pytest.fail("compiled"))
        again = run(model, folder=tmp_path, fused="compile")
        assert again.record == {**ours.record, "states": "read"}
        assert torch.equal(again.states, ours.states)
        with pytest.raises(InputError, match="they differ in corpus"):
            run(model, LONGER, folder=tmp_path, fused="compile")
    assert forwards(model) == own
    path = tmp_path / "states.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")  # whose batch the compiled layers make again
    again = run(model, folder=tmp_path, fused="compile")
    assert (again.record["states"], torch.equal(again.states, ours.states)) == ("resumed", True)


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
def test_code_that_every_length_would_compile_anew_is_refused(graphs_alone):
    model = make("mamba")  # its scan is a loop over the tokens
    before = forwards(model)
    message = "'compile' cannot serve MambaModel: tried .* other lengths would be compiled anew"
    with pytest.raises(InputError, match=message):
        run(model, fused="compile")
    assert forwards(model) == before


def test_layers_that_cannot_be_told_apart_are_refused():
    with pytest.raises(InputError, match="'compile' cannot serve AlbertModel: its layers cannot"):
        run(make("albert"), fused="compile")


def test_layers_that_came_compiled_are_refused():
    model = make("llama")
    find_backbone(model).blocks[1].compile(backend="eager")
    with pytest.raises(InputError, match="'compile' cannot serve LlamaModel: its layers are comp"):
        run(model, fused="compile")


def test_a_compiler_that_fails_is_an_error_with_its_words(monkeypatch):
    model = make("llama")
    before = forwards(model)

    def compile_(function, **_):
        def fails(*args, **kwargs):
            raise NotImplementedError("No working C++ compiler found\nand a long story")

        return fails

    monkeypatch.setattr(torch, "compile", compile_)
    with pytest.raises(InputError, match=r"NotImplementedError: No working C\+\+ compiler found$"):
        run(model, fused="compile")
    assert forwards(model) == before


def test_states_that_compiling_changes_are_refused(monkeypatch):
    monkeypatch.setattr(
        torch, "compile", lambda forward, **_: lambda *args, **named: 2 * forward(*args, **named)
    )
    with pytest.raises(InputError, match="tried on a few tokens: they change hidden state 1 by"):
        run(make("llama"), fused="compile")
