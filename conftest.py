"""Which modules of the package cannot be read for doctests here.

A module that imports an optional package is skipped, with its name, where that is not installed
(``--doctest-ignore-import-errors``); those listed here raise an error of their own instead.
"""

from importlib.util import find_spec

collect_ignore = []
if not (find_spec("lightning") or find_spec("pytorch_lightning")):
    collect_ignore.append("ilo_fast/finetune/lightning.py")
