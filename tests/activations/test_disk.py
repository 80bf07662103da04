"""States in a folder: resumed after kill -9, bit for bit; changed inputs never reuse them."""

import errno
import json
import os
import signal
import subprocess
import sys
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from families import SENTENCES, Characters, make
from folders import BUDGET, CORPUS, keep
from safetensors.torch import load_file

from ilo_fast import Corpus, extract, tap
from ilo_fast.activations import disk, job, open_store, tokens
from ilo_fast.activations.job import Job
from ilo_fast.activations.journal import Batch, beginning, finished
from ilo_fast.activations.runner import Runner
from ilo_fast.errors import InputError
from ilo_fast.progress import Progress

extraction = import_module("ilo_fast.activations.extract")  # a function has its name


def test_a_folder_is_a_safetensors_file_and_opens_again(tmp_path, ran):
    store = keep(tmp_path / "s", layers=[0, 3])
    plain = extract(make("llama"), Characters(), CORPUS, layers=[0, 3], batch_tokens=BUDGET)
    assert torch.equal(store.states, plain.states)
    tensors = load_file(tmp_path / "s" / "states.safetensors")
    assert list(tensors) == ["layer.0", "layer.3"]
    with (tmp_path / "s" / "states.safetensors").open("rb") as file:
        assert (8 + int.from_bytes(file.read(8), "little")) % 64 == 0  # where the data begins
    assert torch.equal(tensors["layer.3"], plain.states[1])
    opened = open_store(tmp_path / "s")
    assert torch.equal(opened.states, plain.states)
    assert (opened.layers, opened.languages) == ((0, 3), ("one", "two"))
    assert opened.language_ids.tolist() == plain.language_ids.tolist()
    assert opened.sentence_ids.tolist() == plain.sentence_ids.tolist()
    assert opened.record["store"] == "disk"
    ran.clear()
    again = keep(tmp_path / "s", layers=[0, 3], batch_tokens="auto")
    assert ran == []
    assert torch.equal(again.states, plain.states)


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from families import SENTENCES, Characters, make
from ilo_fast import Corpus, extract, tap
from ilo_fast.progress import Progress

class Kill(Progress):
    batches = 0
    def advance(self, tokens, sentences):
        self.batches += 1
        if self.batches == 4:
            os.kill(os.getpid(), signal.SIGKILL)

