"""Scans on a real local Ray cluster, with workers killed under way."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
            if "ray::ray_job" in " ".join(process.cmdline()):
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
KILLS = 6


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
