"""Memory over a long corpus: what a run holds does not grow with its sentences."""

import subprocess
import sys
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parents[1] / "support"

# In a process of its own: prints the growth of its anonymous memory, in MiB, while extract() runs.
SCRIPT = """
import sys, threading, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tiny import save_tiny_model
from ilo_fast import Corpus, extract
from ilo_fast.models import load_model

def held():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024

def sentence(number):
    words = "one two three four five six seven eight nine ten".split()
    return " ".join(words[number // 10**place % 10] for place in range(3))

folder, count = Path(sys.argv[2]), int(sys.argv[3])
loaded = load_model(str(save_tiny_model(folder / "model")), device="cpu", dtype="float32")
sentences = tuple(sentence(number) for number in range(count // 2))
corpus = Corpus("long", ("eng_Latn", "deu_Latn"), (sentences, sentences))
before, most, done = held(), [0.0], threading.Event()

def watch():
    while not done.wait(0.02):
        most[0] = max(most[0], held())

watching = threading.Thread(target=watch)
watching.start()
store = extract(
    loaded.model, loaded.tokenizer, corpus, store="disk", folder=folder / "states",
    batch_tokens=8192,
)
done.set()
watching.join()
assert store.states.shape[1] == count
print(most[0] - before)
"""


@pytest.mark.models  # a minute and a half
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
def test_a_million_sentences_stream_in_constant_memory(tmp_path):
    growth = {}
    for count in (50_000, 1_000_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(SUPPORT), str(folder), str(count)],
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        growth[count] = float(done.stdout.split()[-1])
    # The states alone are 512 MB; the journal and the checksums known may take a few.
    assert growth[1_000_000] < growth[50_000] + 48
    assert growth[1_000_000] < 160
