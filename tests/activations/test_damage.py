"""Damage to a folder of states is noticed and named, and mended where the model is at hand."""

import json
import os
import shutil
import zlib

import pytest
import torch
from families import make
from folders import CORPUS, keep

from ilo_fast.activations import open_store
from ilo_fast.activations.journal import beginning, read_journal
from ilo_fast.errors import InputError
from ilo_fast.sources import read_sources


def test_states_cut_short_are_damaged(tmp_path):
    keep(tmp_path / "s")
    whole = tmp_path / "s" / "states.safetensors"
    size = whole.stat().st_size
    with whole.open("r+b") as file:
        file.truncate(size - 100)
    message = rf"states.safetensors in .*s is damaged \(it has {size - 100} bytes, .* take {size}\)"
    for use in (keep, open_store):
        with pytest.raises(InputError, match=message):
            use(tmp_path / "s")


@pytest.mark.parametrize("place", [0, 7, 15])
def test_a_damaged_head_is_named(tmp_path, place):
    keep(tmp_path / "s")
    with (tmp_path / "s" / "states.safetensors").open("r+b") as file:
        file.seek(place)
        file.write(b"\x01")
    for use in (keep, open_store):
        with pytest.raises(InputError, match=r"is damaged \(its head is not that of store\.json\)"):
            use(tmp_path / "s")


def test_layers_named_otherwise_than_the_states_are_damage(tmp_path):
    keep(tmp_path / "s", layers=[0, 3])
    path = tmp_path / "s" / "store.json"
    stored = json.loads(path.read_text())
    stored["key"]["layers"] = [3, 0]
    path.write_text(json.dumps(stored))
    with pytest.raises(InputError, match=r"its head is not that of store\.json"):
        open_store(tmp_path / "s")


@pytest.mark.parametrize("content", ['{"key": {"m', "[]", '{"key": {}}', '{"key": 1, "budget": 2}'])
def test_a_damaged_folder_is_named(tmp_path, content):
    keep(tmp_path / "s")
    (tmp_path / "s" / "store.json").write_text(content)
    with pytest.raises(InputError, match=r"folder: store.json in .*s is damaged \("):
        keep(tmp_path / "s")
    with pytest.raises(InputError, match=r"folder: store.json in .*s is damaged \("):
        open_store(tmp_path / "s")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shape", None), ("shape", [3, 12]), ("shape", [3, 12.0, 32]), ("shape", [3, -12, 32]),
        ("layers", [0, 1, 2, -1]), ("layers", [0, 1, 1, 2]), ("languages", ["one", "one"]),
        ("layers", "0,1"), ("layers", [0, 1]), ("layers", [0, 1, 2, [3]]),
        ("languages", []), ("languages", {"one": 1}), ("languages", ["one", 2]),
        ("languages", ["one", "two", "three", "four", "five"]), ("model", 7), ("corpus", None),
    ],
)  # fmt: skip
def test_a_key_that_cannot_be_is_named(tmp_path, field, value):
    keep(tmp_path / "s")
    path = tmp_path / "s" / "store.json"
    stored = json.loads(path.read_text())
    stored["key"][field] = value
    path.write_text(json.dumps(stored))
    with pytest.raises(InputError, match=r"folder: store.json in .*s is damaged \("):
        open_store(tmp_path / "s")
    with pytest.raises(InputError, match=f"they differ in {field}"):
        keep(tmp_path / "s")


@pytest.mark.parametrize("budget", [None, "70", 70.5, 0, True])
def test_a_budget_that_cannot_be_is_named(tmp_path, budget):
    keep(tmp_path / "s")
    path = tmp_path / "s" / "store.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "budget": budget}))
    with pytest.raises(InputError, match="its budget must be a whole number above 0"):
        keep(tmp_path / "s")


def test_a_shape_beyond_all_numbers_is_named(tmp_path):
    keep(tmp_path / "s")
    path = tmp_path / "s" / "store.json"
    stored = json.loads(path.read_text())
    stored["key"]["shape"][1] *= 10**20
    path.write_text(json.dumps(stored))
    with pytest.raises(InputError, match=r"is damaged \(it has \d+ bytes, its states take \d+\)"):
        open_store(tmp_path / "s")


