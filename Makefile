# Set-up, run and tests, on Debian 12 or newer. Each target does what is missing and nothing twice.
# As root: make run, make test. Pass options by ARGS="-i lo --active-timeout 1".

PYTHON ?= /usr/bin/python3
# The versions that were tested, also of what builds a package: a new release of another project breaks nothing here.
export PIP_CONSTRAINT := $(CURDIR)/deploy/constraints.txt
export PIP_BUILD_CONSTRAINT := $(PIP_CONSTRAINT)
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# How long `make fuzz` looks for a counterexample.
SECONDS ?= 300

# Virtual machines: where their root file system and kernels are kept, and which are booted ("6.1 6.12"; all).
MACHINES ?= $(HOME)/.cache/netwatch/machines
KERNELS ?=

.PHONY: run setup test test-busy fuzz bench kernels setup-machine lint golden update clean
run: setup
	@exec $(BIN)/netwatch run $(ARGS)

setup: $(VENV)/.packages $(VENV)/.installed

test: setup $(VENV)/.test-packages $(BIN)/tox
	$(BIN)/tox run

# The whole suite three times in a row, while four other processes keep all processors busy.
test-busy: setup $(VENV)/.test-packages $(BIN)/tox
	$(BIN)/python -m tests.busy 3 4 $(BIN)/tox run -e unit,kernel

# The properties of the suite with random seeds, until one fails or the time is over: make fuzz SECONDS=300
fuzz: setup $(VENV)/.test-packages $(BIN)/tox
	$(BIN)/tox run -e fuzz -- $(SECONDS)

bench: setup $(VENV)/.test-packages
	$(BIN)/python -m bench $(ARGS)

# What netwatch can do on Debian's kernels, by emulation: hours for all of them. As root.
# make kernels KERNELS=6.1 ARGS=--short
kernels: setup
	@sh deploy/install-packages machine guest
	@mkdir -p $(MACHINES)
	@rm -rf --one-file-system $(MACHINES)/root $(MACHINES)/root.cpio
	@tests/machines/bare-root make $(MACHINES)/root
	@tests/machines/bare-root enter $(MACHINES)/root make setup-machine
	$(BIN)/python -m tests.machines --kernels "$(KERNELS)" --root $(MACHINES)/root --cache $(MACHINES)/kernels $(ARGS)

# In the root file system of a virtual machine: everything that a test needs there.
setup-machine: setup $(VENV)/.test-packages
	@sh deploy/install-packages guest
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'

lint: $(BIN)/tox
	$(BIN)/tox run -e lint,types

# Today's versions of what is installed from PyPI. Run the tests before you commit them.
update: $(VENV)/.packages
	@PIP_CONSTRAINT= PIP_BUILD_CONSTRAINT= PYTHON=$(PYTHON) deploy/update-constraints
	@git --no-pager diff --stat deploy/constraints.txt

# Renew what tests/test_golden.py compares with, and show the difference.
golden: setup
	@$(BIN)/python -m tests.golden

clean:
	rm -rf $(VENV) .tox .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/.packages: deploy/packages
	@mkdir -p $(VENV)
	@sh deploy/install-packages run
	@touch $@

$(VENV)/.test-packages: deploy/packages
	@mkdir -p $(VENV)
	@sh deploy/install-packages run test
	@touch $@

# With Debian's packages visible, for bcc.
$(BIN)/python: $(VENV)/.packages
	@$(PYTHON) -m venv --system-site-packages $(VENV)

$(VENV)/.installed: pyproject.toml deploy/constraints.txt $(BIN)/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(BIN)/tox: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'tox>=4.11'
