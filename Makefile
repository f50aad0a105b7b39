# make demo          raw files to report on the simulated cohort
# make example       a public section (4.7 MB, downloaded), mapped by a shipped model that has not seen its patient
# make map           path=/data/biopsy7/outs image=/data/biopsy7/slide.tif tissue=breast: the map of one section of your own
# make model         STUDY=sthbc: each method trained on all its labelled sections, one model file each, for new sections
# make shipped-models  the models of models/, trained on the sections in ../shared/data/her2st (models/breast/README.md)
# make report        STUDY=sthbc: Snakemake's own report of a finished study, with every final file and how it was made
# make her2st        two studies on real sections, which must be in ../shared/data/her2st
# make test          the tests that CI runs;  make test-all adds the slow ones
# make test-slurm    a small study on a SLURM of this machine (apt install slurm-wlm munge), with a job and a daemon killed
# make test-faults   kills, full disks, damaged files and every bad input, short form
# make test-viewers  the exports opened in napari, squidpy, spatialdata-plot, cellxgene and TissUUmaps, with screenshots
# make bench         time, memory and growth of the costly steps, printed
# make check-gpu     every path that a GPU takes, against the CPU, in one table;  DEVICE=cpu tries it without a GPU
# make lint          check style and formatting;  make format corrects them
# make lists         the registered methods, encoders, platforms, metrics and exports -> docs/lists.md
# make lock          requirements.in -> requirements.txt and envs/*.yaml; envs/*.in -> envs/*.txt
# make clean         delete results, logs, benchmarks, data and Snakemake's records
PYTHON ?= python3
# nproc on Linux, sysctl on macOS
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
DEVICE ?= cuda
VENV := .venv
BIN := $(VENV)/bin
# not bin/snakemake, whose first line has the path of this folder: it may have spaces, or have been renamed
SNAKEMAKE := $(BIN)/python -m snakemake
READY := $(VENV)/.ready
# modules compiled by the first job that imports them are loaded by the others: without, each job takes seconds more
unexport PYTHONDONTWRITEBYTECODE

# said before anything is installed
BRACES := { }
ifneq (,$(findstring :,$(CURDIR)))
$(error $(CURDIR): Python makes no virtual environment in a path with a colon; move this folder to a path without)
endif
ifneq (,$(strip $(foreach brace,$(BRACES),$(findstring $(brace),$(CURDIR)))))
$(error $(CURDIR): Snakemake runs no steps from a path with braces; move this folder to a path without { and })
endif

.PHONY: demo example map her2st model report test test-all test-slurm test-faults test-viewers bench check-gpu lint format lists lock clean shipped-models

demo: $(READY)
	$(SNAKEMAKE) --cores $(CORES)
	@echo "Open results/demo/report.html in a browser."

example: $(READY)
	$(SNAKEMAKE) --cores $(CORES) --config study=example
	@echo "Open results/example/report.html in a browser."

# every key=value of the command line but the Makefile's own goes to Snakemake, which refuses unknown ones; in single quotes
SETTINGS := PYTHON CORES DEVICE STUDY VENV BIN SNAKEMAKE SHELL
GIVEN = $(foreach name,$(filter-out $(SETTINGS) MAKE%,$(.VARIABLES)),$(if $(filter command,$(origin $(name))),$(name)))
QUOTED = '$(1)=$(subst ','\'',$(value $(1)))'

map: $(READY)
	$(SNAKEMAKE) --cores $(CORES) map $(if $(strip $(GIVEN)),--config $(foreach name,$(sort $(GIVEN)),$(call QUOTED,$(name))))

her2st: $(READY)
	$(SNAKEMAKE) --cores $(CORES) --configfile tests/workflow/her2st/config.yaml --config study=tests/workflow/her2st/paired.yaml
	$(SNAKEMAKE) --cores $(CORES) --configfile tests/workflow/her2st/config.yaml --config study=tests/workflow/her2st/expression.yaml

