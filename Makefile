# burnish: `make demo` runs the whole pipeline, `make test` runs the tests; each installs what it needs into .venv.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
OUT ?= out/demo
# Processes that share the tests; 0 for none beside pytest's own. One that crashes is not replaced: the run would hang.
PROCESSES ?= $(if $(filter 1,$(shell nproc 2>/dev/null || echo 1)),0,2)
# Torch's and XNNPACK's idle workers must not spin on the cores of the others.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo test lint clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q torch==2.13.0
	$(BIN)/pip install -q -e '.[dev]' --config-settings editable_mode=strict
	touch $@

# Strict editable installs link files one by one: a new file needs a new link.
$(VENV)/linked: $(VENV)/installed $(shell git ls-files '*.py' '*.jinja' '*.json' 'cli/page/*' 2>/dev/null)
	$(BIN)/pip install -q --no-deps --no-build-isolation -e . --config-settings editable_mode=strict
	touch $@

demo: $(VENV)/linked
	$(BIN)/burnish run recipes/demo.yaml --out $(OUT)
	@echo
	@echo "bundle    $(OUT)/photo.bundle"
	@echo "report    $(OUT)/reports/report.html"
	@echo "picture   $(OUT)/degraded.png -> $(OUT)/restored.png"
	@echo "trace     $(OUT)/trace"

test: $(VENV)/linked
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadscope --no-loadscope-reorder --max-worker-restart 0 --durations 30

lint: $(VENV)/linked
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

clean:
	rm -rf $(VENV) build out
