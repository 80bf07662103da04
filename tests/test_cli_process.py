"""The installed command as a process: signals, pipes, exit status."""

import signal
import subprocess
import sys
from pathlib import Path

COMMAND = Path(sys.executable).with_name("ilo-fast")


def start(*arguments, **options):
    return subprocess.Popen(
        [COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_ctrl_c_ends_with_130_and_one_line(tiny_model, corpus_folder, tmp_path):
    out = tmp_path / "out"
    with start("score", tiny_model, "--corpus", corpus_folder, "--out", out) as process:
        assert process.stderr.readline().startswith("Loading")
        process.send_signal(signal.SIGINT)
        shown, said = process.communicate(timeout=60)
    assert (process.returncode, shown) == (130, ""), said
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("ilo-fast: interrupted")
    assert not out.exists()


def test_the_package_is_the_command_too():
    module = [sys.executable, "-m", "ilo_fast", "--version"]
    assert subprocess.check_output(module) == subprocess.check_output([COMMAND, "--version"])


def test_a_reader_that_goes_away(tmp_path):
    with start("env") as process:
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 1
    assert said == ""