@pytest.mark.parametrize("name", ["record.json", "journal.jsonl"])
def test_a_pipe_is_no_file_of_a_folder(tmp_path, name):
    keep(tmp_path / "s")
    (tmp_path / "s" / name).unlink()
    os.mkfifo(tmp_path / "s" / name)
    with pytest.raises(InputError, match=rf"{name}' is a pipe or a device"):
        open_store(tmp_path / "s")
    if name == "journal.jsonl":  # a run could not write into it
        with pytest.raises(InputError, match=rf"{name}' is a pipe or a device"):
            keep(tmp_path / "s")


def test_a_damaged_record_is_named(tmp_path):
    keep(tmp_path / "s")
    (tmp_path / "s" / "record.json").write_bytes(b"\xff\x00")
    for use in (keep, open_store):
        with pytest.raises(InputError, match=r"folder: record.json in .*s is damaged \("):
            use(tmp_path / "s")


def test_a_damaged_batch_of_a_finished_folder_is_made_again(tmp_path, ran):
    truth = keep(tmp_path / "s").states.clone()
    path = tmp_path / "s" / "states.safetensors"
    data = bytearray(path.read_bytes())
    data[-4:] = b"\x00\x00\x80\x7f"  # an infinity in the last vector
    path.write_bytes(data)
    ran.clear()
    assert torch.equal(keep(tmp_path / "s").states, truth)
    assert len(ran) == 1
    ran.clear()
    assert torch.equal(keep(tmp_path / "s").states, truth)
    assert ran == []


def spoil_one_number(folder):
    path = folder / "states.safetensors"
    data = bytearray(path.read_bytes())
    data[-5000] ^= 1  # a finite state that is not quite the model's
    path.write_bytes(data)


def test_opening_notices_one_wrong_bit(tmp_path):
    truth = keep(tmp_path / "s").states.clone()
    assert torch.equal(open_store(tmp_path / "s").states, truth)
    spoil_one_number(tmp_path / "s")
    damaged = r"states.safetensors in .*s is damaged: the states at places \d+ to \d+ do not have"
    with pytest.raises(InputError, match=damaged + r".*`ilo-fast score --states`, or `extract`"):
        open_store(tmp_path / "s")
    with pytest.raises(InputError, match=damaged):
        read_sources(tmp_path / "s")
    keep(tmp_path / "s")
    assert torch.equal(open_store(tmp_path / "s").states, truth)


def test_batches_made_again_in_other_pieces_open(tmp_path):
    """The journal's old line of a damaged batch does not count where its parts have theirs."""
    truth = keep(tmp_path / "s").states.clone()
    journal = tmp_path / "s" / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    begin = beginning(json.loads((tmp_path / "s" / "store.json").read_text())["key"])
    long = next(line for line in lines if line["stop"] - line["start"] > 1)
    middle = (long["start"] + long["stop"]) // 2
    with journal.open("a") as file:
        for start, stop in ((long["start"], middle), (middle, long["stop"])):
            points = long["points"][start - long["start"] : stop - long["start"]]
            block = truth[:, points].numpy().tobytes()
            checksum = zlib.crc32(block, begin)
            line = {"start": start, "stop": stop, "points": points, "crc32": checksum}
            file.write(json.dumps(line) + "\n")
    journal.write_text(journal.read_text().replace(str(long["crc32"]), "0"))
    assert torch.equal(open_store(tmp_path / "s").states, truth)


@pytest.mark.parametrize(
    "line",
    [
        None, "mine", "[]", "7", "[" * 100_000, '{"start": 0, "stop": 1, "crc32": 2}',
        '{"start": 0, "stop": 1, "points": 0, "crc32": 2}',
        '{"start": 0.0, "stop": 12.0, "points": [0, 1, 2], "crc32": 2}',
        '{"start": null, "stop": {}, "points": [[]], "crc32": "x"}',
        '{"start": 0, "stop": 1, "points": [1e400], "crc32": 2}',
        '{"start": 0, "stop": 1, "points": [' + "9" * 30 + '], "crc32": 2}',
        '{"start": 0, "stop": 0, "points": [], "crc32": 0}',
        '{"start": 0, "stop": 1, "points": [0], "crc32": 2, "more": 1}',
    ],
)  # fmt: skip
def test_a_journal_that_says_nothing_proves_nothing(tmp_path, line):
    truth = keep(tmp_path / "s").states.clone()
    journal = tmp_path / "s" / "journal.jsonl"
    journal.unlink() if line is None else journal.write_text(line + "\n")
    assert read_journal(tmp_path / "s", CORPUS.n_points) == ([], False)
    with pytest.raises(InputError, match=rf"places 0 to {CORPUS.n_points - 1} do not have"):
        open_store(tmp_path / "s")
    again = keep(tmp_path / "s")
    assert again.record["states"] == "made"
    assert torch.equal(open_store(tmp_path / "s").states, truth)


