# Two commands on a fresh machine with Python 3.11 or later: `make demo` and `make test`.
PYTHON ?= python3
SOURCES := pyproject.toml src/jacana/_version.py

.PHONY: demo test lint types clean

demo: .venv-demo/ready
	.venv-demo/bin/jacana demo

test: .venv-test/ready
	.venv-test/bin/python -m pytest -n auto

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

clean:
	rm -rf .venv-demo .venv-test build dist
