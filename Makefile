# What .ci/run and the GitHub workflow run. The tools are those of the active environment.

PYTHON ?= python
# The oldest supported NumPy and SciPy have no wheels for Python 3.13.
OLDEST_PYTHON ?= python3.11

# Bytes. There is nothing in it but modules.
LARGEST_WHEEL = 200000
TINY_FIT = import numpy as np, sklearn_nsgf; X = np.random.default_rng(0).normal(size=(100, 2)); \
	flow = sklearn_nsgf.NSGFPlusPlus(n_flows=2, max_iter=50, early_stopping=False, random_state=0, verbose=1); \
	assert abs(flow.fit(X, X + 3).transform(X) - X - 3).mean() < 0.3

# One torch thread in each of two workers.
PYTEST = OMP_NUM_THREADS=1 $(PYTHON) -m pytest --numprocesses 2

.PHONY: lint types test test-slow test-oldest fuzz docs docs-check example dist

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

# The wheel is installed and tried, and so are the tests of the source distribution: both away from this folder.
dist:
	rm -rf dist .venv-dist
	$(PYTHON) -m build
	$(PYTHON) -m twine check --strict dist/*
	test $$(cat dist/*.whl | wc -c) -lt $(LARGEST_WHEEL)
	$(PYTHON) -m venv .venv-dist
	.venv-dist/bin/python -m pip install --constraint constraints.txt dist/*.whl
	cd .venv-dist && bin/python -m sklearn_nsgf && bin/python -c "$(TINY_FIT)"
	.venv-dist/bin/python -m pip install --constraint constraints.txt "$$(echo dist/*.whl)[test]"
	tar --extract --gzip --file dist/*.tar.gz --directory .venv-dist
	cd .venv-dist/sklearn_nsgf-*/ && ../bin/pytest --collect-only --quiet --quiet tests && ../bin/pytest tests/test_release.py
