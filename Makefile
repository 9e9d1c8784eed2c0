# What .ci/run and the GitHub workflow run. The tools are those of the active environment.

PYTHON ?= python
# The oldest supported NumPy and SciPy have no wheels for Python 3.13.
OLDEST_PYTHON ?= python3.11

# One torch thread in each of two workers.
PYTEST = OMP_NUM_THREADS=1 $(PYTHON) -m pytest --numprocesses 2

.PHONY: lint types test test-slow test-oldest fuzz docs docs-check example

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types:
	$(PYTHON) -m mypy

test:
	$(PYTEST)

test-slow:
	$(PYTEST) -m slow tests

fuzz:
	SKLEARN_NSGF_FUZZ=20 $(PYTEST) tests/test_fuzz.py

test-oldest: PYTHON = .venv-oldest/bin/python
test-oldest: .venv-oldest/installed
	$(PYTEST) tests

.venv-oldest/installed: constraints-oldest.txt pyproject.toml
	rm -rf .venv-oldest
	$(OLDEST_PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --constraint constraints-oldest.txt --editable ".[test]"
	touch $@

docs:
	MPLBACKEND=agg $(PYTHON) -m sphinx --fail-on-warning --keep-going docs docs/_build/html

docs-check: docs
	$(PYTHON) docs/check_site.py docs/_build/html
	$(PYTEST) README.rst docs/*.rst

example:
	MPLBACKEND=agg $(PYTHON) examples/images/plot_color_transfer.py
