# Everything a reader needs: `make book` and `make test` set themselves up. `make help` lists the rest.
#
#   make book  PROFILE=smoke|cpu|long|gpu|paper  DATA=phantom|FOLDER|SOURCE  SEED=0  DEVICE=auto
#   make test  COVLIB_REAL_DATA=FOLDER  WORKERS="-n 8"  PYTEST="tests/covlib/metrics -x"
#   PYTHON=python3.12 chooses the interpreter that .venv is made with.

PYTHON ?= python3
PROFILE ?= cpu
DATA ?= phantom
SEED ?= 0
DEVICE ?= auto
FUZZ ?= 10000
KILLS ?= 200
STUDIES ?= 4000
WORKERS ?= --numprocesses auto --maxprocesses 4
BUILD := _build
RUNS := $(BUILD)/runs
SETTINGS = $(PROFILE) $(DATA) $(SEED) $(DEVICE)

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

SHELL := /bin/sh
.DELETE_ON_ERROR:
.PHONY: help book html test check lint soak clean distclean install

help:
	@echo "make book     run all chapters (PROFILE=$(PROFILE) DATA=$(DATA) SEED=$(SEED) DEVICE=$(DEVICE)) and build the book from them"
	@echo "make install  only set up .venv"
	@echo "make html     build the book from the outputs in the repository, without running anything"
	@echo "make test     run all tests, fast ones first"
	@echo "make check    style, types, imports and all tests that are not slow: minutes, while working on it"
	@echo "make lint     check style, types and which module imports which"
	@echo "make soak     the long runs: $(FUZZ) damaged inputs for each reader, $(KILLS) killed and resumed runs, $(STUDIES) studies of each interval, every chapter on a folder"
	@echo "make clean    remove what was built and run (_build, runs, caches)"
	@echo "make distclean  the same, and the virtual environment"

install: $(STAMP)

# Made anew only when what it was made from changes.
$(STAMP): requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "covlib needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try make PYTHON=python3.12")'
	@echo "== 1. Setting up $(VENV) with $$($(PYTHON) --version) (once; about 3 minutes and 6 GB)"
	@test -x "$(BIN)/python" || $(PYTHON) -m venv "$(VENV)"
	@"$(BIN)/python" -m pip install --disable-pip-version-check -r requirements.txt -c constraints.txt
	@"$(BIN)/python" -m pip install --disable-pip-version-check -q --no-deps -e .
	@touch "$(STAMP)"
	@echo "== Set up."

book: $(STAMP)
	@echo "== 2. Running the chapters: profile $(PROFILE), data $(DATA), seed $(SEED), device $(DEVICE)"
	@if [ "$$(cat "$(RUNS)/unfinished" 2>/dev/null)" = "$(SETTINGS)" ]; then echo "   taking up the interrupted run"; \
	else rm -rf "$(RUNS)"; mkdir -p "$(RUNS)"; echo "$(SETTINGS)" > "$(RUNS)/unfinished"; fi
	@names=$$("$(BIN)/python" -m covbook.cli chapters --names) || exit 2; \
	for name in $$names; do \
		"$(BIN)/python" -m covbook.cli run $$name --profile "$(PROFILE)" --data "$(DATA)" --seed "$(SEED)" \
			--device "$(DEVICE)" --out "$(RUNS)/$$name" \
			|| { status=$$?; echo "make book: chapter $$name failed" >&2; exit $$status; }; \
	done
	@rm -f "$(RUNS)/unfinished"
	@echo "== 3. Building the book from the executed chapters"
	@"$(BIN)/python" -m covbook.cli book --runs "$(RUNS)" --out "$(BUILD)"

html: $(STAMP)
	@echo "== 2. Building the book from the outputs in the repository (nothing is run)"
	@"$(BIN)/python" -m covbook.cli book --out "$(BUILD)"

test: $(STAMP)
	@echo "== 2. Running the tests: fast ones first, then the book and the chapters"
	@"$(BIN)/python" -m pytest $(WORKERS) $(PYTEST)

check: lint
	@echo "== 3. Running the tests that are not slow"
	@"$(BIN)/python" -m pytest $(WORKERS) -q -m "not slow" $(PYTEST)

lint: $(STAMP)
	@"$(BIN)/python" -m ruff check .
	@"$(BIN)/python" -m mypy
	@"$(BIN)/lint-imports"

# Hours: at least 10,000 damaged inputs for each reader, KILLS interrupted runs, STUDIES studies of each interval, every
# chapter on a folder and from a checkpoint.
soak: $(STAMP)
	@echo "== 2. Fuzzing the readers: $(FUZZ) inputs each"
	@COVLIB_FUZZ=$(FUZZ) "$(BIN)/python" -m pytest tests/test_fuzz.py
	@echo "== 3. Killing and resuming: $(KILLS) times"
	@"$(BIN)/python" tests/soak/kills.py --kills $(KILLS)
	@echo "== 4. Do intervals hold: $(STUDIES) simulated studies of each kind"
	@COVLIB_COVERAGE=$(STUDIES) "$(BIN)/python" -m pytest tests/covbook/chapters/basics/test_coverage.py
	@echo "== 5. Every chapter on a folder, and from a checkpoint"
	@COVLIB_EVERY=1 "$(BIN)/python" -m pytest tests/test_own_folder.py tests/test_chapters.py -k "folder"
	@COVLIB_EVERY=1 "$(BIN)/python" -m pytest tests/covbook/chapters/basics/test_ladder.py \
		tests/covbook/chapters/test_head_start.py

clean:
	rm -rf "$(BUILD)" runs book/runs .pytest_cache .hypothesis .ruff_cache .mypy_cache
	find covlib tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf "$(VENV)" covlib.egg-info