def test_a_line_damaged_into_other_places_hides_none(tmp_path):
    """Made again, the states are right, whatever the damaged line says of other batches' places."""
    truth = keep(tmp_path / "s").states.clone()
    journal = tmp_path / "s" / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    last = lines[-1]
    moved = last["stop"] - last["start"]
    last["start"], last["stop"], last["points"][0] = 0, moved, lines[0]["points"][0]
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError, match="do not have their checksum"):
        open_store(tmp_path / "s")
    assert torch.equal(keep(tmp_path / "s").states, truth)
    assert torch.equal(open_store(tmp_path / "s").states, truth)


def test_a_line_with_a_wrong_point_is_written_again(tmp_path):
    """The states are right, but only the line can say so to who opens the folder."""
    truth = keep(tmp_path / "s").states.clone()
    journal = tmp_path / "s" / "journal.jsonl"
    first, *rest = journal.read_text().splitlines()
    spoiled = json.loads(first)
    spoiled["points"][0] = json.loads(rest[-1])["points"][0]
    journal.write_text("\n".join([json.dumps(spoiled), *rest]) + "\n")
    with pytest.raises(InputError, match="do not have their checksum"):
        open_store(tmp_path / "s")
    keep(tmp_path / "s")
    assert torch.equal(open_store(tmp_path / "s").states, truth)


def test_points_twice_in_a_journal_are_damage(tmp_path):
    keep(tmp_path / "s")
    journal = tmp_path / "s" / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    sizes = [line["stop"] - line["start"] for line in lines]
    one, two = next((a, b) for a in range(len(lines)) for b in range(a) if sizes[a] == sizes[b])
    lines[one] = {**lines[two], "start": lines[one]["start"], "stop": lines[one]["stop"]}
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError, match=rf"places 0 to {CORPUS.n_points - 1} do not have"):
        open_store(tmp_path / "s")


def test_a_journal_of_points_that_are_not_there_is_damaged(tmp_path):
    keep(tmp_path / "s")
    journal = tmp_path / "s" / "journal.jsonl"
    first, *rest = journal.read_text().splitlines()
    spoiled = json.loads(first)
    for point in (-1, CORPUS.n_points, 0.5, "0"):
        spoiled["points"][0] = point
        journal.write_text("\n".join([json.dumps(spoiled), *rest]) + "\n")
        with pytest.raises(InputError, match=rf"places 0 to {spoiled['stop'] - 1} do not have"):
            open_store(tmp_path / "s")


def test_states_and_journal_of_another_folder_are_noticed(tmp_path):
    """Of one shape, they fit each other and the folder's sizes, but not its key."""
    other = make("llama")
    with torch.no_grad():
        other.get_input_embeddings().weight.mul_(-1.0)
    wrong = keep(tmp_path / "other", model=other).states.clone()
    truth = keep(tmp_path / "s").states.clone()
    assert not torch.equal(truth, wrong)
    for name in ("states.safetensors", "journal.jsonl"):
        shutil.copy(tmp_path / "other" / name, tmp_path / "s" / name)
    with pytest.raises(InputError, match="do not have their checksum"):
        open_store(tmp_path / "s")
    again = keep(tmp_path / "s")
    assert (again.record["states"], torch.equal(again.states, truth)) == ("made", True)
    assert torch.equal(open_store(tmp_path / "s").states, truth)


def test_states_of_an_earlier_format_are_named(tmp_path):
    keep(tmp_path / "s")
    path = tmp_path / "s" / "store.json"
    stored = json.loads(path.read_text())
    stored["key"]["format"] = 3
    path.write_text(json.dumps(stored))
    with pytest.raises(InputError, match="states of format 3, this version reads format 4"):
        open_store(tmp_path / "s")
    with pytest.raises(InputError, match="they differ in format"):
        keep(tmp_path / "s")
