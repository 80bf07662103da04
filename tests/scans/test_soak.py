"""200 random kills in all: 197 here, of the process or in the middle of a write; 3 of Ray workers
in test_ray.py. ILO_FAST_SOAK=N multiplies those here."""

import json
import os
import subprocess
import sys
from pathlib import Path

TIMES = int(os.environ.get("ILO_FAST_SOAK", "1"))
KILLS, WRITE_KILLS = 152, 45


def test_kills_lose_and_duplicate_nothing(tmp_path):
    script = Path(__file__).parent.parent / "support" / "soak.py"
    done = subprocess.run(
        [sys.executable, script, tmp_path, str(KILLS * TIMES), str(WRITE_KILLS * TIMES), "8"],
        capture_output=True,
        text=True,
        timeout=900 * TIMES,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    counts = json.loads(done.stdout.splitlines()[-1])
    print(counts)  # noqa: T201
    assert counts["kills"] >= KILLS
    assert counts["write_kills"] >= WRITE_KILLS
    assert counts["rounds"] >= 5  # the table was whole, and compared, that often in between
    assert counts["pairs"] >= 10  # two scans of one folder at once
    assert counts["rows"] == {"scores": 64, "layers": 16, "pairs": 256, "failures": 2}
