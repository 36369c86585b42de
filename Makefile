PYTHON ?= python
WORKERS ?= 2
PYTEST = $(PYTHON) -m pytest -n $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install lint test test-all bench docs docs-check site wheel clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install:  ## install the package from this checkout, with the tested versions and the tools
	$(PYTHON) -m pip install -c constraints.txt -e ".[dev]"

lint:  ## ruff (rules and format) and mypy
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

test:  ## the tests, without the slow ones
	$(PYTEST) -m "not slow"

test-all:  ## all tests
	$(PYTEST)

bench:  ## every benchmarks/bench_*.py, one after the other
	@set -e; found=; \
	for script in benchmarks/bench_*.py; do \
		[ -e "$$script" ] || continue; \
		found=yes; echo "== $$script"; $(PYTHON) "$$script"; \
	done; \
	[ -n "$$found" ] || echo "no benchmarks/bench_*.py here: nothing to run"

docs:  ## every generated page, table and picture (docs/models.md from the tests of all models)
	PYTHONPATH=. $(PYTHON) scripts/make_config.py
	PYTHONPATH=. $(PYTHON) scripts/make_api.py
	$(PYTHON) scripts/make_rows.py
	$(PYTHON) scripts/make_results.py
	$(PYTHON) scripts/make_picture.py
	$(PYTHON) -m pytest tests/laws/test_models.py -o junit_family=xunit1 --junitxml=build/models.xml
	PYTHONPATH=. $(PYTHON) scripts/make_models.py build/models.xml

docs-check:  ## every command, block of code, link and table of README.md and docs/
	$(PYTHON) -m pytest tests/end_to_end/test_docs.py

site:  ## the documentation as a site in build/site (pip install -e ".[docs]")
	$(PYTHON) -m mkdocs build --strict

wheel:  ## a fresh wheel in dist/
	rm -rf build dist
	$(PYTHON) -m pip wheel --no-deps --wheel-dir dist .

clean:  ## remove what builds, tests and tools leave behind (never saved/ or log/)
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -type d -prune -exec rm -rf {} +
