# Two commands do everything on a fresh Debian or Ubuntu machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help demo test test-aiohttp test-fresh test-vm test-vm-all check faults attack attack-long crash crash-all docs record bench bench-last-resort bench-instructions bench-vm bench-forms deb rpm rpm-static bundle standalone static static-aarch64 test-arm64 requirements \
        test-packages release-dry-run media-images fuzz clean
.DEFAULT_GOAL := demo

$(VENV)/.ready: pyproject.toml
	umask 022 && $(PYTHON) -m venv $(VENV)
	umask 022 && $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

help:  ## list the commands
	@sed -n 's/^\([a-z0-9-]*\):.*## */\1\t/p' $(MAKEFILE_LIST) | column -t -s "$$(printf '\t')" -N command,does

demo: $(VENV)/.ready  ## provision, dry, on the emulated platform
	$(BIN)/python -m minprov --dry-run --emulated

test: $(VENV)/.ready  ## the test suite: as root all of it, else the unprivileged part
	-@[ "$$(id -u)" -ne 0 ] || { tests/ensure-packages tests/apt-packages.txt && tests/make-busybox; }
	$(BIN)/python -m pytest

# FRESH names machines, such as bookworm:user or trixie:root:odd; without it all five are tried.
test-fresh: $(VENV)/.ready  ## do what the README says on fresh machines: minimal Debian 12 and 13, as root and as a user
	tests/ensure-packages tests/fresh-apt-packages.txt
	$(BIN)/python -m tests.fresh $(FRESH)

# The least that is allowed, and releases that do not bound an answer themselves.
AIOHTTP ?= 3.8.4 3.9.1 3.12.15
test-aiohttp:  ## test the HTTP client with other releases of aiohttp, AIOHTTP names them
	for release in $(AIOHTTP); do \
	    $(PYTHON) -m venv build/aiohttp-$$release && \
	    build/aiohttp-$$release/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[emulator]' \
	        "aiohttp==$$release" pytest pytest-timeout blockbuster hypothesis && \
	    build/aiohttp-$$release/bin/python -m pytest tests/network/test_transport.py tests/test_security.py \
	        -k 'transport or answer or header or redirect or retry or compressed' || exit; \
	done

check: $(VENV)/.ready  ## lint, types, commits
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/python scripts/check_commits.py

test-browser: $(VENV)/.ready  ## look at the pages in Chromium; the screenshots stay in build/screenshots
	tests/ensure-packages tests/browser-apt-packages.txt
	$(BIN)/python -m pytest -m browser

test-vm: $(VENV)/.ready  ## boot real guests under QEMU: the boots that matter most, ten minutes
	tests/ensure-packages tests/vm/apt-packages.txt
	$(BIN)/python -m pytest -m "vm and not long"

test-vm-all: $(VENV)/.ready  ## boot every guest in every scenario
	tests/ensure-packages tests/vm/apt-packages.txt
	tests/ensure-packages packaging/static/apt-packages.txt
	tests/ensure-packages packaging/static/cross-apt-packages.txt
	$(BIN)/python -m pytest -m vm

faults: $(VENV)/.ready  ## provision in three hundred ways that something fails, as root; docs/faults.md is the table
	tests/ensure-packages tests/apt-packages.txt
	$(BIN)/python -m tests.faults

attack: $(VENV)/.ready  ## attack readers and runs, also by a user beside them, as root, ten minutes; writes docs/attacks.md
	tests/ensure-packages tests/apt-packages.txt
	nice -n 15 $(BIN)/python -m tests.attack --write docs/attacks.md

attack-long: $(VENV)/.ready  ## the same with other inputs from other seeds, for an hour
	tests/ensure-packages tests/apt-packages.txt
	nice -n 15 $(BIN)/python -m tests.attack --seed 1000 --minutes 60

crash: $(VENV)/.ready  ## kill and cut off runs at 30 moments of each kind, as root, and see the next make it good
	tests/ensure-packages tests/apt-packages.txt && tests/make-busybox
	$(BIN)/python -m tests.crash --points 30
	$(BIN)/python -m tests.crash.resource_disk --points 10
	$(BIN)/python -m tests.crash.deprovision --points 30

crash-all: $(VENV)/.ready  ## the same at every moment
	tests/ensure-packages tests/apt-packages.txt && tests/make-busybox
	$(BIN)/python -m tests.crash
	$(BIN)/python -m tests.crash.resource_disk
	$(BIN)/python -m tests.crash.deprovision

docs: $(VENV)/.ready  ## write the documents that are made from the code
	$(BIN)/python -m scripts.generate_docs

# TARGETS names what to run, such as "test-vm-all bench".
record: $(VENV)/.ready  ## run what takes too long for CI and write the results into docs/results.md
	$(BIN)/python -m scripts.record_results $(TARGETS)

media-images: $(VENV)/.ready  ## write tests/data/media anew, in a virtual machine whose kernel has a udf driver
	$(BIN)/python -m tests.data.media.make

deb:  ## the Debian packages, in dist
	tests/ensure-packages packaging/apt-packages.txt
	packaging/build-deb
	packaging/write-sums

rpm:  ## the RPMs, in dist
	tests/ensure-packages packaging/apt-packages.txt
	packaging/build-rpm
	packaging/write-sums