model: $(READY)
	$(SNAKEMAKE) --cores $(CORES) model $(if $(STUDY),--config study=$(STUDY))
	@echo "Models for new sections (docs/own_section.md):"
	@find results/*/model -name '*.safetensors' | sort

BREAST := --configfile models/breast/config.yaml --config study=models/breast

shipped-models: $(READY)
	$(SNAKEMAKE) --cores $(CORES) model $(BREAST)/study.yaml
	$(SNAKEMAKE) --cores $(CORES) model $(BREAST)/left_out.yaml
	for kind in image expression; do \
		install -m 644 results/breast_models/model/$$kind/*/breast_$$kind.seed42.safetensors models/breast/$$kind.safetensors; \
		for patient in A B C; do \
			mkdir -p models/without_$$patient/breast; \
			install -m 644 results/breast_left_out/model/$${kind}_without_$$patient/*/breast_$$kind.seed42.safetensors \
				models/without_$$patient/breast/$$kind.safetensors; \
		done; \
	done

report: $(READY)
	$(SNAKEMAKE) --report results/$(or $(basename $(notdir $(STUDY))),demo)/snakemake_report.html $(if $(STUDY),--config study=$(STUDY))

# two processes, one compute thread each; tests that share a run of the workflow stay in one of them
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder
# each folder by name: only then does the reporting process load the conftest files that count faults and inputs
TESTS := $(filter-out tests/viewers/,$(sort $(dir $(wildcard tests/*/test_*.py))))

test: $(READY)
	$(PYTEST) -m "not slow" $(TESTS)

test-all: $(READY)
	$(PYTEST) $(TESTS)

test-slurm: $(READY)
	$(BIN)/python -m pytest tests/faults/test_slurm.py

test-faults: $(READY)
	$(PYTEST) -m "not slow" tests/faults tests/bad_input --deselect tests/faults/test_slurm.py

# in environments of their own, with Python 3.11; the tests of viewers that cannot be installed are skipped
SHOTS := tests/viewers/shots

test-viewers: $(READY) $(VENV)-viewers/.ready $(VENV)-cellxgene/.ready
	SHOTS=$(SHOTS) $(BIN)/python -m pytest tests/viewers

bench: $(READY)
	$(BIN)/python tests/bench/bench.py

check-gpu: $(READY)
	$(BIN)/python tests/bench/check_gpu.py --device $(DEVICE)

lint: $(READY)
	$(BIN)/ruff check scripts tests envs docs workflow
	$(BIN)/ruff format --check scripts tests envs docs workflow
	$(BIN)/python -m snakefmt --check Snakefile workflow
	PATH="$$PWD/$(BIN):$$PATH" $(SNAKEMAKE) --lint

format: $(READY)
	$(BIN)/ruff check --fix scripts tests envs docs workflow
	$(BIN)/ruff format scripts tests envs docs workflow
	$(BIN)/python -m snakefmt Snakefile workflow

lists: $(READY)
	$(BIN)/python docs/generate.py

COMPILE := uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-strip-extras --upgrade

lock:
	$(COMPILE) requirements.in -o requirements.txt
	$(COMPILE) envs/viewers.in -o envs/viewers.txt
	$(COMPILE) envs/cellxgene.in -o envs/cellxgene.txt
	$(PYTHON) envs/generate.py

# uv, which takes a minute, where it is installed or pip can install it; else pip, which takes five and uses its own mirrors
INSTALL := pip install --quiet --require-hashes -r

$(READY): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit("ctrflow needs Python 3.11, 3.12 or 3.13: make PYTHON=python3.11 ..." if not (3, 11) <= sys.version_info < (3, 14) else 0)'
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV) || { \
		rm -rf $(VENV); \
		echo "$(PYTHON) cannot make a virtual environment: install its venv module (Debian, Ubuntu: apt install python3-venv)"; \
		exit 1; \
	}
	@echo "Installing into $(VENV) (about 7 GB; at most 3 on a Mac, which needs no libraries of NVIDIA)"
	@uv=$$(command -v uv || echo $(VENV)/uv/bin/uv); \
	[ -x "$$uv" ] || { $(PYTHON) -m venv $(VENV)/uv && $(VENV)/uv/bin/python -m pip install --quiet uv; }; \
	{ [ -x "$$uv" ] && "$$uv" $(INSTALL) $< --python $(BIN)/python; } || { \
		echo "Not with uv; trying pip"; \
		$(BIN)/python -m $(INSTALL) $<; \
	}
	@touch $@

# without .ready, tests of these viewers are skipped, and the next call tries again
$(VENV)-%/.ready: envs/%.txt | $(READY)
	@[ -x $(VENV)-$*/bin/python ] || $(BIN)/python -m venv $(VENV)-$*
	@uv=$$(command -v uv || echo $(VENV)/uv/bin/uv); \
	if { [ -x "$$uv" ] && "$$uv" $(INSTALL) $< --python $(VENV)-$*/bin/python; } || $(VENV)-$*/bin/python -m $(INSTALL) $<; then \
		touch $@; \
	else \
		echo "$< cannot be installed: its viewers are not tested"; \
	fi

clean:
	rm -rf results logs benchmarks data .snakemake
