# Recipes are what CI runs. `make` alone shows them.
CARGO ?= cargo
# Where cargo puts what it builds.
TARGET := $(or $(CARGO_TARGET_DIR),target)
.PHONY: help demo test fmt lint unit real e2e nodes bench build deny size ci portable dist image dist-test reproducible package-lint

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: ## the main job on a scratch node: plan, apply, explain, a manifest fetched, revert; no root, no runtime, no network
	$(CARGO) build --quiet --locked --bin nodeprep --example demo
	$(TARGET)/debug/examples/demo $(TARGET)/debug/nodeprep

test: fmt lint unit e2e nodes ## everything that can run on this machine; says what it skipped and why

fmt: ## formatting
	$(CARGO) fmt --all --check

lint: ## clippy with our lints as errors, docs without warnings
	$(CARGO) clippy --quiet --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --quiet --locked --no-deps --document-private-items

TESTS := $(filter-out real shadow nodes,$(shell sed -n '/^\[\[test\]\]/{n;s/^name = "\(.*\)"/\1/p;}' Cargo.toml))

unit: ## unit tests, golden folders, vectors, properties, crash tests
	$(CARGO) test --quiet --locked --lib --bins $(addprefix --test ,$(TESTS))

e2e: ## cases, vectors and preflights against real containerd, Podman, skopeo and registry on loopback, from the distribution's packages below target/
	tests/real/run

real: e2e

nodes: ## nodeprep on booted nodes with systemd, containerd and Podman as the distribution installs them, below target/
	tests/nodes/run

bench: build ## numbers for docs/benchmarks.md: medians of paired runs
	$(CARGO) build --quiet --release --locked --example bench
	$(TARGET)/release/examples/bench $(TARGET)/release/nodeprep

build: ## the release binary
	$(CARGO) build --release --locked

size: build ## the release binary is at most 6 MB
	@size=$$(stat -c %s $(TARGET)/release/nodeprep); echo "release binary: $$size bytes"; test $$size -le 6000000

PORTABLE := $(shell uname -m)-unknown-linux-musl

portable: ## the static program compiles; `make dist` builds it
	@if rustup target list --installed 2>/dev/null | grep -qx $(PORTABLE) || rustup target add $(PORTABLE) >/dev/null 2>&1; then \
	  CC_$(subst -,_,$(PORTABLE))=$${CC:-gcc} $(CARGO) check --quiet --locked --bins --target $(PORTABLE); \
	else echo "skipped: the static program: rustup target add $(PORTABLE) does not work here"; fi

dist: ## static programs, packages, an image, a bill of materials and checksums, in dist/
	packaging/dist

reproducible: ## the static program, built in two folders, has the same bytes (takes two release builds)
	packaging/reproducible

image: ## the container image from the static program that `make dist` has built, in dist/
	packaging/image dist/nodeprep-*-linux-$$(uname -m) dist/nodeprep-image-$$(uname -m).tar

dist-test: ## what `make dist` has built, on booted nodes: packages, image, the step before kubeadm
	packaging/tools/prepare target/tools rpm image
	for trial in package container-image bootstrap; do \
	  NODEPREP_NODES=required NODEPREP_NODES_BINARY=$$(realpath dist/nodeprep-*-linux-$$(uname -m)) $(CARGO) test --quiet --locked --test nodes -- $$trial || exit 1; \
	done

package-lint: ## lintian and rpmlint on what `make dist` has made; fails on what is not explained
	packaging/lint dist/*.deb dist/*.rpm

deny: ## licences, advisories, bans, sources
	@command -v cargo-deny >/dev/null || $(CARGO) install --quiet --locked cargo-deny@0.20.2
	$(CARGO) deny --locked check bans licenses sources
	@if $(CARGO) deny --locked fetch db >/dev/null 2>&1; then $(CARGO) deny --locked check advisories; \
	else echo "skipped: advisories: the advisory database cannot be fetched from here"; fi

ci: test demo size portable deny ## what .ci/run does
