# `make` lists the targets. ARGS goes to the command behind a target: make demo ARGS=--once

.DEFAULT_GOAL := help
.PHONY: help install install-dev demo serve tenant migrate migration bench detection-report compare test check lint typecheck format pins clean

BENCH ?= ingest
OUT ?= build/isolation
export NAME PLANE M PYTHON

billingwatch := .venv/bin/billingwatch

help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

install: ## build .venv from the pinned packages (PYTHON=… picks the Python)
	@scripts/environment runtime

install-dev: ## the same with what tests and checks need
	@scripts/environment dev

demo: install ## start everything, replay weeks of billing with incidents, show the anomalies (ARGS=--once ends by itself)
	@$(billingwatch) demo $(ARGS)

serve: install ## run the service (ARGS="--port 8000")
	@$(billingwatch) serve $(ARGS)

tenant: install ## provision a tenant: make tenant NAME=acme
	@test -n "$$NAME" || { echo 'error: the tenant needs a name' >&2; echo 'hint: make tenant NAME=acme' >&2; exit 2; }
	@$(billingwatch) tenants create $(ARGS) -- "$$NAME"

migrate: install ## bring the control plane and every tenant schema to this release
	@$(billingwatch) migrate $(ARGS)

migration: install-dev ## write a revision from the table definitions: make migration PLANE=tenant M="note of a customer" (ARGS="--phase post")
	@test -n "$$PLANE" && test -n "$$M" || { echo 'error: the revision needs a plane and a message' >&2; echo 'hint: make migration PLANE=tenant M="note of a customer"' >&2; exit 2; }
	@.venv/bin/python scripts/migration.py $(ARGS) -- "$$PLANE" "$$M"

bench: install ## measure events per second (BENCH=pipeline: with processing; BENCH=migrate: migration; BENCH=faults: loss under faults)
	@$(billingwatch) bench $(BENCH) $(ARGS)

detection-report: install ## measure how often the detectors are right, on simulated accounts (ARGS="--quick", ARGS="--json")
	@$(billingwatch) bench detection $(ARGS)

compare: install-dev ## schema-per-tenant and row-level isolation, measured side by side (QUICK=1, TENANTS=1,10,100; OUT=where results are kept)
	@$(billingwatch) lab run --out "$(OUT)" $(if $(QUICK),--quick) $(if $(TENANTS),--tenants "$(TENANTS)") $(ARGS)
	@$(billingwatch) lab report --out "$(OUT)"

test: install-dev ## run the tests (ARGS="-n 0 -x tests/test_packaging.py")
	.venv/bin/pytest -n auto $(COVERAGE) $(ARGS)

check: COVERAGE = --cov=billingwatch
check: lint typecheck test ## all that a change must pass: lint, typecheck, and the tests with coverage

lint: install-dev ## ruff and the import contracts
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports --no-logo

typecheck: install-dev ## mypy, strict
	.venv/bin/mypy

format: install-dev ## let ruff format, and mend what it can
	.venv/bin/ruff check --fix-only .
	.venv/bin/ruff format .

pins: ## renew requirements*.txt after a change in pyproject.toml (ARGS=--upgrade takes newer versions)
	@scripts/pin $(ARGS)

clean: ## remove .venv and caches; data stays
	rm -rf .venv build dist htmlcov .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests schema scripts -name __pycache__ -type d -prune -exec rm -rf {} +
