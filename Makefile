# Needs Python >= 3.11 and make; everything else is installed into .venv.
PYTHON ?= python3
BIN = .venv/bin
SMOKE = build/smoke
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
NOTEBOOKS ?= # those of make reproduce, such as "03 13"; all if empty
TESTS ?= notebooks tests
space := $() $()
url = $(subst $(space),%20,$(1))

.PHONY: reproduce test test-all notebooks site lab benchmark clean

reproduce: .venv/installed
	@echo "1 of 2: notebooks from the committed results, all in about four minutes on two cores"
	$(BIN)/python -m lc notebooks $(NOTEBOOKS)
	rm -rf $(SMOKE)
	@echo "2 of 2: notebook 03 once more, from networks that are trained here on digits, in about a minute"
	LC_RESULTS_DIR=$(SMOKE)/results LC_FIGURES_DIR=$(SMOKE)/figures \
		$(BIN)/python -m lc notebooks 03 --profile smoke --train --out $(SMOKE)
	@echo "Done. Figures: build/figures. Trained just now: $(SMOKE)/03_expansion.html. Pages: build/notebooks. Open one of them:"
	@echo "file://$(call url,$(CURDIR))/build/notebooks/03_expansion.html"

# Two processes of one thread each, a notebook or test file at a time: the long notebooks first, so
# that neither process waits for the other at the end
test: .venv/installed
	$(PYTEST) --nbval $(TESTS) -m "not slow"

test-all: .venv/installed
	$(PYTEST) --nbval $(TESTS)

# After new results: execute the notebooks in place, as they are committed, and write the numbers of README.md and the guides.
notebooks: .venv/installed
	LC_FIGURES_DIR="$(CURDIR)/figures" $(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False notebooks/*.ipynb
	$(BIN)/python docs/fill_numbers.py

# A static site of the committed notebooks, as they were executed: build/site/index.html
site: .venv/installed
	rm -rf build/site
	$(BIN)/python docs/sources.py build/docs
	$(BIN)/sphinx-build -W --keep-going -q -c docs build/docs build/site
	@echo "file://$(call url,$(CURDIR))/build/site/index.html"

# JupyterLab on the README, shown as a page whose links open the notebooks.
lab: .venv/installed
	mkdir -p .venv/share/jupyter/lab/settings
	echo '{"@jupyterlab/docmanager-extension:plugin": {"defaultViewers": {"markdown": "Markdown Preview"}}}' \
		> .venv/share/jupyter/lab/settings/overrides.json
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/README.md

benchmark: .venv/installed
	$(BIN)/python -m lc benchmark

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	@echo "Installing PyTorch, Jupyter and the rest into .venv: 6 GB with CUDA, in 5 minutes or, on a slow line, 20"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,docs]'
	touch $@

clean:
	rm -rf .venv build
