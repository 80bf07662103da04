"""load_model: folders of many families, GGUF files read fast and alike, and clear refusals."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import transformers.modeling_gguf_pytorch_utils as loader
from local_hub import commit_of, environment, local_hub
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from ilo_fast.errors import ModelError
from ilo_fast.models import find_backbone, load_model, wrap_model
from ilo_fast.models.fingerprint import _bit_sums, weights_sha256
from ilo_fast.models.gguf import fast_gguf

_SIZE = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
_DECODER = {**_SIZE, "num_attention_heads": 2, "max_position_embeddings": 32}
_T5 = {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}


def save(folder, model_class, config, dtype=torch.float32, **tokenizer_options):
    torch.manual_seed(0)
    model = model_class(config).to(dtype)
    model.save_pretrained(folder)
    vocabulary = {"<s>": 0, "<unk>": 1, **{chr(97 + i): 2 + i for i in range(26)}}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", unk_token="<unk>", **tokenizer_options
    )
    tokenizer.save_pretrained(folder)
    return model


def llama(**more):
    return transformers.LlamaConfig(**{**_DECODER, **more})


def test_the_folder_one_stands_in_gives_its_name(tmp_path, monkeypatch):
    save(tmp_path / "mine", transformers.LlamaForCausalLM, llama())
    (tmp_path / "mine" / "inner").mkdir()
    (tmp_path / "link").symlink_to("mine")
    monkeypatch.chdir(tmp_path / "mine" / "inner")
    given = ("..", "../../mine", "../../link")
    assert [load_model(where).name for where in given] == ["mine", "mine", "link"]
    monkeypatch.chdir("..")
    assert load_model(".").name == "mine"


def test_a_folder_keeps_its_dtype_and_loses_its_head(tmp_path):
    saved = save(tmp_path, transformers.LlamaForCausalLM, llama(), torch.bfloat16)
    (tmp_path / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# A model\n")
    loaded = load_model(str(tmp_path))
    assert loaded.dtype == torch.bfloat16
    assert not hasattr(loaded.model, "lm_head")
    assert not loaded.model.training
    assert (loaded.n_layers, loaded.dim, loaded.max_length) == (2, 16, 32)
    assert (loaded.source, loaded.name, loaded.revision) == ("folder", tmp_path.name, None)
    assert loaded.licence == "apache-2.0"
    assert loaded.tokenizer("a b")["input_ids"] == [0, 2, 3]  # its special token included
    ours, theirs = (
        loaded.model.layers[1].mlp.up_proj.weight,
        saved.model.layers[1].mlp.up_proj.weight,
    )
    assert torch.equal(ours, theirs)
    for name in ("float32", "float64", torch.float16):
        dtype = getattr(torch, name) if isinstance(name, str) else name
        assert load_model(tmp_path, dtype=name).dtype == dtype


@pytest.mark.parametrize(
    ("model_class", "config", "length"),
    [
        ("GPT2LMHeadModel", transformers.GPT2Config(
            vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=20), 20),
        ("BertForMaskedLM", transformers.BertConfig(
            **_DECODER, pad_token_id=0), 32),
        ("XLMRobertaModel", transformers.XLMRobertaConfig(
            **_DECODER, pad_token_id=1), 30),  # positions start after the padding id
        ("T5ForConditionalGeneration", transformers.T5Config(**_T5), None),
        ("BloomForCausalLM", transformers.BloomConfig(
            vocab_size=40, hidden_size=16, n_layer=2, n_head=2), None),
    ],
)  # fmt: skip
def test_families(tmp_path, model_class, config, length):
    save(tmp_path, getattr(transformers, model_class), config)
    loaded = load_model(tmp_path, device="cpu")
    assert (loaded.n_layers, loaded.dim, loaded.max_length) == (2, 16, length)
    inner = loaded.model(input_ids=torch.tensor([[2, 3]]), output_hidden_states=True)
    assert len(inner.hidden_states) == 3
    if model_class.startswith("T5"):
        assert type(loaded.model).__name__ == "T5Stack"
        assert not loaded.model.is_decoder


def test_a_tokenizers_own_limit_counts(tmp_path):
    save(tmp_path, transformers.LlamaForCausalLM, llama(), model_max_length=9)
    assert load_model(tmp_path).max_length == 9


def test_code_of_a_model_runs_only_where_it_is_trusted(tmp_path, monkeypatch):
    monkeypatch.setattr(
        transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "code")
    )
    monkeypatch.setattr(sys, "path", [*sys.path])  # it is put there
    folder = tmp_path / "own_model"
    save(folder, transformers.LlamaModel, llama())
    (folder / "own.py").write_text(
        "from transformers import LlamaConfig, LlamaModel\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own'\n"
        "class OwnModel(LlamaModel):\n    config_class = OwnConfig\n"
    )
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"needs code .* trust_remote_code=True or --trust-remote"):
        load_model(folder)
    assert type(load_model(folder, trust_remote_code=True).model).__name__ == "OwnModel"


def test_wrap_model_describes_what_is_in_memory():
    model = transformers.LlamaForCausalLM(llama()).train()
    loaded = wrap_model(model, lambda texts: texts, name="mine")
    assert (loaded.name, loaded.source, loaded.n_layers, loaded.dim) == ("mine", "memory", 2, 16)
    assert loaded.model is model.model
    assert all(module.training for module in model.modules())
    assert wrap_model(model, lambda texts: texts).name == "LlamaForCausalLM"
    model.config.name_or_path = "org/model"
    assert wrap_model(model, lambda texts: texts).name == "org/model"
    with pytest.raises(ModelError, match="tokenizer: expected"):
        wrap_model(model, None)
    with pytest.raises(ModelError, match="model: expected a transformers PreTrainedModel"):
        wrap_model(torch.nn.Linear(2, 2), lambda texts: texts)


def test_the_blocks_are_the_layers_not_the_experts():
    config = transformers.MixtralConfig(
        **_DECODER, num_key_value_heads=2, num_local_experts=2, num_experts_per_tok=1
    )
    backbone = find_backbone(transformers.MixtralForCausalLM(config))
    assert type(backbone.blocks[0]).__name__ == "MixtralDecoderLayer"
    assert backbone.n_entries == 3


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"model": "./nowhere"}, "there is no file or folder"),
        ({"model": "nowhere.gguf"}, "there is no file or folder"),
        ({"model": ""}, "expected a hub id, a folder or a .gguf file, got the text ''"),
        ({"model": "{empty}"}, "holds no config.json$"),
        ({"model": "{adapter}"}, "holds no config.json, but an adapter: merge it into its model"),
        ({"model": "{file}"}, "neither a folder nor a .gguf file"),
        ({"model": "{fake}"}, "is not a readable GGUF file"),
        ({"model": "{good}", "dtype": "int8"}, "dtype: expected 'auto' or one of"),
        ({"model": "{good}", "device": "tpu9"}, "device: expected"),
        ({"model": "{good}", "device": "meta"}, "device: expected .* got 'meta'"),
        ({"model": "{good}", "revision": "main"}, "revision: only a hub id"),
        ({"model": "{broken}"}, "broken holds no tokenizer: .* tokenizer.save_pretrained"),
        ({"model": "{parent}"}, "holds no config.json, but broken and deep and 6 more in it do$"),
        ({"model": "{pickled}"}, "cannot load .*: UnpicklingError"),
        ({"model": "{typed}"}, "cannot load .*num_hidden_layers.* expected int, got str"),
        ({"model": "{named}"}, "cannot load .*AttributeError: .*float31"),
        ({"model": "{wide}"}, r"embed_tokens.weight is \[40, 16\], LlamaModel wants \[40, 24\]"),
        ({"model": "{deep}"}, "lacks 9 weights of LlamaModel: layers.2"),
        ({"model": "{remote}"}, "--trust-remote-code allows it"),
    ],
)
def test_refuses(tmp_path, options, named):
    places = {name: tmp_path / name for name in ("empty", "adapter", "good", "broken", "remote")}
    altered = {name: tmp_path / name for name in ("pickled", "typed", "named", "wide", "deep")}
    for place in places.values():
        place.mkdir()
    places |= {"parent": tmp_path, "file": tmp_path / "a.txt", "fake": tmp_path / "a.gguf"}
    places["file"].write_text("text")
    (places["adapter"] / "adapter_config.json").write_text("{}")
    places["fake"].write_bytes(b"no such thing" * 10)
    save(places["good"], transformers.LlamaModel, llama())
    for name, more in (("wide", {"hidden_size": 24}), ("deep", {"num_hidden_layers": 3})):
        shutil.copytree(places["good"], altered[name])
        llama(**more).save_pretrained(altered[name])
    shutil.copytree(places["good"], altered["pickled"])
    (altered["pickled"] / "model.safetensors").unlink()
    (altered["pickled"] / "pytorch_model.bin").write_bytes(b"no such thing")
    places |= altered
    for name, said in (("typed", {"num_hidden_layers": "2"}), ("named", {"dtype": "float31"})):
        shutil.copytree(places["good"], altered[name])
        config = altered[name] / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), **said}))
    (places["broken"] / "config.json").write_text('{"model_type": "llama"}')
    remote = {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModel": "own.M"}}
    (places["remote"] / "config.json").write_text(json.dumps(remote))
    (places["remote"] / "own.py").write_text("raise SystemExit('ran')")
    options = {**options, "model": options["model"].format(**places)}
    with pytest.raises(ModelError, match=named) as error:
        load_model(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kept", [0, 5, 200, -8])
def test_a_damaged_weights_file_is_named(tmp_path, kept):
    """Cut within the header's length, the header, or the weights."""
    save(tmp_path, transformers.LlamaForCausalLM, llama())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(ModelError, match=r"model\.safetensors is damaged or cut short"):
        load_model(tmp_path)


