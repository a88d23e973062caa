# Two commands matter: `make drill` and `make test`. Each makes ready what it
# needs (tools/bootstrap) and calls nox; the work is in noxfile.py.

.DEFAULT_GOAL := help
.PHONY: help drill test matrix matrix-lowest deny release wheels soak bench numbers picture docs fmt clean

BOOTSTRAP = tools/bootstrap
NOX = $(BOOTSTRAP) nox
ARGS ?=
VERSION ?=

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile
	@echo 'Arguments go in ARGS: make drill ARGS="--full"'

drill: ## Break pools on a real PostgreSQL: QueuePool beside poolproof.Pool
	@$(BOOTSTRAP) python tools/system_packages.py libssl-dev pkg-config pgbouncer iproute2 redis-server || exit 2
	@$(NOX) -s drill -- $(ARGS); status=$$?; case $$status in \
	0 | 1[34]?) ;; \
	1) echo "make drill: status 1, a fault of poolproof (make itself ends with 2)" >&2 ;; \
	*) echo "make drill: status $$status, nothing was proved (make itself ends with 2)" >&2 ;; \
	esac; exit $$status

test: ## Run every check
	@$(BOOTSTRAP) python tools/system_packages.py libssl-dev pkg-config postgresql pgbouncer iproute2 redis-server chromium
	@$(NOX) -s tests; tests=$$?; $(NOX) --parallel=2 -t beside; beside=$$?; \
	[ $$tests = 0 ] || echo "make test: the session tests failed; see above" >&2; \
	exit $$((tests > beside ? tests : beside))

matrix: ## Run the contract on every Python and SQLAlchemy line (make test runs some)
	@$(BOOTSTRAP) python tools/system_packages.py libssl-dev pkg-config postgresql
	@$(BOOTSTRAP) python tools/testing_root.py
	@POOLPROOF_TEST_DRIVERS=psycopg2,psycopg,pg8000 POOLPROOF_TEST_STEP=1 \
	POOLPROOF_TEST_DBAPIS=plain,socket \
	POOLPROOF_TEST_POOLS=queue,poolproof POOLPROOF_TEST_ROWS=all \
	POOLPROOF_TEST_FOLDERS="tests/pool tests/fork tests/retry tests/leases" \
	$(NOX) --parallel=2 -s matrix free_threads

matrix-lowest: ## Run the contract on the oldest versions that pyproject.toml allows
	@$(NOX) -s lowest lowest_sqlalchemy

deny: ## Judge the licences, advisories and duplicates of the Rust dependencies
	@$(NOX) -s deny

release: ## Changelog, version, every check, a tag: make release VERSION=1.2.3; pushes nothing
	@$(NOX) -s release -- "$(VERSION)"

wheels: ## Build the sdist and the wheels into dist/, and try each
	@$(NOX) -s wheels

soak: ## Run the long tests; repeat the pool and fork tests for ARGS minutes (10)
	@tools/bootstrap python tools/system_packages.py libssl-dev pkg-config postgresql pgbouncer iproute2 redis-server
	@$(NOX) -s soak -- $(ARGS)

bench: ## Run the benchmarks
	@$(NOX) -s bench -- $(ARGS)

numbers: ## Run the examples with each pool, and write the results into README.md
	@$(BOOTSTRAP) python tools/system_packages.py libssl-dev pkg-config redis-server
	@$(NOX) -s numbers

picture: ## Run the drill, and draw the picture of its page that README.md shows
	@$(BOOTSTRAP) python tools/system_packages.py libssl-dev pkg-config pgbouncer iproute2 redis-server chromium
	@$(NOX) -s picture

docs: ## Build the documentation into docs/_build/html
	@$(NOX) -s docs

fmt: ## Format the code
	@$(NOX) -s fmt

clean: ## Remove what was built in the checkout (not the shared cache)
	rm -rf .nox dist docs/_build target
	rm -rf .mypy_cache .pytest_cache .ruff_cache
