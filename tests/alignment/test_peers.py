"""Ours against the public code of the papers, on the same points."""

import numpy as np
import peers
import pytest

from ilo_fast.alignment import pair_scores

pytestmark = pytest.mark.adapters


@pytest.fixture(params=[0.6, 1.2, 2.0, "real"])
def languages(request):
    """Two languages' hidden states of parallel sentences [2, S, d], from easy to hard to match."""
    if request.param == "real":
        states, names, _ = peers.real_states()
        chosen = list(dict.fromkeys(names.tolist()))[:2]
        return np.stack([states[len(states) // 2][names == name] for name in chosen])
    generator = np.random.default_rng(0)
    shared = generator.normal(size=(100, 32)) + 3
    noise = request.param * generator.normal(size=(2, 100, 32))
    return (shared + noise).astype(np.float32)


def ours(languages):
    _, count, d = languages.shape
    labels = np.repeat(["a", "b"], count)
    return pair_scores(languages.reshape(-1, d), labels, [*range(count)] * 2)


@pytest.mark.parametrize("margin", ["ratio", "distance", "absolute"])
def test_laser_xsim(languages, margin):
    theirs = peers.laser_xsim()
    got = ours(languages)
    for source, target in ((0, 1), (1, 0)):
        x, y = languages[source].copy(), languages[target].copy()  # it scales them in place
        errors, count, _ = theirs.xSIM(x, y, margin=margin, k=4)
        assert count == len(x)
        place = (0, source, target)
        value = (
            1 - got.retrieval[place]
            if margin == "absolute"
            else getattr(got, f"xsim_{margin}")[place]
        )
        assert value == pytest.approx(errors / count)


def test_mexa(languages):
    theirs = peers.mexa_code()
    similarity = np.array(
        [[theirs.cosine_similarity(x, y) for y in languages[1]] for x in languages[0]]
    )
    assert ours(languages).mexa[0, 0, 1] == pytest.approx(theirs.mexa(similarity))
