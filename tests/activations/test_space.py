"""Room in memory, as a container's limit and its kernel's counts tell it."""

import pytest
import torch

from ilo_fast.activations import space

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("limit", "free"),
    [
        ("1000000", 1_000_000 - 900_000 + 700_000),  # the cache of files read goes when asked for
        ("max", 5_000_000),
        (None, 5_000_000),
    ],
)
def test_what_a_containers_limit_leaves(tmp_path, monkeypatch, limit, free):
    monkeypatch.setattr(space, "_GROUP", tmp_path)
    monkeypatch.setattr(space, "_host_free", lambda: 5_000_000)
    if limit is not None:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text("900000\n")
    (tmp_path / "memory.stat").write_text("anon 150000\nfile 750000\ninactive_file 700000\n")
    assert space.free_memory(CPU) == free


def test_what_torch_keeps_on_a_card_is_free(monkeypatch):
    """So that a run's batches and its store are those of a process that did nothing before it."""
    for name, held in (("memory_reserved", 700), ("memory_allocated", 300)):
        monkeypatch.setattr(torch.cuda, name, lambda device, held=held: held)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5000, 8000))
    assert space.free_memory(torch.device("cuda", 0)) == 5400


@pytest.mark.parametrize(
    ("count", "said"),
    [(999, "999 bytes"), (1000, "1.0 kB"), (3_140_000_000, "3.1 GB"), (5 * 10**15, "5000.0 TB")],
)
def test_bytes_for_people(count, said):
    assert space.human(count) == said
