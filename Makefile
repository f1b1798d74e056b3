# The tasks of this repository. `make` lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BUILT := $(or $(CARGO_TARGET_DIR),target)/debug
CONTROL_PLANE := $(BUILT)/control-plane
# CLUSTER=current: run the demo in the cluster of the current kubeconfig context, after a question.
CLUSTER ?=
# Arguments of the benchmark, such as ARGS="--quick".
ARGS ?=
# The time for each fuzz target, in seconds.
SECONDS_TO_FUZZ ?= 60
IMAGE ?= pat-operator:dev
# The file for the plain manifests, and the kubectl that writes it. Without KUBECTL, kubectl is built.
MANIFESTS ?= dist/install.yaml
KUBECTL ?=
# The base URL of releases, for the krew manifest.
BASE_URL ?= https://git.example.com/pat-operator

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Show the life of tokens on a real API server, in a minute (CLUSTER=current: in your own cluster, after a question)
ifneq ($(filter-out current,$(CLUSTER)),)
	@echo "CLUSTER: '$(CLUSTER)' is not supported; set it to 'current' (the current kubeconfig context) or leave it empty" >&2; exit 2
endif
	@cargo build --locked --workspace --bins
ifeq ($(CLUSTER),current)
	@PATH="$$PATH:$$(dirname "$$(command -v kubectl || $(CONTROL_PLANE) path kubectl)")" \
		PAT_OPERATOR_BIN=$(BUILT)/pat-operator examples/demo/demo.sh --current
else
	@PAT_OPERATOR_BIN=$(BUILT)/pat-operator $(CONTROL_PLANE) run --apply crds/ -- examples/demo/demo.sh
endif

# Most integration tests wait for the API server or for a clock, so more of them run at a time than there are cores.
TEST_THREADS ?= $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))

# Everything is built before the control plane starts, so that the control plane is not idle. All tests share it.
# The API server takes most of the CPU time. GOGC=400 lets its heap grow, so that it collects garbage less often.
IN_CONTROL_PLANE = GOGC=400 RUST_TEST_THREADS=$(TEST_THREADS) $(CONTROL_PLANE) run --apply crds/ --

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
	cargo clippy --locked --test ecosystem -- --deny warnings

.PHONY: doc
doc: ## Check the documentation of the code; warnings are errors
	RUSTDOCFLAGS='--deny warnings' cargo doc --locked --workspace --no-deps

.PHONY: bench
bench: ## Measure the controller on a real control plane (ARGS=--quick: only check that the benchmark works)
	cargo bench --locked --bench operator -- $(ARGS)

.PHONY: bench-issuers
bench-issuers: ## Measure tokens of a slow issuer alongside local tokens (ARGS=--quick: only check that the benchmark works)
	cargo bench --locked --bench operator -- --issuers $(ARGS)

.PHONY: bench-verify
bench-verify: ## Measure the verifier and compare it with bare handlers (ARGS=--quick: only check that the benchmark works)
	cargo bench --locked --bench verify -- $(ARGS)

.PHONY: fuzz
fuzz: ## Fuzz each parser for a minute (needs nightly Rust and cargo-fuzz)
	@cargo +nightly fuzz --version >/dev/null 2>&1 || { \
		echo 'fuzzing needs nightly Rust and cargo-fuzz; run: rustup toolchain install nightly && cargo install cargo-fuzz' >&2; exit 1; }
	for target in $$(cargo +nightly fuzz list); do \
		longest=2048; [ "$$target" != parse_token ] || longest=90; \
		cargo +nightly fuzz run "$$target" -- -max_len=$$longest -max_total_time=$(SECONDS_TO_FUZZ) || exit 1; \
	done

.PHONY: generate
generate: ## Regenerate what is made from code: crds/, pages and pictures of docs/, docs/openapi.json, the chart's copies, schema and README
	cargo run --locked --quiet --bin crdgen crds
	UPDATE_DOCS=1 cargo test --locked --quiet --test docs -- --skip demo:: --skip examples::
	UPDATE_DOCS=1 cargo test --locked --quiet --test integration -- --test-threads=1 chart_crds_match kustomize_base readme_table values_schema_of_tokens defaults_match

# Replaces the whole image reference, including a registry port, tag or digest.
.PHONY: manifests
manifests: ## Write dist/install.yaml, a complete installation for `kubectl apply --server-side -f` (IMAGE=registry.example.com/…)
	@kubectl='$(KUBECTL)'; if [ -z "$$kubectl" ]; then \
		cargo build --locked --quiet --package control-plane; kubectl=$$($(CONTROL_PLANE) path kubectl); fi; \
	mkdir -p "$$(dirname '$(MANIFESTS)')"; \
	{ echo '# Do not run kubectl delete with this file: it contains the CustomResourceDefinitions, so all tokens would be deleted.'; \
	"$$kubectl" kustomize charts/kustomize | sed 's|image: registry\.example\.com/pat-operator:.*|image: $(IMAGE)|'; } > '$(MANIFESTS)'; \
	echo '$(MANIFESTS)'

.PHONY: build
build: ## Build target/release/pat-operator, as in the image
	cargo build --release --locked --no-default-features --bin pat-operator

.PHONY: plugin
plugin: ## Build kubectl-pat with its manual pages and completions for this platform, and the krew manifest, into dist/
	cargo build --release --locked --bin kubectl-pat
	@plugin/pack.sh $(or $(CARGO_TARGET_DIR),target)/release/kubectl-pat dist '$(BASE_URL)'

.PHONY: image
image: ## Build the container image (IMAGE=pat-operator:dev)
	@engine=$$(command -v docker || command -v podman) || { echo 'building an image needs docker or podman; install one of them' >&2; exit 1; }; \
	set -x; "$$engine" build --tag $(IMAGE) .

.PHONY: lint-workflows
lint-workflows: ## Check the workflows in .github/ (needs Go, and zizmor from PyPI)
	go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
	zizmor --offline --persona=auditor .github

.PHONY: deny
deny: ## Check licences, sources and advisories of all dependencies (needs cargo-deny)
	@cargo deny --version >/dev/null 2>&1 || { echo 'this needs cargo-deny; run: cargo install --locked cargo-deny' >&2; exit 1; }
	cargo deny --workspace check