corpus = Corpus("pair", ("one", "two"), SENTENCES)
extract(make("llama"), Characters(), corpus, folder=sys.argv[2], batch_tokens=30, progress=Kill())
"""


def test_kill_9_resumes_bit_for_bit(tmp_path, ran):
    folder = tmp_path / "s"
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    here = str(Path(__file__).parent)
    run = subprocess.run(
        [sys.executable, "-c", KILLED, here, str(folder)], env=environment, timeout=240, check=False
    )
    assert run.returncode == -signal.SIGKILL
    assert not (folder / "states.safetensors").exists()
    journal = (folder / "journal.jsonl").read_text().splitlines()
    assert 1 <= len(journal) <= 4
    whole = keep(tmp_path / "whole")
    batches = len(ran)
    ran.clear()
    resumed = keep(folder)
    assert len(ran) == batches - len(journal)
    assert torch.equal(resumed.states, whole.states)
    ours, theirs = ((f / "states.safetensors").read_bytes() for f in (folder, tmp_path / "whole"))
    assert ours == theirs


def interrupted(folder, after=3):
    class Stop(Progress):
        batches = 0

        def advance(self, tokens, sentences):
            self.batches += 1
            if self.batches == after:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep(folder, progress=Stop())


def test_half_written_batches_are_done_again(tmp_path, ran):
    whole = keep(tmp_path / "whole")
    batches = len(ran)
    interrupted(tmp_path / "s")
    partial, journal = tmp_path / "s" / "states.partial", tmp_path / "s" / "journal.jsonl"
    lines = journal.read_text().splitlines()
    assert len(lines) == 3
    # zero the whole file behind the header: no finished batch has its checksum
    with partial.open("r+b") as file:
        head = 8 + int.from_bytes(file.read(8), "little")
        file.seek(head)
        file.write(bytes(partial.stat().st_size - head))
    journal.write_text("\n".join(lines) + '\n{"start": 9, "sto')
    ran.clear()
    assert torch.equal(keep(tmp_path / "s").states, whole.states)
    assert len(ran) == batches


def test_a_run_of_several_chunks_goes_on_where_it_stopped(tmp_path, ran, monkeypatch):
    plain = keep(tmp_path / "plain").states
    for module in (tokens, job):
        monkeypatch.setattr(module, "CHUNK", 5)
    ran.clear()
    whole = keep(tmp_path / "whole")
    batches = len(ran)
    torch.testing.assert_close(whole.states, plain)
    interrupted(tmp_path / "s", after=batches - 1)
    journal = tmp_path / "s" / "journal.jsonl"
    lines = journal.read_text().splitlines()
    assert json.loads(lines[-1])["start"] >= 5
    journal.write_text("\n".join(lines) + '\n{"start": 9, "sto')  # the next line begins anew
    ran.clear()

    class Told(Progress):
        made = skipped = 0

        def advance(self, tokens, sentences):
            self.made += sentences

        def skip(self, tokens, sentences):
            self.skipped += sentences

    told, kept = Told(), sum(len(json.loads(at)["points"]) for at in lines)
    resumed = keep(tmp_path / "s", progress=told)
    assert len(ran) == batches - len(lines)
    assert resumed.record["sentences_kept"] == told.skipped == kept
    assert told.made == CORPUS.n_points - kept
    for states in (resumed.states, open_store(tmp_path / "s").states):
        assert torch.equal(states, whole.states)


@pytest.mark.parametrize(("odd", "said"), [(99, "got 99 in"), (None, "no tokens")])
def test_sentences_of_a_later_chunk_are_named(monkeypatch, odd, said):
    for module in (tokens, job):
        monkeypatch.setattr(module, "CHUNK", 5)

    class Odd(Characters):
        def encode(self, text):
            if text != SENTENCES[1][3]:
                return super().encode(text)
            return [] if odd is None else [3, odd]

    with pytest.raises(ValueError, match=said) as caught:
        extract(make("llama"), Odd(), CORPUS)
    assert "sentence 4 of two" in str(caught.value)


def test_finished_batches_of_a_chunk_are_those_of_its_points_in_order():
    states = np.arange(48, dtype=np.float32).reshape(2, 8, 3)

    def batch(start, *points):
        block = np.ascontiguousarray(states[:, points])
        return Batch.of(start, np.array(points), block, 9)

    batches = [batch(6, 0, 2), batch(4, 5, 7), batch(5, 7, 5), batch(0, 1, 3), batch(7, 2, 4)]
    order = np.array([5, 7, 0, 2])  # of places 4 to 7
    assert finished(batches, states, 9, order, 4) == [(4, 6), (6, 8)]
    assert finished(batches, states, 8, order, 4) == []


def test_checksums_begin_at_the_content_of_a_key_in_any_order():
    assert beginning({"a": 1, "b": 2}) == beginning({"b": 2, "a": 1}) != beginning({"a": 1, "b": 3})


def test_resumed_after_a_halved_budget(tmp_path, ran, monkeypatch):
    """Batches that end elsewhere than planned: only the sentences not there are run."""
    interrupted(tmp_path / "s")
    stored = json.loads((tmp_path / "s" / "store.json").read_text())
    stored["budget"] = 55
    (tmp_path / "s" / "store.json").write_text(json.dumps(stored))
    done = sum(
        entry["stop"] - entry["start"]
        for entry in map(json.loads, (tmp_path / "s" / "journal.jsonl").read_text().splitlines())
    )
    sentences, run = [], Runner.run

    def counted(self, row, lengths):
        sentences.extend(lengths)
        return run(self, row, lengths)

    monkeypatch.setattr(Runner, "run", counted)
    store = keep(tmp_path / "s")
    assert len(sentences) == CORPUS.n_points - done
    torch.testing.assert_close(store.states, keep(tmp_path / "whole").states)


def test_changed_inputs_never_reuse_states(tmp_path):
    keep(tmp_path)
    other = Corpus("pair", ("one", "two"), (SENTENCES[0], (*SENTENCES[1][:-1], "other")))
    changes = [
        ({"corpus": other}, "corpus"),
        ({"model": make("llama", seed=1)}, "model"),
        ({"model": make("llama").double()}, "dtype"),
        ({"pool": "last"}, "pool"),
        ({"layers": [1]}, "layers"),
        ({"truncate": True}, "truncate"),
    ]
    for change, named in changes:
        with pytest.raises(InputError, match=rf"folder: .* differ in .*{named}"):
            keep(tmp_path, **change)
    one_weight = make("llama")
    with torch.no_grad():
        one_weight.model.layers[1].mlp.up_proj.weight[3, 4] += 1e-3
    with pytest.raises(InputError, match="differ in model"):
        keep(tmp_path, model=one_weight)

    class Others(Characters):
        def encode(self, text):
            return [4, *super().encode(text)[1:]]

    with pytest.raises(InputError, match="differ in tokenizer"):
        extract(make("llama"), Others(), CORPUS, folder=tmp_path)
    with pytest.raises(InputError, match="pool: a folder keeps only"):
        keep(tmp_path / "f", pool=lambda states, offsets: states[offsets[1:] - 1])


def test_another_limit_never_reuses_cut_sentences(tmp_path):
    tokenizers = Characters(), Characters()
    for tokenizer, limit in zip(tokenizers, (6, 4), strict=True):
        tokenizer.model_max_length = limit
    options = {"truncate": True, "batch_tokens": BUDGET, "folder": tmp_path}
    extract(make("llama"), tokenizers[0], CORPUS, **options)
    with pytest.raises(InputError, match="differ in truncate"):
        extract(make("llama"), tokenizers[1], CORPUS, **options)
    again = extract(make("llama"), tokenizers[0], CORPUS, **options)
    assert again.record["states"] == "read"


class Meanwhile(Progress):
    """Calls a function in the middle of a run."""

    def __init__(self, call):
        self.call, self.batches = call, 0

    def advance(self, tokens, sentences):
        self.batches += 1
        if self.batches == 3:
            self.call()


@pytest.mark.parametrize("budget", [BUDGET, 50])
def test_two_runs_never_write_into_one_folder(tmp_path, budget):
    refused = []

    def another():
        with pytest.raises(InputError, match="folder: another run is writing its states into"):
            keep(tmp_path / "s", batch_tokens=budget)
        refused.append(True)

    store = keep(tmp_path / "s", progress=Meanwhile(another))
    assert refused == [True]
    assert torch.equal(store.states, keep(tmp_path / "plain").states)
    assert torch.equal(open_store(tmp_path / "s").states, store.states)
    assert keep(tmp_path / "s").record["states"] == "read"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_run_that_ends_early_lets_go_of_its_folder(tmp_path, error):
    def stop():
        raise error

    with pytest.raises(error) as caught:  # which keeps the run's frames, as a notebook does
        keep(tmp_path / "s", progress=Meanwhile(stop))
    assert keep(tmp_path / "s").record["states"] == "resumed"
    del caught
    with pytest.raises(InputError, match="differ in pool"):
        keep(tmp_path / "s", pool="last")
    assert keep(tmp_path / "s").record["states"] == "read"


def test_a_folder_of_another_key_is_let_go_of(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        keep(tmp_path / "s", progress=Meanwhile(lambda: (_ for _ in ()).throw(KeyboardInterrupt)))
    with pytest.raises(InputError, match="differ in pool") as caught:
        keep(tmp_path / "s", pool="last")
    assert keep(tmp_path / "s").record["states"] == "resumed"
    del caught


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_end_before_the_first_batch_leaves_a_folder_to_start_in(tmp_path, monkeypatch, error):
    def stop(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(disk, "_allocate", stop)
        with pytest.raises(error):
            keep(tmp_path)
        assert list(tmp_path.iterdir()) == []
    with monkeypatch.context() as patch:
        patch.setattr(disk, "write_text", stop)
        with pytest.raises(error):
            keep(tmp_path)
    assert keep(tmp_path).record["states"] == "made"


def test_file_systems_without_locks_or_room_taken_ahead_serve(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def none(*_):
        raise OSError(errno.ENOTSUP, "not supported")

    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    truth = keep(tmp_path / "plain").states
    monkeypatch.setattr(fcntl, "flock", none)
    monkeypatch.setattr(os, "posix_fallocate", none, raising=False)
    assert torch.equal(keep(tmp_path / "new" / "s").states, truth)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="full"):
        keep(tmp_path / "full")
    assert list((tmp_path / "full").iterdir()) == []


def test_a_journal_without_its_key_is_left_alone(tmp_path):
    keep(tmp_path)
    (tmp_path / "states.safetensors").rename(tmp_path / "states.partial")
    (tmp_path / "store.json").unlink()
    with pytest.raises(InputError, match=r"holds states without their store\.json"):
        keep(tmp_path)


def test_a_full_disk_is_said_before_the_first_byte(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "free_disk", lambda folder: 1000)
    with pytest.raises(InputError, match=r"folder: the states take 6\.\d kB \(\d+ bytes\), 1.0 kB"):
        keep(tmp_path / "s")
    assert list((tmp_path / "s").iterdir()) == []


def test_an_unfinished_folder_says_how_to_go_on(tmp_path):
    interrupted(tmp_path / "s")
    with pytest.raises(InputError, match=r"\(states.safetensors\); the command that began them go"):
        open_store(tmp_path / "s")
    with pytest.raises(InputError, match=r"^states: there is no folder .*none$"):
        open_store(tmp_path / "none")
    with pytest.raises(TypeError, match="folder must be a path, got Tensor"):
        open_store(torch.ones(1, 2, 2))


def test_refuses_folders_of_something_else(tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "states"):
        with pytest.raises(InputError, match=r"^folder: .*file.* is no folder"):
            keep(place)
    (tmp_path / "file").unlink()
    with pytest.raises(InputError, match="holds no finished states"):
        open_store(tmp_path)
    (tmp_path / "states.safetensors").write_text("mine")
    with pytest.raises(InputError, match=r"holds states without their store\.json"):
        keep(tmp_path)
    assert (tmp_path / "states.safetensors").read_text() == "mine"


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    for name in ("scores.csv", "run.json"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=r"want a folder of their own, .* 'run.json' and 1 more"):
        keep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.json", "scores.csv"]


@pytest.mark.parametrize(
    ("recorded", "renamed", "said"),
    [
        (False, False, "no finished states"),
        (True, False, "no finished states"),
        (False, True, r"without their record\.json"),
    ],
)
def test_a_run_that_ended_behind_its_last_batch_makes_none_again(
    tmp_path, ran, recorded, renamed, said
):
    made = keep(tmp_path / "s")
    truth = made.states.clone()
    if not recorded:
        (tmp_path / "s" / "record.json").unlink()
    if not renamed:
        (tmp_path / "s" / "states.safetensors").rename(tmp_path / "s" / "states.partial")
    with pytest.raises(InputError, match=said):
        open_store(tmp_path / "s")
    ran.clear()
    again = keep(tmp_path / "s")
    assert (ran, again.record["states"]) == ([], "read")
    assert (again.record == {**made.record, "states": "read"}) is recorded  # "seconds" among them
    opened = open_store(tmp_path / "s")
    assert torch.equal(again.states, truth)
    assert torch.equal(opened.states, truth)
    assert opened.record["sentences"] == CORPUS.n_points


def test_a_finished_folder_is_read_without_writing(tmp_path, ran, monkeypatch):
    made = keep(tmp_path / "s")
    before = {path.name: path.stat() for path in (tmp_path / "s").iterdir()}
    opened = Path.open

    def read_only(self, mode="r", *args, **kwargs):
        assert mode in ("r", "rb"), f"{self} opened to write"
        return opened(self, mode, *args, **kwargs)

    memmap = disk.np.memmap
    modes = []

    def mapped(path, **options):
        modes.append(options["mode"])
        return memmap(path, **options)

    monkeypatch.setattr(Path, "open", read_only)
    monkeypatch.setattr(disk.np, "memmap", mapped)
    monkeypatch.setattr(os, "replace", lambda *_: pytest.fail("renamed"))
    ran.clear()
    again = keep(tmp_path / "s")
    assert ran == []
    assert set(modes) <= {"r", "c"}
    assert torch.equal(again.states, made.states)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "s").iterdir()} == {
        name: stat.st_mtime_ns for name, stat in before.items()
    }


def test_a_finished_folder_is_read_without_tokenising_or_trying_the_model(tmp_path, monkeypatch):
    made = keep(tmp_path / "s")
    monkeypatch.setattr(extraction, "probe", lambda *_: pytest.fail("tried the model"))
    monkeypatch.setattr(Job, "run", lambda *_: pytest.fail("tokenised"))
    told = []

    class Told(Progress):
        def start(self, total_tokens):
            told.append(total_tokens)

        def skip(self, tokens, sentences):
            told.append((tokens, sentences))

        def finish(self):
            told.append("finished")

    again = keep(tmp_path / "s", progress=Told())
    assert told == [0, (0, CORPUS.n_points), "finished"]
    assert again.record == {**made.record, "states": "read"}
    assert torch.equal(again.states, made.states)
    assert not again.states.is_inference()


def test_one_run_at_a_time_makes_damaged_batches_again(tmp_path):
    truth = keep(tmp_path / "s").states.clone()
    path = tmp_path / "s" / "states.safetensors"
    head = path.stat().st_size - truth.numel() * 4
    with path.open("r+b") as file:
        file.seek(head)
        file.write(bytes(truth.numel() * 4))  # no batch has its checksum
    refused = []

    def another():
        with pytest.raises(InputError, match="folder: another run is writing its states into"):
            keep(tmp_path / "s")
        refused.append(True)

    assert torch.equal(keep(tmp_path / "s", progress=Meanwhile(another)).states, truth)
    assert refused == [True]
    assert torch.equal(open_store(tmp_path / "s").states, truth)


def test_hooks_that_steer_have_no_key(tmp_path):
    model, plain = make("llama"), keep(tmp_path / "plain", model=make("llama")).states

    def steer(module, inputs, output, by):
        return output + by

    hook = model.model.layers[1].register_forward_hook(partial(steer, by=1.0))
    with pytest.raises(InputError, match=r"hooks whose .* no key: .*steer on layers\.1; take them"):
        keep(tmp_path / "steered", model=model)
    assert not (tmp_path / "steered").exists()
    hook.remove()
    model.enable_input_require_grads()  # a hook of transformers
    with tap(model):
        assert torch.equal(keep(tmp_path / "again", model=model).states, plain)
