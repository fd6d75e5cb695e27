# make demo    the whole main job on generated images, on a CPU, in minutes
# make test    all tests, or those of one folder: `make test WING=rows`     make check   style, formatting, types
# make campaign   what needs mass, `make campaign SIZE=10` ten times of it   make bench   measurements beside peers
PYTHON ?= python3
VENV ?= .venv
OUT ?= demo
SIZE ?= 1
BIN := $(VENV)/bin
TESTS = $(if $(WING),$(wildcard tests/$(WING) tests/*/$(WING)),tests)
WINGS = $(sort $(notdir $(patsubst %/,%,$(dir $(wildcard tests/*/test_*.py tests/*/*/test_*.py)))))

.PHONY: demo test campaign check bench reference clean

demo: $(VENV)/.installed
	$(BIN)/curate demo --out $(OUT)

test: $(VENV)/.installed-dev
	$(if $(TESTS),,$(error no tests of "$(WING)"; there are those of $(WINGS)))
	$(BIN)/pytest -n 2 --dist loadfile $(TESTS)

campaign: $(VENV)/.installed-dev
	$(BIN)/pytest -n 2 --campaign $(SIZE)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/bytes.py
	$(BIN)/python benchmarks/trainers.py

# A module and not `-c`, which DuckDB takes for a person at a prompt: it would draw its progress bar into the page.
reference: $(VENV)/.installed
	$(BIN)/python -m curate.cli.reference > docs/reference.md
	$(BIN)/python -m train.cli.tasks_page > docs/tasks.md
	$(BIN)/python -m curate.cli.layouts_page > docs/layouts.md

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache

# The marks say what is installed, so that nothing asks the network again until pyproject.toml changes.
$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or later is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 10) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.installed
