# cascade: build, try, check, install. `make` builds the binary that is shipped.

PREFIX  ?= /usr/local
DESTDIR ?=
CARGO   ?= cargo

# The build has an explicit target (see .cargo/config.toml), which is the machine's own.
TARGET_DIR ?= $(or $(CARGO_TARGET_DIR),target)
HOST       := $(shell rustc --print host-tuple 2>/dev/null)
# Without rustc (sudo make install) there is what was built.
BINARY     := $(if $(HOST),$(TARGET_DIR)/$(HOST)/release/cascade,$(firstword $(wildcard $(TARGET_DIR)/*/release/cascade)))

# Tools that are not on the machine are installed here.
TOOLS      ?= $(TARGET_DIR)/tools
# Where what is built besides goes: completions, the stages of packages, the packages.
BUILT      := $(patsubst %/,%,$(dir $(BINARY)))

BINDIR  ?= $(PREFIX)/bin
MANDIR  ?= $(PREFIX)/share/man
# Where the shells look for completions, and systemd for units.
BASHDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR  ?= $(PREFIX)/share/zsh/site-functions
FISHDIR ?= $(PREFIX)/share/fish/vendor_completions.d
UNITDIR ?= $(PREFIX)/lib/systemd/system
DOCDIR  ?= $(PREFIX)/share/doc/cascade
PAGES   := $(wildcard man/*.[1-8])
UNITS   := $(wildcard units/*.service units/*.socket)
# Configurations of the daemons, explained. The Debian package has them in /etc/cascade, too.
CONFIGS := $(wildcard packaging/examples/*.toml)
INSTALL_PROGRAM ?= install -m 755
INSTALL_DATA    ?= install -m 644

# What is installed besides the program, as FILE:WHERE.
DATA := \
	$(BUILT)/completions/cascade:$(BASHDIR)/cascade \
	$(BUILT)/completions/_cascade:$(ZSHDIR)/_cascade \
	$(BUILT)/completions/cascade.fish:$(FISHDIR)/cascade.fish \
	$(foreach page,$(PAGES),$(page):$(MANDIR)/man$(subst .,,$(suffix $(page)))/$(notdir $(page))) \
	$(foreach unit,$(UNITS),$(unit):$(UNITDIR)/$(notdir $(unit))) \
	$(foreach config,$(CONFIGS),$(config):$(DOCDIR)/examples/$(notdir $(config)))

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p;/^\[dependencies\]/q' Cargo.toml)
ARCH    := $(firstword $(subst -, ,$(HOST)))
# The time of what is packed: of the last commit, so that the same source makes the same package.
SOURCE_DATE_EPOCH ?= $(or $(shell git log -1 --format=%ct 2>/dev/null),0)
export SOURCE_DATE_EPOCH

.PHONY: help build demo check lint bench hostile fuzz scale soak swarm rtt limits install install-strip uninstall deb dist units-check systemd-check package-check try clean

build: ## a release build, and its completions (the default)
	$(CARGO) build --release
	@mkdir -p $(BUILT)/completions
	$(BINARY) completions bash >$(BUILT)/completions/cascade
	$(BINARY) completions zsh >$(BUILT)/completions/_cascade
	$(BINARY) completions fish >$(BUILT)/completions/cascade.fish

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1 \2/p' $(firstword $(MAKEFILE_LIST)) | \
		while read -r target what; do printf '  make %-14s %s\n' "$$target" "$$what"; done

demo: build ## a whole network on this machine, every copy compared
	@CASCADE=$(BINARY) tests/demo.sh

# With the faults on demand that some of the tests want; what is built and installed has none.
check: ## all tests
	$(CARGO) test --features faults

# Transfers over loopback beside other programs and a floor: five minutes, and nothing else should run.
# BENCH="--rounds 3 --only transfer,small" is quick; benches/transfer/bench.py --help has the rest.
bench: build ## transfers beside other programs and a floor: five minutes
	$(CARGO) build --release --manifest-path benches/floor/Cargo.toml --target-dir $(TARGET_DIR)/floor
	python3 benches/transfer/bench.py --binary $(BINARY) --floor $(TARGET_DIR)/floor/$(HOST)/release/floor $(BENCH)

# One peer at a distance, beside curl, in network namespaces of its own (root). RTT="--rtt 300 --times 1" is quick;
# benches/rtt/rtt.py --help has the rest.
rtt: build ## one peer at a distance beside curl (root): twenty minutes
	python3 benches/rtt/rtt.py --binary $(BINARY) $(RTT)

# A swarm behind slow uplinks, in network namespaces of its own (root). SWARM="--size 64 --only map" is quick;
# benches/swarm/lab.py --help has the rest.
swarm: build ## a swarm behind slow uplinks (root): five minutes
	python3 benches/swarm/lab.py --binary $(BINARY) $(SWARM)

# What strangers cost who mean harm: a table. HOSTILE="--help" has the rest.
hostile: build ## what hostile peers and trackers cost: five minutes
	python3 benches/hostile/hostile.py --binary $(BINARY) $(HOSTILE)

# Whether the rate limits hold to within 5 % over ten seconds.
limits: build ## whether the rate limits hold: a minute
	python3 benches/swarm/limits.py --binary $(BINARY)

# Each fuzz target for FUZZ_SECONDS; what is found is written to fuzz/artifacts. `make check` has the same
# invariants as property tests, and all of tests/corpus.
FUZZ_SECONDS ?= 600
FUZZ_TARGETS ?= $(notdir $(wildcard tests/corpus/*))
fuzz: ## each fuzz target for FUZZ_SECONDS (nightly, cargo-fuzz)
	@$(CARGO) +nightly fuzz --version >/dev/null 2>&1 || { \
		echo 'make fuzz needs a nightly toolchain (rustup toolchain install nightly) and cargo-fuzz (cargo install cargo-fuzz)' >&2; exit 1; }
	for target in $(FUZZ_TARGETS); do \
		mkdir -p fuzz/corpus/$$target && \
		$(CARGO) +nightly fuzz run $$target fuzz/corpus/$$target tests/corpus/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=1024 -timeout=20 || exit 1; \
	done

# A tracker that knows a million peers: what a list costs, its memory, how it forgets them, how it saves them.
scale: ## a tracker that knows a million peers: minutes
	$(CARGO) test --release --lib -- --ignored --nocapture --test-threads 1 a_million_peers
	$(CARGO) test --release --test scale -- --ignored --nocapture --test-threads 1

# A network to which things happen at random; SEED= repeats one of them, LOGS= keeps what was said, and when what happened.
SECONDS ?= 300
soak: build ## a network to which things happen at random, for SECONDS
	python3 tests/soak/soak.py --binary $(BINARY) --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(if $(LOGS),--logs $(LOGS))

lint: ## rustfmt, clippy, mandoc
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path fuzz/Cargo.toml
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) fmt --manifest-path benches/floor/Cargo.toml --check
	$(CARGO) clippy --manifest-path benches/floor/Cargo.toml --target-dir $(TARGET_DIR)/floor -- -D warnings
	$(CARGO) clippy --all-targets --features faults -- -D warnings
	@command -v mandoc >/dev/null || { echo 'make lint needs mandoc' >&2; exit 1; }
	# Pages refer to each other before they are installed: all else that lint finds, down to style, is an error.
	! mandoc -T lint $(PAGES) 2>/dev/null | grep -v 'referenced manual not found'

install: ## what was built, below PREFIX (/usr/local) and DESTDIR
	@test -x $(BINARY) -a -f $(BUILT)/completions/cascade || \
		{ echo "cannot install $(BINARY): it is not built; run make first" >&2; exit 1; }
	install -d $(DESTDIR)$(BINDIR)
	$(INSTALL_PROGRAM) $(BINARY) $(DESTDIR)$(BINDIR)/cascade
	set -e; for entry in $(DATA); do \
		to=$(DESTDIR)$${entry#*:}; \
		install -d $${to%/*}; \
		$(INSTALL_DATA) $${entry%%:*} $$to; \
	done
	# Without a prefix it is not known yet where the program will be: systemd looks in the usual places.
	$(if $(PREFIX),sed -i 's|^\(Exec[A-Za-z]*\)=cascade |\1=$(BINDIR)/cascade |' \
		$(foreach unit,$(filter %.service,$(UNITS)),$(DESTDIR)$(UNITDIR)/$(notdir $(unit))))

install-strip: ## the same, without symbols
	$(MAKE) install INSTALL_PROGRAM='install -s -m 755'

# The directories that install made and that hold nothing else go too, but not those that every prefix has.
uninstall: ## remove what install copied
	rm -f $(DESTDIR)$(BINDIR)/cascade
	for entry in $(DATA); do rm -f $(DESTDIR)$${entry#*:}; done
	for directory in $(foreach section,1 5 7 8,$(MANDIR)/man$(section)) \
		$(foreach own,$(BASHDIR) $(ZSHDIR) $(FISHDIR) $(UNITDIR) $(DOCDIR)/examples $(DOCDIR),$(own) $(dir $(own))); do \
		rmdir $(DESTDIR)$$directory 2>/dev/null || true; \
	done

# What a package holds is what install installs. cargo-deb is built outside of this directory, whose configuration is not
# meant for it, and without optimisation, which would take longer than what it does.
STAGE := $(BUILT)/stage
deb: build ## the Debian package, in target/package
	rm -rf $(STAGE)/deb
	$(MAKE) install-strip DESTDIR=$(STAGE)/deb PREFIX=/usr ZSHDIR=/usr/share/zsh/vendor-completions
	gzip -n9 $(STAGE)/deb/usr/share/man/man*/*
	@command -v cargo-deb >/dev/null || test -x $(TOOLS)/bin/cargo-deb || \
		(cd / && $(CARGO) install cargo-deb --locked --debug --root $(abspath $(TOOLS)) --target-dir $(abspath $(TOOLS))/build)
	PATH="$$PATH:$(abspath $(TOOLS))/bin" $(CARGO) deb --no-build --no-strip --target $(HOST) \
		--output $(TARGET_DIR)/package/
	@ls $(TARGET_DIR)/package/*.deb

# For any distribution: it is installed by tar -C /usr/local --strip-components=1 -xzf, and runs where it is unpacked too.
NAME := cascade-$(VERSION)-$(ARCH)-linux
dist: build ## the tarball, in target/package
	rm -rf $(STAGE)/dist
	$(MAKE) install-strip DESTDIR=$(STAGE)/dist/$(NAME) PREFIX=
	install -d $(STAGE)/dist/$(NAME)/share/doc/cascade
	$(INSTALL_DATA) README.md LICENSE $(STAGE)/dist/$(NAME)/share/doc/cascade
	@mkdir -p $(TARGET_DIR)/package
	tar -C $(STAGE)/dist --sort=name --owner=0 --group=0 --numeric-owner --mtime=@$(SOURCE_DATE_EPOCH) \
		--mode=go-w -cf - $(NAME) | gzip -n9 >$(TARGET_DIR)/package/$(NAME).tar.gz
	cd $(TARGET_DIR)/package && sha256sum $(NAME).tar.gz | tee $(NAME).tar.gz.sha256

# What systemd thinks of the units, and of how much they leave to what they run (wants systemd-analyze, runs nothing).
units-check: ## what systemd says of the units
	tests/units.sh $(BINARY)

# The units of the package under a real systemd, which is process 1 of a Debian in namespaces (root; wants debootstrap, and
# the network once, for the system). Status 77 of the script: it cannot run here. SYSTEMD_SUITE=bookworm has systemd 252.
SYSTEMD_SUITE ?= stable
systemd-check: deb ## the units under a real systemd (root, debootstrap)
	SYSTEMD_SUITE=$(SYSTEMD_SUITE) SYSTEMD_BASE=$(abspath $(TARGET_DIR))/systemd/$(SYSTEMD_SUITE) \
		tests/systemd/machine.sh $(TARGET_DIR)/package/cascade_*.deb

# Whether what is installed and packed is whole, works, and goes away again (root; see the script for what it needs).
package-check: deb dist ## install, complete, pack, publish: all of it tried (root)
	CASCADE_TARGET=$(abspath $(TARGET_DIR)) MAKE='$(MAKE)' tests/package.sh $(abspath $(TARGET_DIR))/package/$(NAME).tar.gz

# What a new user does, on nine clean machines in namespaces (root; wants debootstrap, and 12 GiB of disk for a while).
# TRY_MIB=64 is quick.
TRY_MIB ?= 1024
try: deb ## a new user on nine clean machines (root, debootstrap)
	TRY_MIB=$(TRY_MIB) TRY_BASE=$(abspath $(TARGET_DIR))/try/debian tests/try.sh $(TARGET_DIR)/package/cascade_*.deb

clean: ## remove what was built
	$(CARGO) clean
