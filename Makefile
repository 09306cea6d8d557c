# Two commands on a fresh machine with Python 3.11 or later: `make demo` and `make test`.
PYTHON ?= python3
SOURCES := pyproject.toml src/jacana/_version.py

# The oldest NumPy has no wheels for the newest Python.
OLDEST_PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo $(PYTHON))
# What of the tests `make test-executors` and `make test-oldest` run; everything unless said otherwise.
PART ?=
EXECUTORS ?= numpy native

.PHONY: demo test test-executors test-oldest lint types clean

demo: .venv-demo/ready
	.venv-demo/bin/jacana demo

test: .venv-test/ready
	.venv-test/bin/python -m pytest -n auto

test-executors: .venv-test/ready
	set -e; for name in $(EXECUTORS); do JACANA_EXECUTOR=$$name .venv-test/bin/python -m pytest -n auto $(PART); done

# Old packages next to new ones of their own dependencies: those deprecate what these still use.
test-oldest: .venv-oldest/ready
	.venv-oldest/bin/python -m pytest -n auto -W ignore::DeprecationWarning $(PART)

lint: .venv-test/ready
	.venv-test/bin/ruff check src tests benchmarks
	.venv-test/bin/ruff format --check src tests benchmarks

types: .venv-test/ready
	.venv-test/bin/mypy

.venv-demo/ready: $(SOURCES)
	$(PYTHON) -m venv .venv-demo
	.venv-demo/bin/python -m pip install --quiet --upgrade pip
	.venv-demo/bin/python -m pip install --quiet -e ".[native]"
	touch $@

.venv-test/ready: $(SOURCES)
	$(PYTHON) -m venv .venv-test
	.venv-test/bin/python -m pip install --quiet --upgrade pip
	.venv-test/bin/python -m pip install --quiet -e ".[dev]"
	touch $@

.venv-oldest/ready: $(SOURCES) tools/oldest.py
	$(OLDEST_PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python tools/oldest.py > .venv-oldest/oldest.txt
	.venv-oldest/bin/python -m pip install --quiet --upgrade pip
	.venv-oldest/bin/python -m pip install --quiet -e ".[native,plot,test]" -c .venv-oldest/oldest.txt
	touch $@

clean:
	rm -rf .venv-demo .venv-test .venv-oldest build dist
