# cascade: build, try, check, install. `make` builds the binary that is shipped.

PREFIX  ?= /usr/local
DESTDIR ?=
CARGO   ?= cargo

# The build has an explicit target (see .cargo/config.toml), which is the machine's own.
TARGET_DIR ?= $(or $(CARGO_TARGET_DIR),target)
HOST       := $(shell rustc --print host-tuple 2>/dev/null)
# Without rustc (sudo make install) there is what was built.
BINARY     := $(if $(HOST),$(TARGET_DIR)/$(HOST)/release/cascade,$(firstword $(wildcard $(TARGET_DIR)/*/release/cascade)))

BINDIR := $(DESTDIR)$(PREFIX)/bin
MANDIR := $(DESTDIR)$(PREFIX)/share/man
PAGES  := $(wildcard man/*.[1-8])

.PHONY: build demo check lint fuzz scale swarm limits install uninstall clean

build:
	$(CARGO) build --release

demo: build
	@CASCADE=$(BINARY) tests/demo.sh

check:
	$(CARGO) test

# A swarm behind slow uplinks, in network namespaces of its own (root). SWARM="--size 64 --only map" is quick;
# benches/swarm/lab.py --help has the rest.
swarm: build
	python3 benches/swarm/lab.py --binary $(BINARY) $(SWARM)

# Whether the rate limits hold to within 5 % over ten seconds.
limits: build
	python3 benches/swarm/limits.py --binary $(BINARY)

# Each fuzz target for so many seconds; what is found comes to lie in fuzz/artifacts. `make check` has the same
# invariants as property tests, and all of tests/corpus.
FUZZ_SECONDS ?= 600
FUZZ_TARGETS ?= $(notdir $(wildcard tests/corpus/*))
fuzz:
	@$(CARGO) +nightly fuzz --version >/dev/null 2>&1 || { \
		echo 'make fuzz needs a nightly toolchain (rustup toolchain install nightly) and cargo-fuzz (cargo install cargo-fuzz)' >&2; exit 1; }
	for target in $(FUZZ_TARGETS); do \
		mkdir -p fuzz/corpus/$$target && \
		$(CARGO) +nightly fuzz run $$target fuzz/corpus/$$target tests/corpus/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=1024 -timeout=20 || exit 1; \
	done

# A tracker that knows a million peers: what a list costs, its memory, how it forgets them, how it saves them.
scale:
	$(CARGO) test --release --lib -- --ignored --nocapture --test-threads 1 a_million_peers
	$(CARGO) test --release --test scale -- --ignored --nocapture --test-threads 1

lint:
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path fuzz/Cargo.toml
	$(CARGO) clippy --all-targets -- -D warnings
	@command -v mandoc >/dev/null || { echo 'make lint needs mandoc' >&2; exit 1; }
	# Pages refer to each other before they are installed: all else that lint finds, down to style, is an error.
	! mandoc -T lint $(PAGES) 2>/dev/null | grep -v 'referenced manual not found'

install:
	@test -x $(BINARY) || { echo "cannot install $(BINARY): it is not built; run make first" >&2; exit 1; }
	install -d $(BINDIR)
	install -m 755 $(BINARY) $(BINDIR)/cascade
	for page in $(PAGES); do \
		section=$${page##*.}; \
		install -d $(MANDIR)/man$$section && install -m 644 $$page $(MANDIR)/man$$section/ || exit 1; \
	done

uninstall:
	rm -f $(BINDIR)/cascade
	for page in $(PAGES); do rm -f $(MANDIR)/man$${page##*.}/$${page#man/}; done

clean:
	$(CARGO) clean
