SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Tests and checks are of services with traces; what is released has none unless it is asked for.
TRACES := --features otel
TARGET := $(or $(CARGO_TARGET_DIR),target)
# The page that gateways serve. Without Node it is left out.
WEB := gateway/web
NODE := 20.19.0
# Folders stand here for files that are gone.
WEB_SOURCES := $(shell find $(WEB) -maxdepth 1 -type f) $(shell find $(WEB)/src)

# $(call need,name,command that prints its version,least version,how to get it)
define need
@have=$$($(2) 2>/dev/null) || { echo "$(1) is missing ($(3) or later is needed): $(4)" >&2; exit 1; }; \
printf '%s\n' "$(3)" "$$have" | sort -VC || { echo "$(1) is $$have, $(3) or later is needed: $(4)" >&2; exit 1; }
endef
HAS_NODE := command -v npm >/dev/null && printf '%s\n' $(NODE) "$$(node --version | tr -d v)" | sort -VC

.PHONY: help
help: ## Show this
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: run
run: .needs-cargo .page ## Build and run everything here. GATEWAYS=2 HISTORIES=2 FEEDS=deploy/feeds.toml GATEWAY_PORT=4000 NATS_SERVERS=1 SECURE= NATS_PORT=4222 ADMIN_PORT=4500 API_SECRET=… AUTH=open LIMITS=on FRESH=1 DEATHS=5
	cargo build --release --workspace --bins
	exec $(TARGET)/release/switchboard up

.PHONY: test
test: .needs-cargo .needs-node .page ## Run all tests
	cargo build --workspace --bins $(TRACES)
	$(TARGET)/debug/switchboard tools
	if command -v go >/dev/null; then $(TARGET)/debug/switchboard tools --cli; fi # the test of the guide is skipped without
	for tests in js browser; do npm ci --prefix deploy/tests/$$tests --no-audit --no-fund; done
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-4} cargo test --workspace $(TRACES) -- --skip people_use # most wait most of the time
	RUST_TEST_THREADS=2 cargo test --workspace $(TRACES) --test system -- people_use # a browser does not

.PHONY: test-long
test-long: .needs-cargo ## Whatever breaks under traffic, and whatever comes against a live gateway, an hour each, and a rolling restart under 1,000: CHAOS_SECONDS=3600 CHAOS_SEED=… FUZZ_SECONDS=3600 FUZZ_SEED=…
	cargo build --workspace --bins $(TRACES)
	$(TARGET)/debug/switchboard tools
	cargo test -p switchboard --test system -- --ignored --nocapture --test-threads 1 for_long

.PHONY: check
check: .needs-cargo .page ## Formatting, lints, documentation, the page, containers, what Kubernetes gets
	cargo fmt --all --check
	cargo clippy --workspace --all-targets $(TRACES) -- -D warnings
	cargo clippy --workspace -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps $(TRACES)
	if $(HAS_NODE); then npm run check --prefix $(WEB); fi
	cargo build --workspace --bins $(TRACES) # whose --help the files of deploy/ have to agree with
	python3 deploy/docker/check.py --self-test
	python3 deploy/kubernetes/check.py --binaries $(TARGET)/debug --self-test

.PHONY: images
images: .needs-cargo ## Build the container images without a registry, and run them; as root, with buildah and runc
	python3 deploy/docker/build.py

.PHONY: screenshots
screenshots: .needs-cargo .needs-node .page ## Draw deploy/screenshots anew, with chromium
	cargo build --workspace --bins $(TRACES)
	$(TARGET)/debug/switchboard tools
	npm ci --prefix deploy/tests/browser --no-audit --no-fund
	SCREENSHOTS=$(CURDIR)/deploy/screenshots REQUIRE_ALL=1 cargo test --workspace $(TRACES) --test system -- people_use

.PHONY: load
load: .needs-cargo .page ## Put load on what runs: make load ARGS="lobby --students 1000"
	cargo build --release --workspace --bins --quiet
	exec $(TARGET)/release/switchboard load $(ARGS)

.PHONY: .needs-cargo
.needs-cargo:
	$(call need,cargo,cargo --version | cut -d' ' -f2,1.89.0,https://rustup.rs)

.PHONY: .needs-node
.needs-node:
	$(call need,node,node --version | tr -d v,$(NODE),https://nodejs.org)
	$(call need,npm,npm --version,9.0.0,it comes with Node)

.PHONY: .page
.page:
	@if $(HAS_NODE); then $(MAKE) --silent --no-print-directory $(WEB)/dist/index.html; else \
	echo "the page of GET / is left out: Node $(NODE) or later makes it, with npm (https://nodejs.org)" >&2; \
	[ "$${REQUIRE_ALL:-}" != 1 ]; fi

$(WEB)/dist/index.html: $(WEB)/node_modules/.package-lock.json $(WEB_SOURCES)
	npm run build --prefix $(WEB)

# The list that npm writes of what it has installed.
$(WEB)/node_modules/.package-lock.json: $(WEB)/package.json $(WEB)/package-lock.json
	npm ci --prefix $(WEB) --no-audit --no-fund
