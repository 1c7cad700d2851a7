# The first python that is new enough. Looked up only when the environment has to be made.
PYTHON ?= $(shell for p in python3.12 python3.13 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && echo $$p && break; done)
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint format clean .venv

help: ## show this list
	@grep -hE '^[a-z.-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

.venv: $(STAMP) ## make the environment, with the pinned versions

$(STAMP): pyproject.toml constraints.txt
	@test -x .venv/bin/python || test -n "$(PYTHON)" || \
		{ echo "bayesscale needs Python 3.12 or newer, and none was found: install it, or run make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP) ## fit the bundled data, write the report to demo-results/
	.venv/bin/bayesscale demo --out demo-results

test: lint ## lint, then the fast tests
	.venv/bin/python -m pytest -n 2 -q

test-slow: $(STAMP) ## the tests that take minutes
	.venv/bin/python -m pytest -n 2 -q -m slow

lint: $(STAMP) ## ruff and basedpyright
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/basedpyright

format: $(STAMP) ## let ruff rewrite the source
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

clean: ## remove .venv, caches and demo results
	rm -rf .venv demo-results dist build .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
