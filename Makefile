# `make run` starts a server with an edge in front of it; `make test` proves all.

SHELL := /bin/bash
export GOTOOLCHAIN := local
# What the tests and the release build: static, without paths of this machine.
export CGO_ENABLED ?= 0
GO      ?= go
BIN     := build/bin
LDFLAGS := -s -w

.PHONY: help run test build patch cross test-upstream witness bench fuzz clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

run: ## build, start a server with a trusted-proxy listener and an edge in front of it
	@scripts/run

test: ## all that CI runs; installs what it needs
	@scripts/test

patch: ## write the patched upstream to build/nats-server, and go.work
	@$(GO) run ./scripts/patch apply

build: patch ## build/bin/nats-server
	@mkdir -p $(BIN)
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/nats-server .

cross: patch ## build for every platform that is supported
	@scripts/cross

test-upstream: patch ## upstream's own tests, on the patched tree and on the pristine one
	@$(GO) run ./scripts/testupstream -all

witness: patch ## leave out one hook at a time: the tests that it names must fail
	@scripts/witness

bench: build ## throughput and connect rate, against upstream's binary
	@$(GO) run ./scripts/bench -pristine "$$(scripts/pristine)"

fuzz: ## each fuzz target for FUZZTIME (default 60s)
	@scripts/fuzz

clean: ## remove what was generated
	rm -rf build go.work go.work.sum
