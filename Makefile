# Two commands do everything: `make run` shows the main job, `make test` runs the tests.
# Each target sets up what it needs (a virtual environment in .venv, the Rust extension in it).

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
CARGO  ?= cargo
STAMPS := $(VENV)/.stamps
TARGET := $(or $(CARGO_TARGET_DIR),target)

RUST_SOURCES := $(shell find rust Cargo.toml Cargo.lock -type f \( -name '*.rs' -o -name '*.toml' -o -name '*.lock' \) 2>/dev/null)

export VIRTUAL_ENV := $(abspath $(VENV))
export PATH := $(abspath $(BIN)):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONHOME PYTHONPATH

.PHONY: help run test test-rust test-python soak check fmt bench bench-rust bench-python bench-check fuzz loom build wheel clean
.PHONY: docs conformance compatibility deploy-crds bench-compare bench-scale bench-load load-tools corpus-scores crd-corpora crds floods connections optimised

help: ## this text
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 18

run: build ## the waypoint scenario for real: four calls, the fourth limited
	$(BIN)/kgw demo $(ARGS)

test: test-rust test-python ## all tests

test-rust: ## Rust unit, property and vector tests
	$(CARGO) test --workspace --quiet

test-python: build $(STAMPS)/test ## Python tests, with real sockets and a real Envoy
	$(BIN)/python -m pytest $(ARGS)

SOAK_SECONDS ?= 60

soak: build $(STAMPS)/test ## reloads, ends and upgrades under load, each for SOAK_SECONDS
	KGW_SOAK_SECONDS=$(SOAK_SECONDS) $(BIN)/python -m pytest tests/lifecycle/test_soak.py -s $(ARGS)

# CI uses Rust 1.95. A newer one may know lints that nobody has looked at yet; they are errors here,
# and in no other target.
check: build $(STAMPS)/test $(STAMPS)/lint ## formatting, lints, types, stubs
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path fuzz/Cargo.toml
	$(CARGO) clippy --workspace --all-targets --features kgw-engine/bench --quiet -- -D warnings
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest kgw._native --concise

docs: $(STAMPS)/docs ## the documentation as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

fmt: $(STAMPS)/lint ## format everything
	$(CARGO) fmt
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml
	$(BIN)/ruff check --fix --exit-zero
	$(BIN)/ruff format

bench: bench-rust bench-python ## micro benchmarks of the primitives

bench-rust: ## in Rust
	$(CARGO) bench --workspace --benches --features kgw-engine/bench

bench-python: optimised ## through the FFI, with an optimised extension
	$(BIN)/python -m pytest benches --benchmark-enable --benchmark-only $(ARGS)

bench-compare: optimised $(STAMPS)/compare ## the primitives next to what people use today (ARGS='--only limit')
	$(BIN)/python -m benches.compare $(ARGS)

# Built as wheels are, with names for profiles. ARGS: --update, --only CASE, --profile CASE.
bench-check: $(STAMPS)/test ## instructions per request against the baseline (valgrind is needed)
	@command -v valgrind >/dev/null || { \
	  echo 'make bench-check needs valgrind (Debian and Ubuntu: apt-get install valgrind)' >&2; exit 1; }
	$(CARGO) build --profile bench --quiet -p kgw-engine --example serve
	$(BIN)/python -m benches.instructions $(TARGET)/release/examples/serve $(ARGS)

# KGW=PATH measures that kgw, and builds none.
bench-scale: optimised ## 10,000 HTTPRoutes of ten rules and 2,000 Services: loaded, then changed
	$(BIN)/python -m benches.scale $(ARGS)

bench-load: load-tools $(if $(KGW),$(STAMPS)/test,optimised) ## kgw, Envoy, HAProxy and nginx on the same work (25 minutes; ARGS=--quick)
	$(BIN)/python -m benches.load run --tools $(TARGET)/bench-load $(if $(KGW),--program kgw=$(KGW)) $(ARGS)

load-tools:
	$(MAKE) --silent -C benches/load/csrc OUT=$(abspath $(TARGET))/bench-load