# The Pythons that the bundle is compiled for and tested with; the first one goes into the standalone form.
export APPLIANCE_PYTHONS ?= /usr/bin/python3

bundle:  ## minprov and what it depends on as a tarball, in dist
standalone:  ## the same with a Python of its own
bundle standalone: $(VENV)/.ready
	tests/ensure-packages packaging/apt-packages.txt
	$(BIN)/python packaging/appliance/build.py $@ $(APPLIANCE_PYTHONS)
	packaging/write-sums

static: $(VENV)/.ready  ## the same as one program that needs nothing of the image; first it builds a Python, for minutes
	tests/ensure-packages packaging/static/apt-packages.txt
	$(BIN)/python packaging/appliance/build.py static
	packaging/write-sums

rpm-static: static  ## the RPM that has the static form in it
	tests/ensure-packages packaging/apt-packages.txt
	packaging/build-rpm dist dist/minprov-*-static-linux-$$(uname -m).tar.gz
	packaging/write-sums

static-aarch64: $(VENV)/.ready  ## the static form for arm64, by a cross compiler, with a Python that is built likewise
	tests/ensure-packages packaging/static/apt-packages.txt
	tests/ensure-packages packaging/static/cross-apt-packages.txt
	$(BIN)/python packaging/appliance/build.py static aarch64
	packaging/write-sums

test-arm64: static-aarch64  ## run the static form for arm64 under QEMU's user emulation, build it again to compare
	tests/ensure-packages tests/arm64-apt-packages.txt
	$(BIN)/python -m pytest -m arm64

requirements: $(VENV)/.ready  ## pin anew what the bundle is made of, with hashes
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --custom-compile-command 'make requirements' \
	    pyproject.toml --output-file packaging/appliance/requirements.txt

test-packages: deb rpm rpm-static bundle standalone  ## install and run what was built, and build it again to compare
	tests/make-busybox
	$(BIN)/python -m pytest -m packages

release-dry-run: $(VENV)/.ready  ## release the next version in a clone, with everything but publishing it
	tests/ensure-packages packaging/apt-packages.txt
	VENV=$(VENV) scripts/release-dry-run

# What an appliance leaves out, no scenario may miss. Not for it: the emulated platform, deprovision, checks, what runs the
# tests' own Python, and an encoding that is set for Python, which its Python does not heed. Takes what is in dist.
BUNDLED := not dry-run-emulated and not tree-emulated and not deprovision and not custom-data-run-in-unit
BUNDLED += and not duty-required-in-unit and not locale-latin-1 and not check-fix and not pooled-waits-by-hand
BUNDLED += and not custom-data-run-after-ready-cut
test-cases-%: $(VENV)/.ready
	@test -z "$$(find minprov -name '*.py' -newer dist/*-$*-*-$$(uname -m).tar.gz)" \
	    || { echo 'dist has a $* form of before the last change: make $*' >&2; exit 1; }
	rm -rf build/$*
	mkdir -p build/$*
	tar -xf dist/*-$*-*-$$(uname -m).tar.gz -C build/$* --strip-components=1
	$(BIN)/python -m pytest tests/test_cases.py --program "'$(CURDIR)/build/$*/minprov'" \
	    -k '$(BUNDLED)'

fuzz: $(VENV)/.ready  ## fuzz the readers of the media for half an hour, guided by coverage
	$(BIN)/python -m pip install --quiet --disable-pip-version-check atheris
	$(BIN)/python -m tests.discs.fuzz_media -max_total_time=1800

bench: $(VENV)/.ready  ## measure start-up against `import aiohttp`, in one run, and Ready after a late route
	$(BIN)/python -m compileall -q minprov
	$(BIN)/python -m bench.startup
	$(BIN)/python -m bench.late_network

bench-last-resort: $(VENV)/.ready  ## measure what the last resort costs a first boot, in instructions; needs valgrind
	$(BIN)/python -m compileall -q minprov
	$(BIN)/python -m bench.last_resort

bench-instructions: $(VENV)/.ready  ## count the system calls and instructions of a first boot, which no other load disturbs
	tests/ensure-packages tests/apt-packages.txt
	tests/ensure-packages bench/apt-packages.txt
	$(BIN)/python -m compileall -q minprov
	$(BIN)/python -m bench.system_calls
	$(BIN)/python -m bench.instructions

bench-forms: deb bundle standalone static  ## measure the forms that are shipped, side by side
	$(BIN)/python -m bench.forms

bench-vm: $(VENV)/.ready  ## boot with minprov in two forms, azure-init, cloud-init and waagent in turn, and compare
	tests/ensure-packages tests/vm/apt-packages.txt
	rm -rf build/bench-vm
	for agent in minprov minprov-static azure-init cloud-init waagent; do \
	    $(BIN)/python -m bench.vm measure --counted --costs $$agent || exit; done
	for run in 1 2 3 4 5; do for agent in minprov minprov-static azure-init; do for options in --counted '--counted --bare' --processors=2; do \
	    $(BIN)/python -m bench.vm measure $$options $$agent || exit; done; done; done
	$(BIN)/python -m bench.vm table

clean:
	rm -rf $(VENV) build dist
