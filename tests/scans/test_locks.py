"""Locks on files that come and go, and what they protect in a results folder."""

import fcntl

import pytest

from ilo_fast.scans.dataset import Dataset
from ilo_fast.scans.locks import locked


@pytest.mark.parametrize("replaced", [False, True])
def test_a_lock_on_a_file_that_is_gone_is_taken_anew(tmp_path, monkeypatch, replaced):
    """As when its holder removed it between the opening and the locking here."""
    path, flock, gone = tmp_path / "locks" / "a.lock", fcntl.flock, []

    def late(file, how):
        flock(file, how)
        if not gone:
            gone.append(path.rename(tmp_path / "was"))
            if replaced:
                path.touch()

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(path) as mine:
        assert mine
        with locked(path) as another:
            assert not another
        assert path.exists()
    assert not path.exists()


def test_what_dead_scans_left_goes_and_what_living_ones_use_stays(tmp_path):
    work, locks = tmp_path / ".work", tmp_path / ".locks"
    with Dataset(tmp_path, create=True):
        living = set(work.iterdir())
        for folder in (work / "dead", locks):
            folder.mkdir()
        for left in (work / "dead.lock", work / "dead" / "x.part", locks / "job.lock"):
            left.touch()
        with locked(locks / "claimed.lock"), Dataset(tmp_path):
            assert living < set(work.iterdir())
            assert not {work / "dead", work / "dead.lock"} & set(work.iterdir())
            assert [path.name for path in locks.iterdir()] == ["claimed.lock"]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
