"""Files appear whole or not at all."""

import errno
import os
import re
import tempfile

import pytest
from tables import make_result

from ilo_fast.activations import open_store
from ilo_fast.corpora import load_corpus
from ilo_fast.errors import InputError
from ilo_fast.files import staged, write_text
from ilo_fast.results import Result
from ilo_fast.sources import read_sources


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


def test_a_folder_made_for_nothing_goes_again(tmp_path):
    with staged(tmp_path / "new" / "folder"):
        pass
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(KeyboardInterrupt), staged(tmp_path / "mine" / "folder"):
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert list((tmp_path / "mine").iterdir()) == []
    with pytest.raises(KeyboardInterrupt), staged(tmp_path / "mine"):
        raise KeyboardInterrupt
    assert (tmp_path / "mine").is_dir()


def test_a_folder_that_another_process_takes_away_is_made_again(tmp_path, monkeypatch):
    """As one does that made it at the same time, and had nothing to write yet."""
    make, taken = tempfile.mkdtemp, []

    def late(prefix, dir):
        if not taken:
            taken.append(dir)
            dir.rmdir()
            dir.parent.rmdir()
        return make(prefix=prefix, dir=dir)

    monkeypatch.setattr(tempfile, "mkdtemp", late)
    with staged(tmp_path / "new" / "folder") as temporary:
        (temporary / "a").write_text("1")
    assert (tmp_path / "new" / "folder" / "a").read_text() == "1"
    assert len(taken) == 1
    monkeypatch.setattr(tempfile, "mkdtemp", lambda prefix, dir: dir.rmdir() or make(dir=dir))
    with pytest.raises(FileNotFoundError), staged(tmp_path / "other"):
        pass


def test_a_disk_that_fills_at_the_flush(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"), staged(tmp_path) as temporary:
        (temporary / "a").write_text("all of it")
    assert list(tmp_path.iterdir()) == []


def test_obsolete_files_go_when_the_block_ends_well(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text("old")
    (tmp_path / "d").mkdir()
    obsolete = ("a", "b", "d", "never there")
    with pytest.raises(KeyboardInterrupt), staged(tmp_path, obsolete=obsolete):
        raise KeyboardInterrupt
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c", "d"]
    with staged(tmp_path, obsolete=obsolete) as temporary:
        (temporary / "a").write_text("new")
    assert (tmp_path / "a").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c", "d"]


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    """In a scan's plan and a model it was; pandas took it for that within a folder called "~"."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.chdir(here)
    write_text(home / "text" / "a.txt", "one\ntwo\n")
    write_text(home / "text" / "b.txt", "eins\nzwei\n")
    assert load_corpus("~/text").languages == ("a", "b")
    result = make_result()
    assert {path.parent for path in result.save("~/out", plots=False)} == {home / "out"}
    assert result.write_csv("~/new/t.csv") == home / "new" / "t.csv"
    assert len(Result.read_parquet("~/out/scores.parquet").table) == len(result.table)
    assert len(read_sources("~/out")) == 1
    store = home / "states"
    with pytest.raises(InputError, match=re.escape(f"there is no folder {store}")):
        open_store("~/states")
    assert list(here.iterdir()) == []
