# `make demo` runs the main job, `make test` passes the tests; each sets up .venv by itself.
PYTHON ?= python3
BIN := .venv/bin
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test test-all bench bench-gpu lint clean

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[demo,data,train,dev]'
	touch $@

demo: .venv/installed
	$(BIN)/crossbind demo

test: .venv/installed
	$(BIN)/python -m pytest -m "not slow and not gpu"

test-all: .venv/installed
	$(BIN)/python -m pytest

bench: .venv/installed
	$(BIN)/python -m tests.bench

bench-gpu: .venv/installed
	$(BIN)/python -m tests.bench gpu

lint: .venv/installed
	$(BIN)/ruff check --fix . && $(BIN)/ruff format . && $(BIN)/mypy && $(BIN)/lint-imports

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache
