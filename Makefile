# Everything that people and CI do here. `make` lists it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BUILT := $(or $(CARGO_TARGET_DIR),target)/debug
CONTROL_PLANE := $(BUILT)/control-plane
# CLUSTER=current: the demo in the cluster of your kubeconfig's current context, after asking.
CLUSTER ?=
# ARGS="--quick": given on to the bench.
ARGS ?=
# How long to fuzz each, in seconds.
SECONDS_TO_FUZZ ?= 60
IMAGE ?= pat-operator:dev
# Where the plain manifests go, and the kubectl that writes them; without one it is built.
MANIFESTS ?= dist/install.yaml
KUBECTL ?=
# Where releases are published, for the krew manifest.
BASE_URL ?= https://git.example.com/pat-operator

.PHONY: help
help: ## List what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## See tokens live and die on a real API server, in a minute (CLUSTER=current: in your own cluster, after asking)
ifneq ($(filter-out current,$(CLUSTER)),)
	@echo "CLUSTER is '$(CLUSTER)': make it 'current' (your kubeconfig's current context), or leave it out" >&2; exit 2
endif
	@cargo build --locked --workspace --bins
ifeq ($(CLUSTER),current)
	@PATH="$$PATH:$$(dirname "$$(command -v kubectl || $(CONTROL_PLANE) path kubectl)")" \
		PAT_OPERATOR_BIN=$(BUILT)/pat-operator examples/demo/demo.sh --current
else
	@PAT_OPERATOR_BIN=$(BUILT)/pat-operator $(CONTROL_PLANE) run --apply crds/ -- examples/demo/demo.sh
endif

# Everything is built before the control plane starts, so that it is not idle. All tests share it.
IN_CONTROL_PLANE := $(CONTROL_PLANE) run --apply crds/ --

.PHONY: test
test: lint ## Check format and lints, and run the unit and integration tests (needs only Rust and the control plane)
	cargo test --locked --workspace --no-run
	$(CONTROL_PLANE) build > /dev/null
	$(IN_CONTROL_PLANE) cargo test --locked --workspace --no-fail-fast

.PHONY: test-ecosystem
test-ecosystem: ## Run the tests with third-party programs: proxies, GitOps tools, Velero, shells, client libraries
	cargo test --locked --no-run --test ecosystem
	$(CONTROL_PLANE) build --ecosystem > /dev/null
	$(IN_CONTROL_PLANE) cargo test --locked --no-fail-fast --test ecosystem

.PHONY: lint
lint: ## Check format and lints; warnings are errors
	cargo fmt --all --check
	rustfmt --check --edition 2024 fuzz/fuzz_targets/*.rs
	cargo clippy --locked --workspace --all-targets -- --deny warnings

.PHONY: doc
doc: ## Check the documentation of the code; warnings are errors
	RUSTDOCFLAGS='--deny warnings' cargo doc --locked --workspace --no-deps

.PHONY: bench
bench: ## Measure the release build on a real control plane (ARGS=--quick: only see that it works)
	cargo bench --locked --bench operator -- $(ARGS)

.PHONY: bench-verify
bench-verify: ## Measure the verifier beside handlers that do nothing (ARGS=--quick: only see that it works)
	cargo bench --locked --bench verify -- $(ARGS)

.PHONY: fuzz
fuzz: ## Throw a minute of random text at each parser (needs nightly Rust and cargo-fuzz)
	@cargo +nightly fuzz --version >/dev/null 2>&1 || { \
		echo 'fuzzing needs nightly Rust and cargo-fuzz: rustup toolchain install nightly && cargo install cargo-fuzz' >&2; exit 1; }
	for target in $$(cargo +nightly fuzz list); do \
		longest=2048; [ "$$target" != parse_token ] || longest=90; \
		cargo +nightly fuzz run "$$target" -- -max_len=$$longest -max_total_time=$(SECONDS_TO_FUZZ) || exit 1; \
	done

.PHONY: generate
generate: ## Make anew what is made from code: crds/, pages and pictures of docs/, docs/openapi.json, the chart's copies, schema and README
	cargo run --locked --quiet --bin crdgen crds
	UPDATE_DOCS=1 cargo test --locked --quiet --test docs -- --skip demo:: --skip examples::
	UPDATE_DOCS=1 cargo test --locked --quiet --test integration -- --test-threads=1 chart_crds_match kustomize_base readme_table values_schema_of_tokens

# The image is put in as it stands, whatever it has of port, tag and digest.
.PHONY: manifests
manifests: ## Write dist/install.yaml: all that a cluster needs, for `kubectl apply --server-side -f` (IMAGE=registry.example.com/…)
	@kubectl='$(KUBECTL)'; if [ -z "$$kubectl" ]; then \
		cargo build --locked --quiet --package control-plane; kubectl=$$($(CONTROL_PLANE) path kubectl); fi; \
	mkdir -p "$$(dirname '$(MANIFESTS)')"; \
	"$$kubectl" kustomize charts/kustomize | sed 's|image: registry\.example\.com/pat-operator:.*|image: $(IMAGE)|' > '$(MANIFESTS)'; \
	echo '$(MANIFESTS)'

.PHONY: build
build: ## Build target/release/pat-operator, as the image has it
	cargo build --release --locked --no-default-features --bin pat-operator

.PHONY: plugin
plugin: ## Build kubectl-pat with its manual pages and completions for this platform, and the krew manifest, into dist/
	cargo build --release --locked --bin kubectl-pat
	@plugin/pack.sh $(or $(CARGO_TARGET_DIR),target)/release/kubectl-pat dist '$(BASE_URL)'

.PHONY: image
image: ## Build the container image (IMAGE=pat-operator:dev)
	@engine=$$(command -v docker || command -v podman) || { echo 'an image is built by docker or podman: install one' >&2; exit 1; }; \
	set -x; "$$engine" build --tag $(IMAGE) .

.PHONY: lint-workflows
lint-workflows: ## Check .github/ (needs Go, and zizmor from PyPI)
	go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
	zizmor --offline --persona=auditor .github

.PHONY: deny
deny: ## Check licences, sources and advisories of all dependencies (needs cargo-deny)
	@cargo deny --version >/dev/null 2>&1 || { echo 'this needs cargo-deny: cargo install --locked cargo-deny' >&2; exit 1; }
	cargo deny --workspace check
