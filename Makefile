# What people type. `make` alone lists it.
SHELL := /bin/bash
CARGO ?= cargo
# For `make demo`: ARGS=--once ends by itself, with the demonstration's exit status.
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help build demo test check bench install clean

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

check: ## What a change must pass before the tests: formatting, lints, documentation
	@scripts/install-deps build
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps --document-private-items

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
