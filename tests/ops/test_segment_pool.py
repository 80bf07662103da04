"""segment_pool against float64 NumPy; the Triton kernel under the interpreter, in a process."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ilo_fast.ops.segment_pool import MODES, segment_pool, segment_pool_torch


def truth(states, offsets, mode):
    rows = []
    for first, end in itertools.pairwise(offsets):
        part = states[first:end].astype(np.float64)
        if mode == "mean":
            rows.append(part.mean(0))
        elif mode == "last":
            rows.append(part[-1])
        else:
            weights = np.arange(1, len(part) + 1, dtype=np.float64)
            rows.append((part * weights[:, None]).sum(0) / weights.sum())
    return np.stack(rows)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    dim=st.integers(1, 33),
    mode=st.sampled_from(MODES),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
    seed=st.integers(0, 99),
)
def test_equals_float64(lengths, dim, mode, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(sum(lengths), dim, generator=generator).mul(50).to(dtype)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    pooled = segment_pool(states, torch.from_numpy(offsets), mode)
    assert pooled.dtype == torch.float32
    assert pooled.shape == (len(lengths), dim)
    expected = truth(states.double().numpy(), offsets, mode)
    np.testing.assert_allclose(pooled.numpy(), expected, rtol=2.0**-23, atol=1e-11)
    plain = segment_pool_torch(states, torch.from_numpy(offsets), mode)
    np.testing.assert_allclose(plain.numpy(), expected, rtol=2e-6, atol=1e-4)


def test_long_sums_do_not_stop():
    # A bfloat16 or float16 running sum of ones would stop at 256 or 2,048, one of float32 here too.
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        states = torch.full((4097, 3), 1.0, dtype=dtype)
        states[0] = 65504 * 512 if dtype == torch.float32 else 0.5
        states[-1] = 0 if dtype == torch.float32 else 0.5
        for mode in ("mean", "weighted"):
            pooled = segment_pool(states, torch.tensor([0, 4097]), mode)
            expected = truth(states.double().numpy(), [0, 4097], mode)
            np.testing.assert_array_equal(pooled.numpy(), expected.astype(np.float32))


def test_strided_states():
    wide = torch.randn(20, 12)
    offsets = torch.tensor([0, 7, 20])
    for mode in MODES:
        strided = segment_pool(wide[:, ::3], offsets, mode)
        torch.testing.assert_close(strided, segment_pool(wide[:, ::3].contiguous(), offsets, mode))


def test_sentence_without_tokens_is_nan():
    states = torch.ones(3, 2)
    for mode in MODES:
        pooled = segment_pool(states, torch.tensor([0, 3, 3]), mode)
        assert pooled[0].tolist() == [1, 1]
        assert pooled[1].isnan().all()
        assert segment_pool(states[:0], torch.tensor([0]), mode).shape == (0, 2)


def test_nan_stays_in_its_sentence():
    states = torch.ones(6, 2)
    states[4] = float("nan")
    for mode in ("mean", "weighted"):
        pooled = segment_pool(states, torch.tensor([0, 3, 6]), mode)
        assert pooled[0].isfinite().all()
        assert pooled[1].isnan().all()


def test_operator_is_well_registered():
    for mode in MODES:
        arguments = (torch.randn(6, 4), torch.tensor([0, 2, 6]), mode)
        torch.library.opcheck(torch.ops.ilo_fast.segment_pool.default, arguments)


INTERPRETED = """
import torch
from ilo_fast.ops.segment_pool import launch, segment_pool_torch
torch.manual_seed(0)
for lengths, dim in [([1], 1), ([16, 17, 33, 1], 130), ([5, 40, 2], 128)]:
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    for dtype in (torch.float32, torch.float16):  # bfloat16 is wrong in the interpreter
        wide = torch.randn(sum(lengths), dim + 3).mul(30).to(dtype)
        for states in (wide[:, :dim].contiguous(), wide[:, :dim]):
            for mode in ("mean", "weighted"):
                ours = launch(states, offsets, mode)
                plain = segment_pool_torch(states, offsets, mode)
                torch.testing.assert_close(ours, plain, rtol=2e-6, atol=2e-5)
print("equal")
"""


def test_kernel_in_the_interpreter():
    pytest.importorskip("triton", reason="Triton has no wheel for this platform")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", INTERPRETED],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
        check=False,
    )
    assert run.stdout.strip() == "equal", run.stderr[-2000:]


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device: python -m benchmarks gpu"
)
def test_kernel_on_the_device():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 120, (300,), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        states = torch.randn(int(offsets[-1]), 576, generator=generator).to(dtype)
        for mode in MODES:
            ours = segment_pool(states.cuda(), offsets.cuda(), mode).cpu().double().numpy()
            expected = truth(states.double().numpy(), offsets.numpy(), mode)
            np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)
