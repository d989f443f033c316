# Each target sets itself up: it needs Python 3.11, 3.12 or 3.13, and make, nothing else, and is quick the second time.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed
DEV    := $(VENV)/.installed-dev
export DAGSTER_HOME ?= $(CURDIR)/.dagster
export DAGSTER_DISABLE_TELEMETRY := 1

.DEFAULT_GOAL := help
.PHONY: help install demo live dev test foreign test-long machines torture image-steps lint format docs docs-site lock clean bench-install bench-ingest bench-wide bench-identity bench-spark bench-review bench-decisions bench-delivery bench-live bench-destinations bench-warehouse bench-functions bench-erase bench-analytics bench-definitions bench-first-load bench-ui screenshots

help: ## Show what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

install: $(READY) ## Make the virtual environment (every other target does this too; what the tests need comes with theirs)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "heap_assets needs Python 3.11, 3.12 or 3.13; set PYTHON=python3.x")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python install.py
	@touch $@

$(DEV): $(READY)
	@$(BIN)/python install.py dev
	@touch $@

demo: $(READY) ## Do the main job on a sample company: no account, no network
	@$(BIN)/heap-assets demo

live: $(READY) ## Let the demo's people act, and watch what comes in and goes out (http://127.0.0.1:8484)
	@$(BIN)/heap-assets live --demo

dev: $(READY) ## Open the Dagster UI on that state (http://localhost:3000)
	@$(BIN)/heap-assets dev

WORKERS  ?= 4
test: $(DEV) ## Run the tests, of one room with ROOM=, WORKERS at once (4: on two cores, as half of their time is waiting for processes and servers)
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(if $(ROOM),heap_assets_tests/$(ROOM))

test-long: $(DEV) ## All examples of the properties, and 2,000 random tables, each in a process of its own (an hour)
	@HEAP_ASSETS_LONG=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile $$(grep -rl "examples import examples" heap_assets_tests)
	@HEAP_ASSETS_RANDOM_TABLES=2000 $(BIN)/python -m pytest -q heap_assets_tests/sources/heap_connect/test_random_tables.py

machines: $(DEV) ## Build 60 days of 50 tables by four machines on one lake, some of them killed (an hour)
	@HEAP_ASSETS_MACHINES=4 HEAP_ASSETS_MACHINE_TABLES=50 HEAP_ASSETS_MACHINE_DAYS=60 $(BIN)/python -m pytest -q heap_assets_tests/machines

torture: $(DEV) ## Try to break it for hours: kills, faults, mutated files, manifests, hostile servers, races (ARGS= for less)
	@$(BIN)/python -m heap_assets_tests.torture $(ARGS)

SEEDS    ?= 1
foreign: $(DEV) ## Run SEEDS companies that nobody here designed, from an empty folder to profiles at Heap (PostgreSQL)
	@$(BIN)/python -m heap_assets_tests.foreign --seeds $(SEEDS)

image-steps: $(DEV) ## Run the steps of deploy/Dockerfile in an empty folder, and what compose.yaml's containers run (root, PostgreSQL)
	@$(BIN)/python -m heap_assets_tests.deployment

lint: $(DEV) ## ruff, mypy --strict, import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q -p no:cacheprovider heap_assets_tests/test_house.py

format: $(DEV) ## Format the code
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

docs: $(DEV) ## Write the pages of docs/ that are made from code
	@$(BIN)/heap-assets docs
	@$(BIN)/python -m heap_assets_tests.connectors.table

docs-site: $(DEV) ## Build the documentation site into docs/_site; a broken link or anchor fails
	@$(BIN)/python -m sphinx -q -W --keep-going -d docs/_site/.cache docs docs/_site/html
	@echo "docs/_site/html/index.html"

ROWS     ?= 1000000
LINKS    ?= 5000000
PROFILES ?= 1000000
SEED     ?= 1
TABLES   ?= 200
bench-install: $(READY) ## Install from a clone with empty caches, as before (pip, all at once) and as now, up to the demo's first line
	@$(BIN)/python benchmarks/installation.py

