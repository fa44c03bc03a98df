# What developers and .ci/run call. `make help` says what there is.

# Of the heavy tests and the peers': optimised, but built in a few minutes. PROFILE=release is what users get.
PROFILE ?= profiling
CARGO ?= cargo

.PHONY: help test test-debug test-heavy test-peers counts peers check fmt clippy doc deny demo bench versus chaos

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

test: peers test-debug test-heavy counts test-peers ## every test; as root on Debian it installs the programs of the peers' tests

test-debug: ## the tests that need no other program
	TRUNKLINE_PEERS=skip $(CARGO) test --locked

test-heavy: ## the loads that only an optimised build can carry
	$(CARGO) test --locked --profile $(PROFILE) --test proxy -- --ignored --test-threads=1

CHAOS_SECONDS ?= 60
chaos: ## random faults of the service under mixed load, for CHAOS_SECONDS; CHAOS_SEED repeats a run: tests/proxy/chaos
	CHAOS_SECONDS=$(CHAOS_SECONDS) $(CARGO) test --locked --profile $(PROFILE) --test proxy chaos::soak -- --show-output

test-peers: ## foreign services and clients around the optimised binary: tests/peers
	$(CARGO) test --locked --profile $(PROFILE) --test peers -- --test-threads=1 --show-output

counts: ## what a request costs in allocations, instructions and system calls, each with its bound: tests/counts
	$(CARGO) test --locked --profile $(PROFILE) --test allocations --test instructions -- --show-output
	$(CARGO) test --locked --profile $(PROFILE) --test peers system_calls -- --show-output

peers: ## installs what the peers' tests need, if it may
	@bash tests/peers/install

check: fmt clippy doc deny ## format, lints, documentation, dependencies

fmt: ## fails if rustfmt would change anything
	$(CARGO) fmt --all --check

clippy: ## lints are errors
	$(CARGO) clippy --locked --all-targets -- -D warnings

doc: ## a broken link is an error
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps

deny: ## licences, advisories and sources of dependencies, if cargo-deny is installed
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
		$(CARGO) deny --locked check; \
	else \
		echo "skipped: cargo-deny is not installed (cargo install cargo-deny --locked)"; \
	fi

demo: ## see it work
	$(CARGO) run --locked --release -- demo

bench: ## nanoseconds per head, route and log line: benches/heads.rs
	$(CARGO) bench --locked --profile $(PROFILE)

versus: ## beside HAProxy, nghttpx, Envoy and nginx, a first look: benches/versus/run
	benches/versus/run --quick
