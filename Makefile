# Lifeboat. `make help` lists what there is. Needs Go, bash and make; the rest is installed or built when it is needed.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
export GOTOOLCHAIN := local

BIN := bin
VERSION ?= $(shell git describe --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -X lifeboat/internal/assemble.Version=$(VERSION)
DEV_SERVER = $$(deploy/dev/temporal-server.sh)
DEMO_FLAGS := $(if $(KEEP),--keep) $(if $(KILL),--kill)
TEST_FLAGS ?= -race -count=1 -timeout 40m

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: programs
programs: ## bin/lifeboat and bin/lifeboat-worker alone
	go build -ldflags '$(LDFLAGS)' -o $(BIN)/lifeboat ./cmd/starter
	go build -ldflags '$(LDFLAGS)' -o $(BIN)/lifeboat-worker ./cmd/worker

.PHONY: build
build: programs ## the programs, and once the development server (the real Temporal with its UI), into the user's cache
	@if [ -z "$${TEMPORAL_ADDRESS:-}" ]; then deploy/dev/temporal-server.sh >/dev/null; fi

.PHONY: postgres
postgres: ## see that a PostgreSQL server is installed
	@deploy/dev/postgres.sh

.PHONY: demo
demo: postgres build ## an accident and its recovery, proved. KEEP=1 leaves it up, KILL=1 kills the worker with -9 meanwhile
	@server=; if [ -z "$${TEMPORAL_ADDRESS:-}" ]; then server="--temporal-server $(DEV_SERVER)"; fi; \
	$(BIN)/lifeboat demo $(DEMO_FLAGS) $$server

.PHONY: dev
dev: postgres build ## PostgreSQL with load, Temporal with its UI, and a worker; left up
	@server=; if [ -z "$${TEMPORAL_ADDRESS:-}" ]; then server="--temporal-server $(DEV_SERVER)"; fi; \
	$(BIN)/lifeboat demo --stack $$server

.PHONY: demo-stop
demo-stop: programs ## stop and remove what `make dev` and `make demo KEEP=1` left up
	@$(BIN)/lifeboat demo --stop

# 17 must be there, because half of what differs between majors came with it; 18 where it can be had. 15 or whatever the
# distribution has comes by the target postgres.
.PHONY: test
test: postgres build ## all tests, the demo among them, on real PostgreSQL (15, 17, 18 where it can be had) and real Temporal
	dirs=$$(deploy/dev/postgres-major.sh 17); \
	if other=$$(deploy/dev/postgres-major.sh 18); then dirs="$$dirs:$$other"; else echo "SKIPPED: all tests on PostgreSQL 18, which cannot be had here" >&2; fi; \
	LIFEBOAT_TEST_PG_DIRS="$$dirs" TEMPORAL_DEV_SERVER=$(DEV_SERVER) go test $(TEST_FLAGS) ./...
	$(MAKE) --no-print-directory demo

.PHONY: test-long
test-long: ## the tests at LIFEBOAT_TEST_SCALE times their size (10 by default)
	LIFEBOAT_TEST_SCALE=$${LIFEBOAT_TEST_SCALE:-10} $(MAKE) --no-print-directory test TEST_FLAGS='-race -count=1 -timeout 6h'

.PHONY: lint
lint: ## gofumpt, vet, staticcheck, who may import whom, and what a Temporal workflow must not do
	"$$(deploy/dev/golangci-lint.sh)" run ./...
	"$$(deploy/dev/golangci-lint.sh workflowcheck)" ./workflows

.PHONY: bench
bench: postgres ## benchmarks of the parts; read ratios, not single figures
	go test -run '^$$' -bench . -benchtime 2s ./internal/repo ./internal/wal/... ./internal/blob/fs
	go test -run '^$$' -bench 'OverheadStub|OverheadSocket' -benchtime 2s ./dbcore
	go test -run '^$$' -bench OverheadThroughput -benchtime 60x ./dbcore

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (20s by default)
	@for pkg in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "== $$pkg $$target"; go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $${FUZZTIME:-20s} -fuzzminimizetime 1x $$pkg; \
		done; \
	done

.PHONY: clean
clean: ## remove bin/
	rm -rf $(BIN)
