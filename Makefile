# Needs make, Python 3.11, 3.12 or 3.13, and for the compiled kernel a C compiler; everything else is installed into .venv.
#   make serve ARGS="--port 7000"      pass arguments on to the server
#   make test ARGS="tests/test_cli.py" pass arguments on to pytest
#   make test PYTHON=/opt/py/bin/python3.12

VENV := .venv
BIN := $(VENV)/bin
EXTRAS ?= dev
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help serve test llm llm-files check lint types docs docs-check format clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

serve: $(VENV)/.installed-serve ## Set up, then serve on http://127.0.0.1:6060 (a demo pair where no API key is set)
	@exec $(BIN)/routellm serve $(ARGS)

test: $(VENV)/.installed-$(EXTRAS) ## Set up, then run the tests
	$(BIN)/python -m pytest -q $(ARGS)

llm: llm-files ## Fetch a small real language model (130 MB in all), and test the server in front of it
	ROUTELLM_TEST_GGUF=$(VENV)/llm.gguf $(BIN)/python -m pytest -q tests/serving/test_real_llm.py tests/routers/causal/test_smollm2.py $(ARGS)

llm-files: $(VENV)/.installed-$(EXTRAS)
	$(PIP) "xllamacpp==2026.10.11549"
	$(BIN)/python -m tests.llama fetch $(VENV)/llm.gguf

check: lint types docs-check test ## What CI runs: lint, types, whether the reference is up to date, and the tests

lint: $(VENV)/.installed-$(EXTRAS) ## Style and common mistakes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-$(EXTRAS) ## Static types
	$(BIN)/mypy

docs: $(VENV)/.installed-$(EXTRAS) ## Write docs/reference again from the code
	$(BIN)/python docs/generate.py

docs-check: $(VENV)/.installed-$(EXTRAS) ## Fail where docs/reference differs from the code
	$(BIN)/python docs/generate.py --check

format: $(VENV)/.installed-$(EXTRAS) ## Format the code and mend what can be mended by itself
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Remove the environment and every cache
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf routellm.egg-info routellm/embeddings/_scan*.so

# The first interpreter that really starts, is of a supported version and can make environments; PYTHON=... overrides.
$(BIN)/python:
	@for python in $(PYTHON) $(if $(PYTHON),,python3.13 python3.12 python3.11 python3 python); do \
	  "$$python" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null || continue; \
	  echo "Setting up $(VENV) with $$("$$python" --version); the first time takes a minute or two."; \
	  exec "$$python" -m venv $(VENV); \
	done; \
	echo "$(or $(PYTHON),No python3 here) is not a Python 3.11, 3.12 or 3.13 with the venv module." >&2; \
	echo "Install one (Debian, Ubuntu: apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python3.12 ..." >&2; \
	exit 1

$(VENV)/.installed-%: pyproject.toml setup.py $(wildcard routellm/embeddings/native/*) | $(BIN)/python
	$(PIP) --editable ".[$*]"
	@touch $@