def test_cuda_where_there_is_none(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a CUDA device")
    save(tmp_path, transformers.LlamaModel, llama())
    with pytest.raises(ModelError, match="device: cuda asked for, this machine has 0"):
        load_model(tmp_path, device="cuda")
    with pytest.raises(ModelError, match="device: balanced asked for, this machine has 0"):
        load_model(tmp_path, device="balanced")


def test_a_model_in_memory_is_no_name():
    with pytest.raises(TypeError, match=r"got LlamaModel .*wrap_model"):
        load_model(transformers.LlamaModel(llama()))


def test_an_apple_gpu_where_there_is_none(tmp_path):
    if torch.backends.mps.is_available():
        pytest.skip("needs a machine without an Apple GPU")
    save(tmp_path, transformers.LlamaModel, llama())
    with pytest.raises(ModelError, match="device: mps asked for, this machine has no Apple GPU"):
        load_model(tmp_path, device="mps")


def write_gguf(path):
    """A small file with every kind of header value."""
    gguf = pytest.importorskip("gguf", reason="needs the extra 'demo': make test")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_license("apache-2.0")
    writer.add_context_length(32)
    writer.add_embedding_length(2)  # the default sizes are those of a model of 7 billion weights
    writer.add_feed_forward_length(4)
    writer.add_block_count(1)
    writer.add_head_count(1)
    writer.add_float32("llama.own", 0.25)
    writer.add_bool("llama.flag", True)
    writer.add_token_list(["<s>", "größer", "日本", ""])
    writer.add_token_scores([0.0, -1.5, 2.0, 3.0])
    writer.add_token_types([1, 2, 3, 1])
    writer.add_array("llama.one", [7])
    writer.add_tensor("token_embd.weight", np.arange(8, dtype=np.float32).reshape(4, 2))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return gguf


def transformers_reads(reader, name):
    """A header's value as transformers' loader takes it out of a reader."""
    field = reader.fields[name]
    parse = loader._gguf_parse_value
    values = [parse(field.parts[place], field.types) for place in field.data]
    return values[0] if len(values) == 1 else values


def test_a_gguf_model_is_dequantised_whatever_kernels_there_are(tmp_path, monkeypatch):
    if not hasattr(transformers, "GgufConfig"):
        pytest.skip("needs a transformers that can keep a GGUF file's weights packed")
    write_gguf(tmp_path / "a.gguf")
    asked = {}

    def load(where, **options):
        asked.update(options)
        raise OSError("enough")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: None)
    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", load)
    for dtype, taken in (("auto", torch.float32), ("bfloat16", torch.bfloat16)):
        with pytest.raises(ModelError, match="enough"):
            load_model(tmp_path / "a.gguf", dtype=dtype)
        assert asked["quantization_config"].dequantize
        assert asked["dtype"] == taken


def test_a_gguf_file_that_does_not_load_is_named_itself(tmp_path):
    write_gguf(tmp_path / "a.gguf")  # its tokenizer is of no kind, and it has no layers
    said = r"model: (cannot load \S*a\.gguf: \w+Error: |the checkpoint \S*a\.gguf lacks 10 weights)"
    with pytest.raises(ModelError, match=said):  # whichever transformers looks at first
        load_model(tmp_path / "a.gguf")


def test_the_fast_gguf_reader_reads_what_the_plain_one_does(tmp_path):
    path = tmp_path / "a.gguf"
    gguf = write_gguf(path)
    plain, reader_class = gguf.GGUFReader(path), gguf.GGUFReader
    names = gguf.get_tensor_name_map
    with fast_gguf(Path(path)) as licence:
        table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
        assert table.mapping == names(gguf.MODEL_ARCH.LLAMA, 2).mapping
        # transformers asks for every module of a model
        assert gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2) is table
        assert gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 3) is not table
        assert licence == "apache-2.0"
        fast = gguf.GGUFReader(str(path))
        assert fast is gguf.GGUFReader(path)
        read = {name: transformers_reads(fast, name) for name in fast.fields}
        read["tokenizer.ggml.tokens"].clear()  # what is read is the reader's own
        read |= {name: transformers_reads(fast, name) for name in fast.fields}
    assert gguf.GGUFReader is reader_class
    assert gguf.get_tensor_name_map is names
    assert list(fast.fields) == list(plain.fields)
    for name, field in plain.fields.items():
        assert fast.fields[name].types == field.types
        assert read[name] == transformers_reads(plain, name), name
    assert np.array_equal(fast.tensors[0].data, plain.tensors[0].data)


