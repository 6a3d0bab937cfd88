# What people type. `make` alone lists it.
SHELL := /bin/bash
CARGO ?= cargo
# For `make demo`: ARGS=--once ends by itself, with the demonstration's exit status.
ARGS ?=
# For `make fuzz`: how long each program runs.
FUZZ_SECONDS ?= 60
# For `make soak`.
SOAK_SECONDS ?= 600

.DEFAULT_GOAL := help
.PHONY: help build demo test soak check fuzz bench install clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

build: ## Compile the program: target/release/switchman
	@scripts/install-deps build
	$(CARGO) build --release --locked

demo: ## See it at work in a temporary folder (ARGS=--once: to the end, without waiting for Ctrl-C)
	@scripts/install-deps build
	$(CARGO) run --locked -- demo $(ARGS)

test: ## Prove it: unit tests, house rules, and real processes, sockets, rsync and etcd
	@scripts/install-deps test
	$(CARGO) test --locked

soak: ## Faults under load for ten minutes, and a table of what each did (SOAK_SECONDS, SOAK_SEED)
	@scripts/install-deps test
	$(CARGO) build --locked --example worker
	SOAK_SECONDS=$(SOAK_SECONDS) $(CARGO) test --locked --test soak -- --nocapture

check: ## What a change must pass before the tests: formatting, lints, documentation
	@scripts/install-deps build
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) rustc --locked --lib --profile check -- --cfg fuzzing
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps --document-private-items

# RUSTC_BOOTSTRAP: the instrumentation is not stable yet, and wants no other compiler. No sanitizer: `unsafe` is denied.
fuzz: ## Throw changed and random bytes at whatever reads bytes from outside (FUZZ_SECONDS for each program)
	@scripts/install-deps fuzz
	@command -v cargo-fuzz >/dev/null || $(CARGO) install --locked cargo-fuzz
	@set -e; for program in $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs))); do \
	  echo "== $$program"; mkdir -p fuzz/corpus/$$program; \
	  RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --dev --sanitizer none $$program fuzz/corpus/$$program fuzz/seeds/$$program \
	    -- -max_total_time=$(FUZZ_SECONDS) -max_len=2048; \
	done

bench: ## Measure: the rule table, then side by side with nginx and HAProxy (BENCH_SECONDS, _ROUNDS, _THREADS, _ONLY)
	@scripts/install-deps bench
	$(CARGO) bench --locked --bench rule_table
	$(CARGO) build --release --locked --example worker
	$(CARGO) bench --locked --bench compare -- $(ARGS)

install: ## Put switchman into cargo's bin folder
	@scripts/install-deps build
	$(CARGO) install --locked --path .

clean: ## Delete what was compiled
	$(CARGO) clean