# Not a part of `make test`: the models take 9 s, but what loom depends on must be built a second time
# with its cfg, over two minutes of CPU on a clean machine. Run it after a change in rust/kgw-limit.
loom: ## every interleaving of the lock-free code
	RUSTFLAGS="--cfg loom" $(CARGO) test -p kgw-limit --release --lib loom --target-dir $(TARGET)/loom

FUZZ_TARGETS := $(patsubst fuzz/fuzz_targets/%.rs,%,$(wildcard fuzz/fuzz_targets/*.rs))
FUZZ_SECONDS ?= 60

fuzz: ## every parser for FUZZ_SECONDS (nightly Rust and cargo-fuzz are needed)
	@$(CARGO) +nightly --version >/dev/null 2>&1 || { \
	  echo 'make fuzz needs nightly Rust: rustup toolchain install nightly --profile minimal' >&2; exit 1; }
	@$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install cargo-fuzz --quiet
	$(PYTHON) fuzz/seed.py
	for target in $(FUZZ_TARGETS); do \
	  $(CARGO) +nightly fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048 || exit 1; \
	done

# What takes too long for each change, or needs a quiet machine. docs/reliability.md has the results.
corpus-scores: build $(STAMPS)/test ## hostile input and HTTP/2 conformance, kgw and Envoy side by side
	$(BIN)/python -m tests.hostile.scores $(ARGS)
	$(BIN)/python -m tests.h2spec.scores

conformance: build $(STAMPS)/test ## the Gateway API's conformance tests, and docs/conformance.md
	$(BIN)/python -m tests.conformance.report

compatibility: build $(STAMPS)/test ## docs/kgateway-compatibility.md: the fields of kgateway's policies
	$(BIN)/python -m tests.kgateway.page

deploy-crds: build $(STAMPS)/test ## deploy/crds: the definitions of kgateway's kinds, made of the models
	$(BIN)/python -m tests.kgateway.crds

crd-corpora: build $(STAMPS)/test ## the Gateway API's examples and CEL tests (GATEWAY_API=CHECKOUT; Go is needed)
	@test -n "$(GATEWAY_API)" || { echo 'make crd-corpora GATEWAY_API=CHECKOUT of the release' >&2; exit 1; }
	$(BIN)/python -m tests.crds.scores $(GATEWAY_API) $(ARGS)

crds: $(STAMPS)/test ## the definitions of kinds from a checkout (GATEWAY_API=CHECKOUT)
	@test -n "$(GATEWAY_API)" || { echo 'make crds GATEWAY_API=CHECKOUT of the release' >&2; exit 1; }
	$(BIN)/python rust/kgw-schema/crds/pack.py gateway-api $(GATEWAY_API)/config/crd

floods: optimised ## each flood against kgw and Envoy, timed
	$(BIN)/python -m tests.floods.scores $(ARGS)

connections: optimised ## what each of 10,000 idle connections costs, kgw and Envoy
	$(BIN)/python -m tests.faults.connections $(ARGS)

optimised: $(STAMPS)/test
	$(BIN)/maturin develop --release --quiet
	rm -f $(STAMPS)/native

build: $(STAMPS)/native ## the Rust extension, in .venv

wheel: $(STAMPS)/venv ## an optimised wheel in dist/
	$(BIN)/maturin build --release --out dist

clean: ## remove everything that was built
	rm -rf $(VENV) target dist site python/kgw/_native*.so

$(STAMPS)/venv: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'kgw needs Python 3.11 or later; name one: make PYTHON=python3.11' >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1' 'maturin>=1.9.4,<2'
	@touch $@

$(STAMPS)/native: $(STAMPS)/venv $(RUST_SOURCES)
	$(BIN)/maturin develop --quiet
	$(BIN)/python -m compileall -q python/kgw # some environments keep Python from doing so itself
	@touch $@

$(STAMPS)/test: $(STAMPS)/venv
	$(BIN)/python -m pip install --quiet --group test --group envoy
	@touch $@

$(STAMPS)/docs: $(STAMPS)/venv
	$(BIN)/python -m pip install --quiet --group docs
	@touch $@

$(STAMPS)/compare: $(STAMPS)/venv
	$(BIN)/python -m pip install --quiet --group compare-primitives
	@touch $@

$(STAMPS)/lint: $(STAMPS)/venv
	$(BIN)/python -m pip install --quiet --group lint
	@touch $@
