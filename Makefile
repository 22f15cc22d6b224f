# Two commands do everything on a fresh Debian or Ubuntu machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help demo test test-vm test-vm-all check docs bench deb media-images fuzz clean
.DEFAULT_GOAL := demo

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

help:  ## list the commands
	@sed -n 's/^\([a-z-]*\):.*##/\1:/p' $(MAKEFILE_LIST) | column -t -s: -N command,does

demo: $(VENV)/.ready  ## provision, dry, on the emulated platform
	$(BIN)/python -m minprov --dry-run --emulated

test: $(VENV)/.ready  ## the test suite: as root all of it, else the unprivileged part
	-@[ "$$(id -u)" -ne 0 ] || { tests/ensure-packages tests/apt-packages.txt && tests/make-busybox; }
	$(BIN)/python -m pytest

check: $(VENV)/.ready  ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

test-vm: $(VENV)/.ready  ## boot real guests under QEMU: the boots that matter most, ten minutes
	tests/ensure-packages tests/vm/apt-packages.txt
	$(BIN)/python -m pytest -m "vm and not long"

test-vm-all: $(VENV)/.ready  ## boot every guest in every scenario
	tests/ensure-packages tests/vm/apt-packages.txt
	$(BIN)/python -m pytest -m vm

docs: $(VENV)/.ready  ## write the documents that are made from the code
	$(BIN)/python scripts/generate_docs.py

media-images: $(VENV)/.ready  ## write tests/data/media anew, in a virtual machine whose kernel has a udf driver
	$(BIN)/python -m tests.data.media.make

deb:  ## the Debian packages, in dist
	packaging/build-deb

fuzz: $(VENV)/.ready  ## fuzz the readers of the media for half an hour, guided by coverage
	$(BIN)/python -m pip install --quiet --disable-pip-version-check atheris
	$(BIN)/python -m tests.fuzz_media -max_total_time=1800

bench: $(VENV)/.ready  ## measure start-up against `import aiohttp`, in one run
	$(BIN)/python -m compileall -q minprov
	$(BIN)/python -m bench.startup

clean:
	rm -rf $(VENV) build dist
