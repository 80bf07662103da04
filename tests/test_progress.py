"""What a run says while it works."""

import io

import pytest
from rich.console import Console

from ilo_fast import progress as module
from ilo_fast.progress import PlainProgress, RichProgress, make_progress


def test_plain_lines_give_rate_and_time_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    progress = PlainProgress(stream, every=5)
    progress.stage("Forward pass")
    progress.start(1000)
    now[0] += 4
    progress.advance(100, 4)  # too soon to say more
    now[0] += 4
    progress.advance(100, 4)
    now[0] += 2
    progress.advance(800, 32)
    progress.finish()
    assert stream.getvalue().splitlines() == [
        "Forward pass",
        "  200 of 1,000 tokens, 25 tokens/s, 32 s left",
        "  1,000 tokens, 40 sentences in 10.0 s, 100 tokens/s",
    ]


def test_what_an_earlier_run_kept_has_no_rate(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    progress = PlainProgress(stream, every=2)
    for ran in (100, 0):
        progress.start(1000)
        now[0] += 2
        progress.skip(1000 - ran, 40)
        if ran:
            progress.advance(ran, 5)
        progress.finish()
    assert stream.getvalue().splitlines() == [
        "  100 of 100 tokens, 50 tokens/s, 0 s left",
        "  100 tokens, 5 sentences in 2.0 s, 50 tokens/s",
        "  40 sentences were there already, read in 2.0 s",
        "  40 sentences were there already, read in 2.0 s",
    ]
    bar = io.StringIO()
    with RichProgress(Console(file=bar, force_terminal=True, width=120)) as shown:
        shown.start(1000)
        shown.skip(900, 40)
        shown.advance(100, 5)
    assert "100/100" in bar.getvalue()


def test_a_single_sentence_is_no_plural():
    progress = PlainProgress(stream := io.StringIO(), every=1e9)
    progress.start(2)
    progress.skip(1, 1)
    progress.advance(1, 1)
    progress.finish()
    ran, kept = stream.getvalue().splitlines()
    assert ran.startswith("  1 token, 1 sentence in ")
    assert kept.startswith("  1 sentence was there already, ")


def test_the_live_bar_shows_tokens_and_is_taken_down():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120)
    with RichProgress(console) as progress:
        progress.stage("Forward pass")
        progress.start(1000)
        progress.advance(250, 10)
        progress.advance(750, 30)
        progress.finish()
        progress.layer(1, 2)
    shown = stream.getvalue()
    assert "1000/1000" in shown
    assert "tokens" in shown
    assert "time left" in shown
    assert shown.rstrip().endswith("\x1b[?25h")  # the cursor is back after the unfinished bar


def test_not_a_terminal(capsys):
    assert type(make_progress()) is PlainProgress
    quiet = make_progress(quiet=True)
    quiet.stage("x")
    quiet.start(3)
    quiet.advance(3, 1)
    quiet.finish()
    assert capsys.readouterr().err == ""


def test_what_is_made_here_is_closed_whatever_happens(monkeypatch):
    closed = []

    class Shown(module.Progress):
        def close(self):
            closed.append(self)

    monkeypatch.setattr(module, "make_progress", lambda quiet: Shown())

    @module.with_progress
    def fails(number, *, progress=None):
        assert isinstance(progress, Shown)
        raise ZeroDivisionError(number)

    with pytest.raises(ZeroDivisionError, match="7"):
        fails(7, progress=True)
    assert len(closed) == 1
    assert module.with_progress(lambda *, progress=None: progress)(progress=None) is None