bench-ingest: $(DEV) ## Ingest ROWS rows through this and through tap-heap
	@$(BIN)/python benchmarks/ingest.py --rows $(ROWS) --seed $(SEED)

bench-wide: $(DEV) ## Build a day of TABLES event tables as one run, against Dagster's own time for as many events
	@$(BIN)/python benchmarks/wide_day.py --tables $(TABLES)

bench-identity: $(DEV) ## Resolve LINKS links through this and its peers
	@$(BIN)/python benchmarks/identity.py --links $(LINKS) --seed $(SEED)

bench-spark: $(DEV) ## LINKS links through Spark and the native engine: equal rows, seconds
	@$(BIN)/pip install --quiet -e '.[spark]' && $(BIN)/python benchmarks/identity_spark.py --links $(LINKS) --seed $(SEED)

bench-review: $(DEV) ## Decisions against precision and recall: the queues of a foreign company and of the demo, decided by the truth
	@$(BIN)/python benchmarks/review.py --folder data/demo --seed $(SEED)

bench-decisions: $(DEV) ## What 10,000 decisions of people cost among LINKS links
	@$(BIN)/python benchmarks/decisions.py --links $(LINKS) --seed $(SEED)

bench-destinations: $(DEV) ## ROWS rows to each vendor's local server, beside drt-core (ONLY= for some connectors)
	@$(BIN)/python benchmarks/destinations.py --rows $(or $(if $(filter command,$(firstword $(origin ROWS))),$(ROWS)),100000) --only $(ONLY)

bench-delivery: $(DEV) ## Difference of PROFILES profiles and delivery, against drt-core
	@$(BIN)/python benchmarks/delivery.py --profiles $(PROFILES)

bench-live: $(DEV) ## RATE events a second for SECONDS into `heap-assets live`, and how soon changed profiles arrive (IDENTIFIERS)
	@$(BIN)/python benchmarks/live.py --identifiers $(or $(IDENTIFIERS),1000000) --rate $(or $(RATE),200 1000) --seconds $(or $(SECONDS),60)

bench-warehouse: $(DEV) ## Read and publish ROWS rows, against google-cloud-bigquery and dlt
	@$(BIN)/python benchmarks/warehouse.py --rows $(ROWS) --seed $(SEED)

bench-functions: $(DEV) ## ROWS rows through JavaScript functions, beside mini-racer and dukpy where they are installed
	@$(BIN)/python benchmarks/functions.py --rows $(ROWS)

EVENTS   ?= 2000000
bench-analytics: $(DEV) ## Audiences, a signal, a funnel and paths over EVENTS events, against DuckDB running our SQL
	@$(BIN)/python benchmarks/analytics.py --events $(EVENTS)

bench-erase: $(DEV) ## Erase people from a lake of ROWS rows, against Polars rewriting files
	@$(BIN)/python benchmarks/erase.py --rows $(ROWS)

bench-definitions: $(DEV) ## Load the definitions of 500 event tables, against Dagster's own time for as many assets
	@$(BIN)/python benchmarks/definitions.py

bench-first-load: $(DEV) ## The first load of 700 dumps of 200 tables by init and dev alone (hours)
	@$(BIN)/python benchmarks/first_load.py

screenshots: $(DEV) ## Renew the pictures in docs/images (Chromium)
	@$(BIN)/python benchmarks/screenshots.py

bench-ui: $(DEV) ## Open one of 200 event tables with three years of days in Chromium
	@$(BIN)/python benchmarks/ui.py

lock: ## Write constraints.txt anew from what pyproject.toml allows today
	@rm -rf .venvs/lock && $(PYTHON) -m venv .venvs/lock
	@.venvs/lock/bin/pip install --quiet --disable-pip-version-check '.[dev]'
	@.venvs/lock/bin/pip freeze --exclude heap_assets --exclude pip --exclude setuptools | grep -v '^-e\|@ ' > constraints.txt

clean: ## Remove the demo's data and Dagster's state (not the virtual environment)
	@rm -rf data .dagster
