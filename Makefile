# One virtual environment, made when pyproject.toml or constraints.txt change; every target sets up what it needs.
PYTHON ?= python3
VENV   ?= .venv
STAMP  := $(VENV)/.stamp-$(shell cat pyproject.toml constraints.txt | sha256sum | cut -c1-16)
BIN    := $(VENV)/bin
DEMO   ?= demo-store
KILLS  ?= 200
SEED   ?= 0

# torch and FAISS bring an OpenMP each; idle threads that spin make both slower on a busy machine
export OMP_WAIT_POLICY ?= passive
export GOMP_SPINCOUNT ?= 0
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help demo test soak lint bench study-demo format clean
help:
	@echo "make demo    set up, then run the whole journey on a catalogue the project draws itself"
	@echo "make test    set up, then run the tests"
	@echo "make soak    set up, then kill, hammer and question stores for longer: KILLS=200 random deaths, SEED= to repeat one"
	@echo "make lint    ruff and mypy"
	@echo "make bench   speed against the parts we build on and against peers, as ratios"
	@echo "make study-demo  what pictures and words are worth to each model, on a drawn shop (two hours on a core)"
	@echo "make clean   remove the virtual environment and caches"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Dualview needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@echo "Setting up $(VENV) (about 6 GB with torch; a few minutes)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@rm -f $(VENV)/.stamp-* && touch $@

demo: $(STAMP)
	@$(BIN)/dualview demo $(DEMO)

test: $(STAMP)
	@$(BIN)/python -m pytest

# a process dies for real at every moment at which something is committed, then at KILLS random ones
soak: $(STAMP)
	@DUALVIEW_SOAK=1 DUALVIEW_KILLS=$(KILLS) DUALVIEW_SEED=$(SEED) DUALVIEW_ROUNDS=40 DUALVIEW_EXAMPLES=100 \
		$(BIN)/python -m pytest tests/faults --durations=10

lint: $(STAMP)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(STAMP)
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: $(STAMP)
	@$(BIN)/python -m benchmarks.run

# cells that are recorded are not done again; the report is of the records
STUDY := benchmarks/studies/demo
study-demo: $(STAMP)
	@$(BIN)/python -m benchmarks.studies.demo.build benchmarks/out/study-demo
	@$(BIN)/dualview study run $(STUDY)/study.toml --out benchmarks/out/study-demo/work --jobs 1 --test
	@$(BIN)/dualview study report $(STUDY)/study.toml --out $(STUDY)
	@$(BIN)/python -m benchmarks.studies.demo.among benchmarks/out/study-demo/work
	@$(BIN)/python -m benchmarks.studies.demo.against_truth

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
