# make demo       raw files to report on the simulated cohort
# make test       the tests CI runs;  make test-all adds the slow ones
# make lint       formatting and lint
# make lock       requirements.in -> requirements.txt and envs/*.yaml
PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || echo 2)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo her2st test test-all lint format lock clean

demo: $(READY)
	$(BIN)/snakemake --cores $(CORES)
	@echo "Open results/demo/report.html in a browser."

# real sections, where ../shared/data/her2st is
her2st: $(READY)
	$(BIN)/snakemake --cores $(CORES) --configfile tests/workflow/her2st/config.yaml --config study=tests/workflow/her2st/paired.yaml
	$(BIN)/snakemake --cores $(CORES) --configfile tests/workflow/her2st/config.yaml --config study=tests/workflow/her2st/expression.yaml

test: $(READY)
	$(BIN)/python -m pytest -m "not slow"

test-all: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check scripts tests envs
	$(BIN)/ruff format --check scripts tests envs
	$(BIN)/snakefmt --check Snakefile workflow
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakemake --lint

format: $(READY)
	$(BIN)/ruff check --fix scripts tests envs
	$(BIN)/ruff format scripts tests envs
	$(BIN)/snakefmt Snakefile workflow

lock:
	uv pip compile requirements.in --python-version 3.11 --generate-hashes --no-emit-index-url --no-strip-extras --upgrade -o requirements.txt
	$(PYTHON) envs/generate.py

# uv where it is, or where pip can get it, for it takes a minute; else pip, which takes five
$(READY): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit("ctrflow needs Python 3.11 or newer: make PYTHON=python3.11 ..." if sys.version_info < (3, 11) else 0)'
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@uv=$$(command -v uv || echo $(VENV)/uv/bin/uv); \
	if [ ! -x "$$uv" ]; then \
		$(PYTHON) -m venv $(VENV)/uv && $(VENV)/uv/bin/python -m pip install --quiet uv || true; \
	fi; \
	echo "Installing into $(VENV) (about 7 GB)"; \
	if [ -x "$$uv" ]; then \
		"$$uv" pip install --quiet --python $(BIN)/python --require-hashes -r requirements.txt; \
	else \
		$(BIN)/python -m pip install --quiet --require-hashes -r requirements.txt; \
	fi
	@touch $@

clean:
	rm -rf results logs benchmarks data .snakemake
