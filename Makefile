# make demo [SLIDE=my.svs]   set up, analyze a slide (a composed one without SLIDE), say where the report lies
# make test                  install the rest, run all tests
# make lint                  format, lint and type checks
# make bench [PEERS=fast,…]  measure speed against the roofline (and rivals); docs/performance.md
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RESULTS ?= demo

.PHONY: demo test lint bench clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.light: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	$(BIN)/python -m compileall -q src
	touch $@

$(VENV)/.full: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[train,test,torch,tables]'
	$(BIN)/python -m compileall -q src
	touch $@ $(VENV)/.light

ifdef SLIDE
demo: $(VENV)/.light
	$(BIN)/lobule analyze "$(SLIDE)" --out $(RESULTS)
else
demo: $(VENV)/.light
	mkdir -p $(RESULTS)/slides
	$(BIN)/lobule phantom $(RESULTS)/slides/demo.svs --mm 8x6 --seed 1
	$(BIN)/lobule analyze $(RESULTS)/slides/demo.svs --out $(RESULTS)
endif

test: $(VENV)/.full
	$(BIN)/python -m pytest

lint: $(VENV)/.full
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# the network of the benchmark is written with onnx; everything else is the light install
$(VENV)/.bench: $(VENV)/.light
	$(BIN)/python -m pip install --quiet --disable-pip-version-check onnx
	touch $@

export ROWS PEERS ROUNDS SECONDS TIMEOUT SLIDE MODEL BIG LOBULE_BENCH LOBULE_BENCH_APT

bench: $(VENV)/.bench
	$(BIN)/python bench/run.py

clean:
	rm -rf $(VENV) $(RESULTS) build dist
