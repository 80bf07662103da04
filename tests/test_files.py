"""Files appear whole or not at all."""

import errno
import os

import pytest

from ilo_fast.files import staged


def test_files_appear_together(tmp_path):
    with staged(tmp_path / "new" / "folder") as temporary:
        (temporary / "a").write_text("1")
        (temporary / "b").write_text("2")
        assert [p.name for p in (tmp_path / "new" / "folder").glob("[ab]")] == []
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == ["a", "b"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_an_error_changes_nothing(tmp_path, error):
    (tmp_path / "a").write_text("old")

    def write():
        with staged(tmp_path) as temporary:
            (temporary / "a").write_text("half")
            (temporary / "b").write_text("half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "old"}


def test_a_disk_that_fills_at_the_flush(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"), staged(tmp_path) as temporary:
        (temporary / "a").write_text("all of it")
    assert list(tmp_path.iterdir()) == []
