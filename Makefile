# The first target that needs it makes .venv from the lock; after that nothing touches the network.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Many small products are quicker on one thread, and the tests take every other core.
export OMP_NUM_THREADS ?= 1
WORKERS ?= 2
export JUPYTER_PREFER_ENV_PATH := 1

.PHONY: help demo test lab notebooks lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(STAMP)  ## segment scenes with and without a memory: a table, and an image in runs/00_quickstart
	$(BIN)/rose-kit run 00_quickstart

test: export HF_HUB_OFFLINE = 1
test: $(STAMP)  ## ruff, doctests, unit tests, and every notebook compared with what it holds
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

lab: $(STAMP)  ## JupyterLab on the notebooks
	$(BIN)/jupyter lab --notebook-dir=notebooks

notebooks: $(STAMP)  ## execute every notebook in a fresh kernel and save it; renew its figure in docs/
	$(BIN)/python notebooks/course/build.py

lock: $(STAMP)  ## resolve requirements.lock anew from pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --all-extras --no-emit-index-url \
		--no-emit-find-links --custom-compile-command 'make lock' pyproject.toml -o requirements.lock

clean:  ## remove runs/, caches and .venv
	rm -rf runs $(VENV) .pytest_cache .ruff_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "rose_kit needs Python 3.11 or newer, and $(PYTHON) is not: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	@touch $@
