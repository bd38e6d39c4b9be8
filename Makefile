# Set-up goes into the active virtual environment, else into .venv. Every target does its own set-up.
VENV ?= $(or $(VIRTUAL_ENV),.venv)
PY   := $(VENV)/bin/python
RUN  := $(VENV)/bin/wham-data
DONE := $(VENV)/.wham-data-installed

STORE_TESTS := tests/corpus/test_object_store.py tests/pipelines/ingest/test_ingest_store.py tests/pipelines/ingest/test_sources_in_store.py tests/feed/test_feed_store.py tests/pipelines/export/test_export_store.py
KILL_TESTS  := tests/pipelines/ingest/test_ingest_faults.py

# A worker per core, each with one thread. One that runs out of tests takes over the last of another.
IN_PARALLEL := -n auto --maxprocesses 8 --dist worksteal

.PHONY: setup demo test soak fuzz check docs bench clean

setup: $(DONE)

$(DONE): pyproject.toml constraints.txt
	test -x $(PY) || python3 -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(RUN) demo --out demo-out

test: setup
	$(PY) -m pytest $(IN_PARALLEL)

soak: setup
	$(PY) tests/faults/soak.py --faults 500
	WHAM_DATA_TEST_KILLS=25 $(PY) -m pytest $(KILL_TESTS) $(STORE_TESTS)
	$(PY) tests/soak/ray_nodes.py
	$(PY) tests/soak/ray_nodes.py --recordings 300 --tokenizer wham-tiny
	if command -v npm; then npm install --silent --no-save --prefix build/node hyparquet@1 && \
		WHAM_DATA_TEST_NODE_MODULES=build/node/node_modules $(PY) -m pytest tests/test_docs_blocks.py tests/pipelines/export -k javascript; fi
	$(PY) tests/soak/consumers/run.py
	test -x build/croissant/bin/python || $(PY) -m venv build/croissant
	build/croissant/bin/python -m pip install --quiet --disable-pip-version-check mlcroissant==1.1.1 pyarrow pillow
	WHAM_DATA_TEST_CROISSANT_PYTHON=build/croissant/bin/python $(PY) -m pytest tests/pipelines/curate/card -k mlcroissant
	WHAM_DATA_TEST_KILLS=10 $(PY) tests/soak/ceph_rgw.py $(PY) -m pytest $(STORE_TESTS)

fuzz: setup
	for group in corpora checkpoints logs movies readers; do \
		$(PY) tests/fuzz/fuzzing.py $$group --minutes 10 --seed 20261121 || exit 1; \
	done

check: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --site-dir build/site

docs: setup
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict
	@echo "open site/index.html"

bench: setup
	$(PY) benchmarks/decode.py
	$(PY) benchmarks/tokenizer.py
	$(PY) benchmarks/ingest.py
	$(PY) benchmarks/ray.py

clean:
	rm -rf demo-out site build/site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
