# What people type. Everything needed is installed on the way: packages with apt-get and pip, the cluster's own
# binaries from the Go module proxy, all kept in caches that a second run reuses. See CONTRIBUTING.md.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
UV := $(VENV)/bin/uv
UV_VERSION := 0.13.9
# Arguments for what runs, e.g. make test ARGS="-k replace", or, for another cluster than the local one,
# make test ARGS="integration/scenarios --kubeconfig F --context C --image-prefix REGISTRY/tpctl".
ARGS ?=
# The name of the local cluster; another one runs beside it.
CLUSTER ?= default

.PHONY: help setup demo test lint fmt unit bench cluster-up cluster-down proto lock

help:
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup: $(VENV)/ready ## install what everything else needs, into .venv

$(VENV)/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("tpctl needs Python 3.11 or later; set PYTHON to one" if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { apt-get update -q && apt-get install -qy python3-venv; }
	@echo "setup: making $(VENV)"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@test -x $(UV) || $(PY) -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)
	@$(UV) pip install -q --compile-bytecode --python $(PY) -r requirements.lock
	@$(UV) pip install -q --python $(PY) --no-deps -e .
	@touch $@

demo: setup ## the main job on a real local Kubernetes, each command shown with its output
	@$(PY) -m integration.demo --name $(CLUSTER) $(ARGS)

test: lint ## every check and every test
	@timeout --foreground -k 60 5000 $(PY) -m integration.suite --cluster-name $(CLUSTER) $(ARGS)

unit: setup ## the tests that need neither root nor a cluster
	@$(PY) -m pytest -m "not root and not cluster" $(ARGS)

lint: setup ## ruff, mypy, import rules
	@$(VENV)/bin/ruff format --check -q . || { echo "run: make fmt"; exit 1; }
	@$(VENV)/bin/ruff check -q .
	@$(VENV)/bin/mypy --no-error-summary
	@$(VENV)/bin/lint-imports --no-cache > .lint-imports.log 2>&1 || { cat .lint-imports.log; rm -f .lint-imports.log; exit 1; }
	@rm -f .lint-imports.log

fmt: setup ## format the code
	@$(VENV)/bin/ruff format -q .
	@$(VENV)/bin/ruff check -q --fix .

bench: setup ## measure everything in one run; a table and JSON in bench-results/
	@$(PY) -m integration.bench --name $(CLUSTER) $(ARGS)

cluster-up: setup ## start the local Kubernetes and leave it running
	@$(PY) -m integration.cluster --name $(CLUSTER) up $(ARGS)

cluster-down: setup ## end it, and what killed test runs left; nothing stays
	@$(PY) -m integration.cluster --name $(CLUSTER) down $(ARGS)

proto: setup ## regenerate the protobuf modules
	@tunnel/proto/generate.sh

lock: setup ## pin the dependencies anew
	@$(UV) pip compile -q --upgrade --all-extras --no-emit-index-url --no-header --no-annotate pyproject.toml -o requirements.lock
