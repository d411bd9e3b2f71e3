PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python

# Large pages avoid a page fault for every 4 KB, which makes training on CPU faster.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: setup demo test test-all lint docs clean

setup: $(VENV)/.installed

$(VENV)/.installed: requirements.txt requirements-docs.txt requirements-test.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps jax2onnx==0.17.1
	touch $@

demo: setup
	$(RUN) -m lgag_jax.main --config=configs/synthetic_landslides.py --workdir=runs/demo
	@echo
	@echo "Open runs/demo/report.html. Metrics: runs/demo/eval/validation.json."
	@echo "Next, use your own images. Sort them into FOLDER/landslide and FOLDER/non-landslide, then run:"
	@echo "  $(RUN) -m lgag_jax.main --config=configs/image_folder.py --config.data.directory=FOLDER --workdir=runs/mine"
	@echo "  $(RUN) -m lgag_jax.main --mode=predict --workdir=runs/mine --input=IMAGES --output=MAPS"

test: setup
	$(RUN) -m pytest

test-all: setup
	$(RUN) -m pytest -m ""

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m pyright --pythonpath $(RUN)

docs: setup
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict
	@echo "Open build/site/index.html. $(RUN) -m mkdocs serve shows changes while you write."

clean:
	rm -rf build runs .pytest_cache .ruff_cache
