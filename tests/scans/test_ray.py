"""Scans on a real local Ray cluster, with workers killed under way."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ilo_fast.errors import InputError
from ilo_fast.scans.engines import RayEngine

SCRIPT = """
import json, random, sys, threading, time
from pathlib import Path
sys.path.insert(0, {support!r})
import psutil
from soak import check_clean, make_plan, same, tables
from ilo_fast.scans import scan
from ilo_fast.scans.engines import RayEngine
from ilo_fast.scans.view import PlainView

folder, goal = Path(sys.argv[1]), int(sys.argv[2])
plan = make_plan(folder)
killed, over, generator = [], threading.Event(), random.Random(4)

def busy_workers():
    for process in psutil.Process().children(recursive=True):
        try:
            if "ray::run_job" in " ".join(process.cmdline()):
                yield process
        except psutil.Error:
            continue

def kill_some():
    while not over.is_set() and len(killed) < goal:
        for process in busy_workers():
            time.sleep(generator.uniform(0, 0.3))
            try:
                process.kill()
                killed.append(process.pid)
            except psutil.Error:
                pass
            if len(killed) >= goal:
                break
        time.sleep(0.02)

killer = threading.Thread(target=kill_some)
engine = RayEngine(workers=2, retries=50)
killer.start()
summary = scan(plan, results=folder / "ray", engine=engine, view=PlainView())
over.set()
killer.join()
again = scan(plan, results=folder / "ray", engine="local", view=PlainView(), retry_failures=False)
scan(plan, results=folder / "local", view=PlainView())
same(tables(folder / "ray"), tables(folder / "local"))
check_clean(folder / "ray")
print(json.dumps({{
    "killed": len(killed), "computed": summary.computed, "failed": summary.failed,
    "again": [again.computed, again.failed, again.skipped],
}}))
"""
KILLS = 3


def test_an_address_where_nothing_listens_is_said_at_once(monkeypatch):
    """Ray tries for minutes, then ends the process."""
    pytest.importorskip("ray", reason="needs the extra 'ray': make test")
    monkeypatch.setattr("ray.init", lambda **options: pytest.fail("Ray tries for minutes"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    began = time.monotonic()
    for address in (f"127.0.0.1:{port}", f"localhost:{port}", f"ray://127.0.0.1:{port}"):
        with pytest.raises(InputError, match=f"^address: nothing listens at {address} "):
            RayEngine(address)
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    with pytest.raises(InputError, match=f"nothing listens at 127.0.0.1:{port}"):
        RayEngine("auto")
    with pytest.raises(InputError, match=r"expected host:port, got '127\.0\.0\.1:99999'"):
        RayEngine("127.0.0.1:99999")
    assert time.monotonic() - began < 20


def test_an_engine_without_an_address_starts_a_cluster_of_its_own(monkeypatch):
    pytest.importorskip("ray", reason="needs the extra 'ray': make test")
    asked = []
    monkeypatch.setattr("ray.init", lambda **options: asked.append(options))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    RayEngine(workers=2)
    assert (asked[0]["address"], asked[0]["num_cpus"]) == ("local", 2)


def test_workers_die_and_the_table_is_the_same(tmp_path):
    pytest.importorskip("ray", reason="needs the extra 'ray': make test")
    script = SCRIPT.format(support=str(Path(__file__).parent.parent / "support"))
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path, str(KILLS)],
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts == {"killed": KILLS, "computed": 4, "failed": 2, "again": [0, 0, 6]}
