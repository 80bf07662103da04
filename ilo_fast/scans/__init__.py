"""Scans: many models and checkpoints on many corpora, one folder of results."""

from ilo_fast.errors import InputError

try:
    import pydantic as _pydantic
    import yaml as _yaml
except ImportError as error:
    raise InputError(
        f"scans need {error.name}; install it with: pip install 'ilo-fast[scan]'"
    ) from error

from ilo_fast.scans.plan import Plan, read_plan
from ilo_fast.scans.query import connect, query, read_table
from ilo_fast.scans.run import ScanSummary, scan

__all__ = ["Plan", "ScanSummary", "connect", "query", "read_plan", "read_table", "scan"]

del _pydantic, _yaml
