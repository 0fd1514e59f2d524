# The commands of the project. `make` lists them; each sets up what it needs first.

BIN := .venv/bin

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## create or update .venv with the locked packages and the command .venv/bin/sessionize
	@scripts/setup

.PHONY: demo
demo: setup ## a day of clickstream, from raw events to an Iceberg table you can query
	@$(BIN)/sessionize demo

.PHONY: demo-stream
demo-stream: setup ## a stream without a server: files arrive in a folder, sessions come out, late events are merged
	@$(BIN)/sessionize demo --stream

.PHONY: kafka
kafka: setup ## a local Kafka broker to try streams with, until Ctrl-C (Maven; ARGS="--port 9093")
	@$(BIN)/python -m sessionize.testing.services.broker $(ARGS)

.PHONY: test
test: setup ## run the tests (ARGS="-k gap -x" goes to pytest)
	@scripts/setup sql || echo "test: without dbt and ClickHouse their tests are skipped" >&2
	@$(BIN)/python -m pytest -n 3 --dist worksteal -q $(ARGS)

.PHONY: check
check: lint types imports test ## everything that must pass: ruff, mypy, import-linter, tests; the same as CI

.PHONY: lint types imports
lint: setup
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
types: setup
	@$(BIN)/mypy
imports: setup
	@$(BIN)/lint-imports --no-logo

.PHONY: bench
bench: setup ## measure speed and memory side by side with other tools (takes ARGS)
	@scripts/setup bench
	@$(BIN)/python benchmarks/run.py $(ARGS)

.PHONY: bench-stream
bench-stream: setup ## the same for a Kafka topic: Flink, Kafka Streams, bytewax (takes ARGS; needs Java, Maven)
	@scripts/setup bench-stream || echo "bench-stream: continuing without bytewax" >&2
	@$(BIN)/python benchmarks/stream.py $(ARGS)

.PHONY: bench-tables
bench-tables: setup ## what the tables cost: layouts, a backfill, a day of small epochs, reconciling (takes ARGS)
	@$(BIN)/python benchmarks/tables.py $(ARGS)

.PHONY: bench-decoding
bench-decoding: setup ## how quickly a log of a web server is read, beside DuckDB with a regular expression (takes ARGS)
	@$(BIN)/python benchmarks/decoding.py $(ARGS)

.PHONY: bench-against
bench-against: setup ## compare this version with another one, in pairs (REV=commit, branch or tag; takes ARGS)
	@$(BIN)/python benchmarks/against.py $(REV) $(ARGS)

.PHONY: mutants
mutants: setup ## break every comparison in the rules, one at a time, and see a test fail (some minutes)
	@$(BIN)/python tests/mutants.py

.PHONY: chaos
chaos: setup ## kill, pause and misdate a running pipeline 1,000 times, compare every table (ARGS="--kills 100"; long)
	@$(BIN)/python -m tests.system.chaos $(ARGS)

.PHONY: lock
lock: ## bring the lock files up to date with pyproject.toml (ARGS=--upgrade: to the newest versions)
	@$(LOCK) --all-extras --group dev --output-file requirements.lock pyproject.toml
	@$(LOCK) --constraint requirements.lock --output-file benchmarks/requirements.lock benchmarks/requirements.in
	@$(LOCK) --constraint requirements.lock --output-file benchmarks/stream_peers/requirements.lock \
		benchmarks/stream_peers/requirements.in
	@$(LOCK) --output-file tests/sql/requirements.lock tests/sql/requirements.in
	@! grep -HnE '://' requirements.lock benchmarks/requirements.lock benchmarks/stream_peers/requirements.lock \
		tests/sql/requirements.lock || \
		{ echo "a lock file names an address, which would tie it to one machine"; exit 1; }

# One version of each package for every supported Python and platform, wheels only, no index address.
LOCK = scripts/setup uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --no-build \
	--generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock" $(ARGS)

.PHONY: fmt
fmt: setup ## format the code and apply automatic fixes
	@$(BIN)/ruff check --fix --exit-zero --quiet
	@$(BIN)/ruff format

.PHONY: clean
clean: ## remove caches and build output; environments and data stay
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
