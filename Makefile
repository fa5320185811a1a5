# The first target that needs it makes .venv from the lock; after that nothing touches the network.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip

# WHEELS=DIR: install from this folder alone, which `make wheelhouse` filled.
FROM := $(if $(WHEELS),--no-index --find-links $(WHEELS))
# CPU=1: the builds of these two without CUDA, and nothing of what CUDA needs. They are PyTorch's own, in the lock's
# versions but without its hashes, since the package index has none for Linux. TORCH_CPU=URL says where they are.
TORCH = $$(grep -oE '^(torch|torchvision)==[^ ;]+' requirements.lock)
INDEX = --index-url $(or $(TORCH_CPU),$(error CPU=1 needs TORCH_CPU=URL: the index of CPU builds that PyTorch's \
	installation page names))
LOCK := $(if $(CPU),$(VENV)/cpu.lock,requirements.lock)

# The tests run in so many processes, each on one thread.
WORKERS ?= 2
export JUPYTER_PREFER_ENV_PATH := 1

.PHONY: help demo test lab notebooks lock wheelhouse clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile
	@echo 'CPU=1      with any of these: PyTorch without CUDA, 5 GB smaller on Linux; after a change, make clean first'
	@echo 'WHEELS=DIR with any of these: install from this folder, without a network'

demo: $(STAMP)  ## segment scenes with and without a memory: a table, and an image in runs/00_quickstart
	$(BIN)/rose-kit run 00_quickstart

test: export HF_HUB_OFFLINE = 1
test: export OMP_NUM_THREADS ?= 1
test: $(STAMP)  ## ruff, mypy, doctests, unit tests, and every notebook compared with what it holds
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

lab: export JUPYTER_CONFIG_PATH := $(CURDIR)/notebooks/course/lab
lab: $(STAMP)  ## JupyterLab on the table of contents of the notebooks
	$(BIN)/jupyter lab

notebooks: $(STAMP)  ## execute every notebook in a fresh kernel and save it; renew its figure in docs/
	$(BIN)/python notebooks/course/build.py

lock: $(STAMP)  ## resolve requirements.lock anew from pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --all-extras --no-emit-index-url \
		--no-emit-find-links --custom-compile-command 'make lock' pyproject.toml -o requirements.lock

wheelhouse: $(LOCK) | $(BIN)/python  ## gather every package in WHEELS (by default wheelhouse/), for machines like this
	$(PIP) download --no-deps --require-hashes --dest $(or $(WHEELS),wheelhouse) -r $(LOCK)
	$(if $(CPU),$(PIP) download --no-deps --dest $(or $(WHEELS),wheelhouse) $(INDEX) $(TORCH))

clean:  ## remove runs/, caches and .venv
	rm -rf runs $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "rose_kit needs Python 3.11 or newer, and $(PYTHON) is not: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/cpu.lock: requirements.lock | $(BIN)/python
	awk '/^[a-z0-9]/ { keep = !/^(torch|torchvision|triton|cuda-[a-z]+|nvidia-[a-z0-9-]+)==/ } keep' $< > $@

$(STAMP): pyproject.toml $(LOCK) | $(BIN)/python
	$(if $(CPU),$(PIP) install --no-deps $(or $(FROM),$(INDEX)) $(TORCH))
	$(PIP) install $(if $(CPU),--no-deps) --require-hashes $(FROM) -r $(LOCK)
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@
