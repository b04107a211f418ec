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

# The weights of `small` anew, from the packages' drawings (1.2 GB; Debian and npm clients are needed) and whatever photographs
# DATA has: `make small DATA=DIR`, and LICENCE=free for what may be used freely (small-free). Minutes on a GPU for pictures and
# the four encoders, hours without one.
S := out/small
DATA ?= data
LICENCE ?= all
NAME := $(if $(filter free,$(LICENCE)),small-free,small)
small: .venv/installed
	$(BIN)/python -m train.small.fetch $(S)/packages
	$(BIN)/python -m train.small $(DATA) $(S)/packages $(S)/pictures-$(LICENCE) --licence $(LICENCE)
	cp $(S)/pictures-$(LICENCE)/model/*.safetensors bind/zoo/$(NAME)/ && cd bind/zoo/$(NAME) && sha256sum *.safetensors > SHA256SUMS
	mkdir -p $(S)/runs && printf 'scenes = 3200\nseed = 0\n' > $(S)/runs/simulated.toml
	$(BIN)/crossbind manifest simulated $(S)/runs $(S)/runs/sim
	$(BIN)/crossbind manifest stamps $(S)/packages/stamps $(S)/stamps
	$(BIN)/crossbind manifest seglearn $$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))") $(S)/seglearn
	$(BIN)/pip download --quiet --no-deps --dest $(S)/packages/aeon aeon==1.6.0
	$(BIN)/crossbind manifest basicmotions $(S)/packages/aeon $(S)/basicmotions
	$(BIN)/python -m train.small.splits $(S)/stamps.jsonl $(S)/stamps-spoken.jsonl $(S)/seglearn.jsonl $(S)/runs
	cp $(S)/basicmotions-*.jsonl train/runs/small-*.toml $(S)/runs/
	for kind in audio depth thermal imu; do $(BIN)/crossbind train $(S)/runs/small-$$kind.toml; done
	$(BIN)/python -m train.small.assemble bind/zoo/small $(foreach kind,audio depth thermal imu,$(kind)=$(S)/runs/out/small-$(kind)/model)
	$(BIN)/python -m train.small.tables $(DATA) $(S)/packages $(S)/pictures-$(LICENCE)
	$(BIN)/python -m train.small.composed $(S)/pictures-$(LICENCE)

lint: .venv/installed
	$(BIN)/ruff check --fix . && $(BIN)/ruff format . && $(BIN)/mypy && $(BIN)/lint-imports

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache
