# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
CONSTRAINTS := constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-models test-adapters test-oldest lint format bench clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(VENV)/python.stamp:
	$(PYTHON) -c 'import sys; sys.exit("ilo_fast needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/demo.stamp: $(VENV)/python.stamp pyproject.toml $(CONSTRAINTS)
	$(PIP) install --quiet -c $(CONSTRAINTS) -e '.[demo]'
	@touch $@

$(VENV)/test.stamp: $(VENV)/python.stamp pyproject.toml $(CONSTRAINTS)
	$(PIP) install --quiet -c $(CONSTRAINTS) -e '.[test]'
	@touch $@

demo: $(VENV)/demo.stamp  ## score a real model on the built-in corpus, into ilo-demo/
	$(BIN)/ilo-fast demo

test: $(VENV)/test.stamp  ## run the tests (ARGS= for pytest's options)
	$(BIN)/python -m pytest $(ARGS)

test-models: $(VENV)/test.stamp  ## the slow tests on full models and text (see CONTRIBUTING.md)
	$(BIN)/python -m pytest -m models $(ARGS)

# The foreign tools have environments of their own: DADApy's pins contradict the others'.
$(VENV)-adapters/stamp: pyproject.toml constraints/adapters.txt
	$(PYTHON) -m venv $(VENV)-adapters
	$(VENV)-adapters/bin/python -m pip install --quiet -c constraints/adapters.txt -e '.[adapters]'
	@touch $@

$(VENV)-dadapy/stamp: pyproject.toml constraints/dadapy.txt
	$(PYTHON) -m venv $(VENV)-dadapy
	$(VENV)-dadapy/bin/python -m pip install --quiet -c constraints/dadapy.txt -e '.[dadapy]' pytest
	@touch $@

FOREIGN := tests/adapters tests/overlap/test_peers.py tests/alignment/test_peers.py tests/finetune/test_foreign.py tests/test_plot_kinds.py
DADAPY_PAGE := 'tests/adapters/test_docs.py::test_page[dadapy]'

test-adapters: $(VENV)-adapters/stamp $(VENV)-dadapy/stamp  ## the adapters beside the tools they plug into
	$(VENV)-adapters/bin/python -m pytest -m adapters $(FOREIGN) --ignore=tests/adapters/test_dadapy.py --deselect=$(DADAPY_PAGE) $(ARGS)
	$(VENV)-dadapy/bin/python -m pytest -m adapters tests/adapters/test_dadapy.py tests/adapters/test_examples.py tests/adapters/test_array_libraries.py $(DADAPY_PAGE) $(ARGS)

$(VENV)-oldest/stamp: pyproject.toml constraints/oldest.txt
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip install --quiet -c constraints/oldest.txt -e '.[test]'
	@touch $@

test-oldest: $(VENV)-oldest/stamp  ## the tests on the oldest libraries that are allowed
	$(VENV)-oldest/bin/python -m pytest $(ARGS)

lint: $(VENV)/test.stamp  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/test.stamp  ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/test.stamp  ## the CPU benchmarks, into benchmarks/results/
	$(BIN)/python -m benchmarks cpu

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) $(VENV)-adapters $(VENV)-dadapy $(VENV)-oldest .mypy_cache .ruff_cache .pytest_cache build dist
