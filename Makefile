# barcast: `make run` sets everything up and runs the sample; `make test` sets up and tests.
# Nothing here needs root, Docker or an answer.

PY := .venv/bin/python
STAMP := .venv/.installed
LOCK_COMMAND = uv pip compile pyproject.toml --group dev --group bench --group serving --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command "make lock" --quiet

.PHONY: run test test-slow check setup lock compile format conformance clean

run: setup ## bars of the sample to an approved model that answers over gRPC
	@.venv/bin/barcast run

test: setup ## the test suite, long forms left out
	@$(PY) -m pytest -q -n 2 --dist loadfile

test-slow: setup ## the long forms: kill matrices, fuzzing, soak
	@$(PY) -m pytest -q -n 2 --dist loadfile -m slow

check: setup ## lock drift, style, types, walls between rooms, generated files
	@$(MAKE) --no-print-directory lock-check
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check --quiet .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-logo
	@$(PY) -m pipelines.compile --check
	@$(PY) docs/make_reference.py --check

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@set -e; \
	uv=$$(command -v uv || true); \
	if [ -z "$$uv" ]; then \
	  echo "barcast: uv is not installed; bringing it with pip into .venv-uv"; \
	  python3 -m venv .venv-uv && .venv-uv/bin/pip install --quiet uv && uv=$$PWD/.venv-uv/bin/uv \
	    || { echo "barcast: could not install uv. Install it (https://docs.astral.sh/uv) and run make again." >&2; exit 1; }; \
	fi; \
	if [ ! -x $(PY) ]; then \
	  "$$uv" venv --quiet --python 3.11 .venv \
	    || { echo "barcast: needs Python 3.11 (ml-metadata has no wheels for newer ones). Install it and run make again." >&2; exit 1; }; \
	fi; \
	echo "barcast: installing the pinned packages (about a minute the first time)"; \
	"$$uv" pip sync --quiet --compile-bytecode --require-hashes --python $(PY) requirements.lock; \
	"$$uv" pip install --quiet --no-deps --python $(PY) --editable .; \
	echo "barcast: compiling the feature kernels (once)"; \
	$(PY) -m barcast.features; \
	touch $(STAMP)

lock: ## compile the pinned list anew
	@$(LOCK_COMMAND) --upgrade --output-file requirements.lock

.PHONY: lock-check
lock-check:
	@set -e; uv=$$(command -v uv || echo .venv-uv/bin/uv); drift=$$(mktemp); cp requirements.lock "$$drift"; \
	PATH="$$PWD/.venv-uv/bin:$$PATH" $(LOCK_COMMAND) --output-file "$$drift"; \
	if ! cmp -s "$$drift" requirements.lock; then \
	  echo "requirements.lock does not fit pyproject.toml: run make lock." >&2; diff "$$drift" requirements.lock | head -20 >&2; rm "$$drift"; exit 1; fi; \
	rm "$$drift"

compile: setup ## pipelines to YAML
	@$(PY) -m pipelines.compile
	@$(PY) docs/make_reference.py

format: setup
	@.venv/bin/ruff check --fix --quiet . ; .venv/bin/ruff format --quiet .

conformance: setup ## one suite against any server: make conformance ENDPOINT=host:port REST=host:port
	@ENDPOINT=$(ENDPOINT) REST=$(REST) MODELS=$(MODELS) $(PY) -m pytest -q tests/conformance -p no:cacheprovider

clean: ## forget all state of this checkout (models, bars, registry)
	@rm -rf .barcast
