# SPDX-License-Identifier: AGPL-3.0-or-later
PREFIX  ?= /usr/local
BINDIR  ?= $(PREFIX)/bin
# prefork looks for the programs that it starts beside itself and in ../lib/prefork.
LIBEXECDIR ?= $(PREFIX)/lib/prefork
SYSTEMD ?= $(PREFIX)/lib/systemd
DATADIR ?= $(PREFIX)/share/prefork
DOCDIR  ?= $(PREFIX)/share/doc/prefork
# dbus-daemon reads policies here, and in /etc if prefork is not part of the system.
DBUSDIR ?= $(if $(filter /usr,$(PREFIX)),/usr/share,/etc)/dbus-1/system.d
MANDIR  ?= $(PREFIX)/share/man
# Debian has those of packages in share/zsh/vendor-completions.
ZSHDIR  ?= $(PREFIX)/share/zsh/site-functions
BASHDIR ?= $(PREFIX)/share/bash-completion/completions
FISHDIR ?= $(PREFIX)/share/fish/vendor_completions.d
VERSION ?=
TOOLS   := $(CURDIR)/.tools

export GOTOOLCHAIN ?= local

.PHONY: build
build:
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w $(if $(VERSION),-X main.version=$(VERSION))' -o . ./cmd/prefork ./cmd/prefork-view

# The demo fleet, in this terminal. Ctrl-C stops it.
.PHONY: run
run: build
	./prefork run packaging/examples/demo/demo.toml

# All tests that this machine can run; the last line says what it could not.
.PHONY: test
test:
	packaging/test

.PHONY: lint
lint: $(TOOLS)/staticcheck
	@out=$$($(TOOLS)/gofumpt -l cmd supervisor sdnotify units packaging) && test -z "$$out" || { echo "gofumpt: $$out"; exit 1; }
	go vet ./...
	$(TOOLS)/staticcheck -checks all,-ST1000 ./...
	packaging/lint-python

# The linters, at the versions that packaging/tools/go.mod pins.
$(TOOLS)/staticcheck: packaging/tools/go.mod packaging/tools/go.sum
	GOBIN=$(TOOLS) go install -C packaging/tools tool
	@touch $@

# FUZZTIME for each fuzz target.
FUZZTIME ?= 1m
.PHONY: fuzz
fuzz:
	packaging/fuzz $(FUZZTIME)

# The figures, beside those of peers, on a real systemd: tables, plots and every
# sample in dist/bench. It takes two hours and a half, and a quiet machine. BENCH has
# options: "-quick", "-only kill,memory -peers prefork,s6", "-help".
BENCH ?=
.PHONY: bench
bench:
	PREFORK_BENCH='$(BENCH)' go test -run '^TestBench$$' -count 1 -timeout 6h -v ./packaging/bench

# Units and pages name the program and the drop-ins where they are installed.
PATHS = sed 's,/usr/bin/prefork,$(BINDIR)/prefork,; s,/usr/share/prefork,$(DATADIR),'

# A program for another machine (GOARCH=arm64) cannot be asked here.
COMPLETION = $(if $(filter-out $(if $(GOARCH),$(shell go env GOHOSTARCH)),$(GOARCH)),env -u GOARCH CGO_ENABLED=0 go run ./cmd/prefork,./prefork) completion

.PHONY: install
install:
	test -x prefork -a -x prefork-view || $(MAKE) build
	install -D -m0755 prefork $(DESTDIR)$(BINDIR)/prefork
	install -D -m0755 prefork-view $(DESTDIR)$(LIBEXECDIR)/prefork-view
	install -d $(DESTDIR)$(SYSTEMD)/system $(DESTDIR)$(SYSTEMD)/system-generators $(DESTDIR)$(DATADIR) $(DESTDIR)$(DOCDIR)/examples
	$(PATHS) units/prefork@.service >$(DESTDIR)$(SYSTEMD)/system/prefork@.service
	for f in units/drop-ins/*.conf; do $(PATHS) $$f >$(DESTDIR)$(DATADIR)/$${f##*/} || exit; done
	chmod 0644 $(DESTDIR)$(SYSTEMD)/system/prefork@.service $(DESTDIR)$(DATADIR)/*.conf
	ln -sfr $(DESTDIR)$(BINDIR)/prefork $(DESTDIR)$(SYSTEMD)/system-generators/prefork-generator
	! test -e packaging/prefork.catalog || install -D -m0644 -t $(DESTDIR)$(SYSTEMD)/catalog packaging/prefork.catalog
	install -D -m0644 packaging/prefork.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/prefork.conf
	install -D -m0644 -t $(DESTDIR)$(DBUSDIR) packaging/io.github.decnet.Prefork1.conf
	for f in packaging/man/*.[1-8]; do \
		install -d $(DESTDIR)$(MANDIR)/man$${f##*.} && \
		$(PATHS) $$f >$(DESTDIR)$(MANDIR)/man$${f##*.}/$${f##*/} && \
		chmod 0644 $(DESTDIR)$(MANDIR)/man$${f##*.}/$${f##*/} || exit; \
	done
	install -d $(DESTDIR)$(BASHDIR) $(DESTDIR)$(ZSHDIR) $(DESTDIR)$(FISHDIR)
	$(COMPLETION) bash >$(DESTDIR)$(BASHDIR)/prefork
	$(COMPLETION) zsh >$(DESTDIR)$(ZSHDIR)/_prefork
	$(COMPLETION) fish >$(DESTDIR)$(FISHDIR)/prefork.fish
	chmod 0644 $(DESTDIR)$(BASHDIR)/prefork $(DESTDIR)$(ZSHDIR)/_prefork $(DESTDIR)$(FISHDIR)/prefork.fish
	install -m0644 -t $(DESTDIR)$(DATADIR) packaging/zygotes/zygote.rb
	install -D -m0644 -t $(DESTDIR)$(DATADIR)/python supervisor/zygote/prefork.py
	install -D -m0644 -t $(DESTDIR)$(DATADIR)/conformance packaging/zygotes/conformance/conformance.*
	cd packaging/examples && find . -name '*.toml' -o -name '*.py' -o -name '*.rb' -o -name '*.conf' -o -name '*.yaml' -o -name Containerfile | while read -r f; do \
		install -D -m0644 $$f $(DESTDIR)$(DOCDIR)/examples/$$f || exit; \
	done

# The Debian package, from the files that git tracks, into dist/. SUITE=forky builds
# it in a new root of that suite, ARCH=arm64 for other machines.
SUITE ?=
.PHONY: deb
deb:
	packaging/deb $(SUITE)

.PHONY: clean
clean:
	rm -rf prefork prefork-view $(TOOLS) dist
