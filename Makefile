# make demo   set up everything, then train, pack, verify, predict and measure on embedded data
# make test   set up everything, then run the tests (those for 64-bit ARM among them, where their tools are)
# make test-arm  only those
# make check  format, lint, types, import rules, compiler warnings
# make bench  this machine, side by side with what is installed
# make cell   a cell of the paper's table, from training to its record: make cell ARGS="mnist-theano --data DIR"
# make results  README's table of results, from the recorded runs
# make gpu    what needs an NVIDIA GPU: tests, compute-sanitizer, benchmarks, in one report

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
NATIVE := CMakeLists.txt $(shell find native -type f)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
CPP := $(shell find native tests/simulator src/binarynet/cuda -name '*.cc' -o -name '*.h' -o -name '*.c' \
    -o -name '*.cu' -o -name '*.cuh')
DEMO := demo-out

# One thread per test process and for the tools underneath: the processes already use all cores.
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: setup demo test test-arm check format bench cell results gpu clean

setup: $(VENV)/.native

$(VENV)/.dependencies: pyproject.toml constraints.txt
	@echo "setting up $(VENV): the first time takes a minute or two"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) scikit-build-core nanobind cmake ninja
	@$(BIN)/python tools/requirements.py train bench cuda dev > $(VENV)/requirements.txt
	$(PIP) -r $(VENV)/requirements.txt
	@touch $@

$(VENV)/.native: $(VENV)/.dependencies $(NATIVE)
	$(PIP) --no-build-isolation --no-deps --editable .
	@touch $@

demo: setup
	rm -rf $(DEMO)
	$(BIN)/binarynet train digits-mlp --out $(DEMO)/run
	$(BIN)/binarynet pack $(DEMO)/run -o $(DEMO)/digits.bnn
	$(BIN)/binarynet verify $(DEMO)/run $(DEMO)/digits.bnn
	$(BIN)/binarynet predict $(DEMO)/digits.bnn examples/digit-*.png
	$(BIN)/binarynet inspect $(DEMO)/digits.bnn
	$(BIN)/binarynet bench $(DEMO)/digits.bnn
	@echo "The training curves are in $(DEMO)/run/curves.png, the packed network in $(DEMO)/digits.bnn"

test: setup
	$(TEST_ENV) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

test-arm: setup
	$(TEST_ENV) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal tests/native/test_aarch64.py

check: setup
	@mkdir -p build
	$(BIN)/ruff format --check src tests tools benchmarks
	$(BIN)/ruff check src tests tools benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run -Werror $(CPP)
	$(BIN)/cmake -S . -B build/check -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
	    -DBINARYNET_WERROR=ON -DBINARYNET_TESTS=ON > build/check.log
	$(BIN)/cmake --build build/check >> build/check.log || { cat build/check.log; exit 1; }

format: setup
	$(BIN)/ruff format src tests tools benchmarks
	$(BIN)/ruff check --fix src tests tools benchmarks
	$(BIN)/clang-format -i $(CPP)

bench: setup
	$(BIN)/binarynet bench

cell: setup
	$(BIN)/python tools/cell.py $(ARGS)

results: setup
	$(BIN)/python tools/results.py

gpu: setup
	$(BIN)/python tools/gpu.py

clean:
	rm -rf $(VENV) build $(DEMO) .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache
