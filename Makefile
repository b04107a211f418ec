# `make demo` runs the main job, `make test` passes the tests; each sets up .venv by itself.
PYTHON ?= python3
BIN := .venv/bin
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test test-all bench bench-gpu docs small lint clean

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[all]'
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

# The documentation as a site in build/site, which needs no network to be read.
docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict -f docs/mkdocs.yml

# The weights of `small` anew, from the packages' drawings and sounds (4 GB; Debian's and npm's clients are needed) and the real
# data sets that DATA has: `make small DATA=DIR`, and LICENCE=free for what may be used freely (small-free: pictures and words).
# Each step adds an encoder to the checkpoint of the step before and goes on where it was interrupted. The steps of pictures and
# sounds take minutes on a GPU and hours without one.
S := out/small
DATA ?= data
LICENCE ?= all
NAME := $(if $(filter free,$(LICENCE)),small-free,small)
P := $(S)/pictures-$(LICENCE)
small: .venv/installed
	$(BIN)/python -m train.small.fetch $(S)/packages
	$(BIN)/python -m train.small $(DATA) $(S)/packages $(P) --licence $(LICENCE)
ifeq ($(LICENCE),free)
	$(BIN)/python -m train.small.install $(P)/model bind/zoo/$(NAME)
else
	$(BIN)/python -m train.small.layout $(DATA) $(P)/model $(S)/layout/model $(S)/layout/features
	$(BIN)/python -m train.small.motion $(DATA) $(S)/packages $(S)/layout/model $(S)/motion --folds
	$(BIN)/python -m train.small.sensors $(DATA) $(S)/packages $(S)/motion/model $(S)/sensors --folds
	$(BIN)/crossbind manifest stamps $(S)/packages/stamps $(S)/stamps
	$(BIN)/python -m train.small.splits $(S)/stamps.jsonl $(S)/stamps-spoken.jsonl $(S)/words
	sed 's#^\[base\]#&\nmodel = "$(abspath $(S))/sensors/model"#' train/runs/small-audio.toml > $(S)/words/small-audio.toml
	$(BIN)/crossbind train $(S)/words/small-audio.toml
	$(BIN)/python -m train.small.sounds $(DATA) $(S)/packages $(S)/sensors/model $(S)/words/out/small-audio/model $(S)/sounds
	$(BIN)/python -m train.small.install $(S)/sounds/model bind/zoo/$(NAME)
endif
	$(BIN)/python -m train.small.calibrate $(NAME) $(DATA) --licence $(LICENCE)
	$(BIN)/crossbind eval $(NAME) --suite real --data $(DATA)
	$(BIN)/python -m train.small.tables $(DATA) $(S)/packages $(P)
	$(BIN)/python -m train.small.composed $(P)

lint: .venv/installed
	$(BIN)/ruff check --fix . && $(BIN)/ruff format . && $(BIN)/mypy && $(BIN)/lint-imports

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache
