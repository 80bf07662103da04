"""A tokenizer's hash: what decides ids, and nothing that comes and goes with its calls."""

import json

import pytest
import tokenizers
import transformers
from tiny import tiny_tokenizer

from ilo_fast.activations.tokens import tokenise, tokenizer_sha256
from ilo_fast.errors import CorpusError


def test_a_sentence_of_special_tokens_only_is_named():
    words = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3, "a": 4}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    inner.normalizer = tokenizers.normalizers.Replace(tokenizers.Regex(r"\p{Han}"), "")
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **names)

    def chunk(*texts):
        options = {"first": 0, "limit": None, "truncate": False, "where": "sentence {}".format}
        return tokenise(texts, tokenizer, **options)

    assert chunk("a a", "unknown words").lengths.tolist() == [4, 4]
    said = "corpus: sentence 1 gives no tokens but special ones: '你好'"
    with pytest.raises(CorpusError, match=said):
        chunk("a", "你好")


def test_calls_leave_the_hash_as_it_was():
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    before = tokenizer_sha256(tokenizer)
    tokenizer(["one", "two three"], padding=True)
    tokenizer("one two three", truncation=True, max_length=2)
    assert tokenizer_sha256(tokenizer) == before


def test_another_vocabulary_has_another_hash():
    tokenizer, other = tiny_tokenizer(), tiny_tokenizer()
    other.add_tokens(["new"])
    assert tokenizer_sha256(other) != tokenizer_sha256(tokenizer)


def test_a_word_that_no_probe_holds_counts():
    tokenizer, other = tiny_tokenizer(), tiny_tokenizer()
    assert tokenizer_sha256(other) == tokenizer_sha256(tokenizer)
    definition = json.loads(other.backend_tokenizer.to_str())
    definition["model"]["vocab"]["unheard"] = len(definition["model"]["vocab"])
    other = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(json.dumps(definition)),
        **tokenizer.special_tokens_map,
    )
    assert tokenizer_sha256(other) != tokenizer_sha256(tokenizer)


@pytest.mark.parametrize("same", [True, False])
def test_python_tokenizers_count_their_merges(tmp_path, same):
    vocabulary = {"<unk>": 0, "a@@": 1, "b": 2, "a": 3, "ab": 4, "b@@": 5, "ba": 6, "a</w>": 7}
    hashes = []
    for number, merges in enumerate(("a b</w>", "a b</w>" if same else "b a</w>")):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "vocab.json").write_text(json.dumps(vocabulary))
        (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
        tokenizer = transformers.CTRLTokenizer(
            str(folder / "vocab.json"), str(folder / "merges.txt")
        )
        hashes.append(tokenizer_sha256(tokenizer))
    assert (hashes[0] == hashes[1]) is same


def test_a_setting_that_changes_ids_changes_the_hash():
    tokenizer, other = tiny_tokenizer(), tiny_tokenizer()
    other.split_special_tokens = True
    assert tokenizer("a <s> b")["input_ids"] != other("a <s> b")["input_ids"]
    assert tokenizer_sha256(other) != tokenizer_sha256(tokenizer)
