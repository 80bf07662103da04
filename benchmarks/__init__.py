"""Benchmarks: ``python -m benchmarks cpu``. Verify first, then time, peers in the same run."""