def test_weights_sha256_sees_every_change():
    def fresh():
        torch.manual_seed(0)
        return transformers.LlamaModel(llama())

    model = fresh()
    before = weights_sha256(model)
    assert weights_sha256(fresh()) == before
    weight = model.layers[1].mlp.up_proj.weight
    with torch.no_grad():
        weight[[0, 1]] = weight[[1, 0]]  # the same values in another order
    assert weights_sha256(model) != before
    for one, other in ((0, 251), (100, 351), (-1, -2), (-1, 0)):
        model = fresh()
        flat = model.layers[1].mlp.up_proj.weight.detach().view(-1)
        flat[[one, other]] = flat[[other, one]]
        assert weights_sha256(model) != before, (one, other)
    assert weights_sha256(fresh().double()) != before
    other = fresh()
    other.config.rms_norm_eps = 1e-3
    assert weights_sha256(other) != before


HUB_SCRIPT = """
from ilo_fast.errors import ModelError, causes
from ilo_fast.models import load_model
for revision in (None, "main", "step10"):
    print(load_model("org/one", revision=revision).revision)
try:
    load_model("org/none")
except ModelError as error:
    print(*[type(link).__name__ for link in causes(error)])
"""


def test_the_commit_of_a_hub_model_is_known(tiny_model, tmp_path):
    with local_hub({"org/one": tiny_model}) as (address, fetched):
        done = subprocess.run(
            [sys.executable, "-c", HUB_SCRIPT],
            env=environment(address, tmp_path), capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    *commits, kinds = done.stdout.splitlines()
    assert commits == [commit_of("org/one")] * 3
    assert "RepositoryNotFoundError" in kinds
    assert fetched["org/one/model.safetensors"] == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_sums_of_bits_are_the_integers_modulo_64_bits(dtype):
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    for size in (1, 250, 251, 1000):
        values = torch.randn(size, generator=torch.Generator().manual_seed(size)).to(dtype)
        numbers = list(enumerate(values.view(bits).tolist()))
        whole = size // 251 * 251
        expected = [
            sum(number for _, number in numbers),
            sum(number * (at % 251 + 1) for at, number in numbers),
            sum(number * (at // 251 + 1) for at, number in numbers[:whole]),
        ]
        found = _bit_sums(values).tolist()
        assert [a % 2**64 for a in found] == [b % 2**64 for b in expected]


def test_weights_sha256_does_not_see_settings_that_change_no_hidden_state():
    torch.manual_seed(0)
    model = transformers.LlamaModel(llama())
    model.set_attn_implementation("eager")  # the only one that gives attentions
    before = weights_sha256(model)
    for name in ("use_cache", "output_hidden_states", "output_attentions", "return_dict"):
        value = getattr(model.config, name)
        setattr(model.config, name, not value)
        assert getattr(model.config, name) is not value
        assert weights_sha256(model) == before, name


def test_weights_sha256_does_not_see_the_angles_of_the_last_pass():
    rope = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0}
    model = transformers.LlamaModel(llama(max_position_embeddings=8, rope_parameters=rope))
    loaded = weights_sha256(model)
    for length in (30, 4):  # beyond the limit, and back within it
        model(torch.zeros(1, length, dtype=torch.int64))
        assert weights_sha256(model) == loaded


def module_of(**tensors):
    module = torch.nn.Module()
    for name, tensor in tensors.items():
        module.register_parameter(name, torch.nn.Parameter(tensor, requires_grad=False))
    return module


def test_weights_sha256_is_of_names_and_shapes_in_any_order():
    two, three = torch.ones(2, 6), torch.arange(3.0)
    first = weights_sha256(module_of(a=two, b=three))
    assert weights_sha256(module_of(b=three, a=two)) == first
    wave = torch.ones(2, dtype=torch.complex64)
    odd = module_of(a=two, b=three, none=torch.ones(0, 3), wave=wave, long=wave.cdouble())
    assert weights_sha256(odd) == first  # these do not count
    others = (module_of(a=two.view(3, 4), b=three), module_of(a=two, c=three), module_of(a=two))
    assert len({first, *map(weights_sha256, others)}) == 4


class Adapted(torch.nn.Linear):
    """As PEFT's layers are: what is on and how much each adds lies beside the weights."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(2, 2)
        self.scaling, self.kept_by = {"one": [0.5, None]}, object()
        self._active, self._off, self._told = ["one"], False, 0

    @property
    def active_adapters(self):
        return self._active

    @property
    def disable_adapters(self):
        return self._off


def test_weights_sha256_sees_the_settings_of_adapters():
    before = weights_sha256(Adapted())
    assert before != weights_sha256(module_of(**dict(Adapted().named_parameters())))
    for name, value, same in (
        ("_active", ["two"], False),
        ("scaling", {"one": [0.25, None]}, False),
        ("_off", True, False),
        ("training", False, True),
        ("_told", 1, True),
        ("kept_by", object(), True),  # its repr names an address
    ):
        changed = Adapted()
        setattr(changed, name, value)
        assert (weights_sha256(changed) == before) is same, name


def test_weights_sha256_sees_which_adapters_are_on():
    peft = pytest.importorskip("peft", reason="needs peft: pip install peft, then make test")
    torch.manual_seed(0)
    lora = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    model = peft.get_peft_model(transformers.LlamaModel(llama()), lora)
    model.add_adapter("other", lora)
    inside = model.get_base_model()
    first = weights_sha256(inside)
    with model.disable_adapter():
        off = weights_sha256(inside)
    model.set_adapter("other")
    other = weights_sha256(inside)
    model.set_adapter("default")
    assert weights_sha256(inside) == weights_sha256(inside.train()) == first
    for module in inside.modules():
        if hasattr(module, "set_scale"):
            module.set_scale("default", 0.5)
    assert len({first, off, other, weights_sha256(inside)}) == 4


def test_a_name_that_is_neither_here_nor_on_the_hub(monkeypatch, capfd):
    from huggingface_hub.utils import logging

    before = logging.get_verbosity()

    def unreachable(where, **options):
        logging.get_logger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
        raise OSError("We couldn't connect to the hub.\n\nCheck your connection.")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", unreachable)
    with pytest.raises(ModelError, match=r"the hub\. Check .*\(no folder or file models/typo exi"):
        load_model("models/typo")
    assert capfd.readouterr().err == ""
    assert logging.get_verbosity() == before
