# make run    set everything up and do the main job on real text
# make test   set everything up and run the tests
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PEERS := .venv-peers
SUDO := $(shell command -v sudo)
APT := $(SUDO) env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends

.PHONY: install-prometheus install-chromium run test coverage test-all test-peers test-deploy test-page lint format bench clean
.DELETE_ON_ERROR:

$(VENV)/base: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "embedway needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/dev: $(VENV)/base
	$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@

# torch comes first and by version: left to a resolver it brings gigabytes of CUDA.
$(PEERS)/done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip --disable-pip-version-check --quiet install torch==2.13.0
	$(PEERS)/bin/python -m pip --disable-pip-version-check --quiet install -c constraints.txt -e '.[dev,peers]'
	@touch $@

run: $(VENV)/base
	$(BIN)/python examples/standard_library.py

# As many processes as cores, but no more than eight: each has its own servers and models in memory.
test: $(VENV)/dev
	$(BIN)/python -m pytest -q -n logical --maxprocesses 8 --dist worksteal --durations 20 -m 'not peers and not prometheus and not systemd and not chromium and not schemathesis'

# The same tests with the coverage of lines and branches, of this process and its workers; fails below the floor in
# pyproject.toml.
coverage: $(VENV)/dev
	$(BIN)/python -m pytest -q -n logical --maxprocesses 8 --dist worksteal --cov --cov-report term -m 'not peers and not prometheus and not systemd and not chromium and not schemathesis'

test-all: test test-peers test-deploy test-page

# What needs torch and transformers.
test-peers: $(PEERS)/done
	$(PEERS)/bin/python -m pytest -q -m peers

# Debian's packages, unless the programs are there.
install-prometheus:
	for one in prometheus promtool systemd-analyze; do command -v $$one >/dev/null || missing=1; done; \
	[ -z "$$missing" ] || { $(SUDO) apt-get update -qq && $(APT) prometheus systemd; }

# What needs the programs prometheus, promtool and systemd-analyze (make install-prometheus). Fails without them. And
# what takes minutes.
test-deploy: $(VENV)/dev
	$(BIN)/python -m pytest -q --durations 5 -m 'prometheus or systemd or schemathesis' tests/deploy tests/server

# Debian's package, unless the program is there.
install-chromium:
	command -v chromium >/dev/null || { $(SUDO) apt-get update -qq && $(APT) chromium; }

# The gateway's page in the program chromium (make install-chromium). Fails without it.
test-page: $(VENV)/dev
	$(BIN)/python -m pytest -q --durations 5 -m chromium tests/server/pages

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests/typing/api.py

format: $(VENV)/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(PEERS)/done
	$(PEERS)/bin/python benchmarks/bulk.py
	$(PEERS)/bin/python benchmarks/latency.py
	$(PEERS)/bin/python benchmarks/large.py
	$(PEERS)/bin/python benchmarks/upstream.py

clean:
	rm -rf $(VENV) $(PEERS) out
