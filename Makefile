# make demo   a sample clip through the whole engine        make test   the tests        make lint   style and types
# make notebooks   runs docs/notebooks and keeps what they show
#
# The first of them makes .venv and installs the package into it, once per change of pyproject.toml.
# One process of tests more than there are cores, because one mostly waits for the cluster that it has started.
# To choose: make test PYTHON=python3.12 VENV=/scratch/venv JOBS=4 ARGS="tests/test_plan.py -x"

PYTHON ?= python3
VENV ?= .venv
JOBS ?= $(shell cores=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1); echo $$((cores < 8 ? cores + 1 : 8)))
ARGS ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint notebooks clean

demo: $(INSTALLED)
	@$(BIN)/streamsal demo

test: $(INSTALLED)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) $(ARGS)  # threads of several workers wait for each other

lint: $(INSTALLED)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright --pythonpath $(BIN)/python

notebooks: $(INSTALLED)
	@$(BIN)/python scripts/notebooks.py $(ARGS)

clean:
	rm -rf $(VENV) build dist demo .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "streamsal needs Python 3.11 or newer, and $(PYTHON) is not: name one, as in 'make test PYTHON=python3.12'." >&2; \
	    exit 1; }
	@echo "Installing streamsal and torch into $(VENV): a few minutes, once." >&2
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[dev]'
	@touch $@
