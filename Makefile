# `make help` lists what can be made. Every target sets itself up.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Where pip finds the build of torch for this machine; empty: its usual index. README.md, "Install", says which.
TORCH_INDEX ?=
# Evaluation folders in BEIR layout; one set ships with the project.
DATASETS ?= encoder/evaluation/datasets
MODES ?= dense sparse hybrid
RESULTS ?= build/quality.jsonl
# Files that prove-load renews: a plot (SVG), and a README with its table. prove-encoder-speed renews PLOT and the page REPORT.
PLOT ?=
README ?=
REPORT ?=
# A folder of all-MiniLM-L6-v2, or of another sentence-transformers model, to stand beside ours in the table.
BASELINE ?=
# Of length: sets whose documents are lengthened. Of the experiments: which runs (empty: the eight of the comparison), models to read long documents, text of the haystack.
RUNS ?=
MODELS ?= runs/paper-mamba runs/paper-transformer encoder/models/default
LENGTH_SETS ?= encoder/evaluation/datasets/squad_xquad_en
HAYSTACK ?= datasets/evidence_inference

.DEFAULT_GOAL := help
# Whatever `make help` lists is no file.
.PHONY: $(shell sed -nE 's/^([a-z0-9-]+):.*\#\# .*/\1/p' $(MAKEFILE_LIST))

help:  ## List the targets.
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 24

setup: $(STAMP)  ## Make .venv with everything in it, the mamba-search command included.

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; $(PYTHON) is older. Give one: make setup PYTHON=python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(PIP) hatchling editables
	$(PIP) --no-build-isolation --editable '.[dev]'
	@touch $@

test: setup  ## Run the tests, the end-to-end one included.
	$(BIN)/python -m pytest

lint: setup  ## Check format, style, types and import layers.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test  ## The one gate: lint, then the tests.

demo: setup  ## Start the service, ingest real documents, ask questions over gRPC, stop.
	$(BIN)/python demo/demo.py

stubs: setup  ## Generate the gRPC stubs, and the models of HTTP, from proto/.
	$(BIN)/python -m grpc_tools.protoc --proto_path=proto --python_out=proto --pyi_out=proto --grpc_python_out=proto proto/mambasearch/v1/*.proto
	$(BIN)/python -m services.http.model_writing services/http/models

manifests: setup  ## Write what deploy/kubernetes serves, from deploy/serve.yaml.
	$(BIN)/python deploy/kubernetes/serve_config.py

settings-table: setup  ## Renew the table in docs/settings.md.
	$(BIN)/python -m services.settings_table --page docs/settings.md

evaluate: setup  ## Measure quality over DATASETS in all MODES: JSON lines in RESULTS, then README.md's table.
	@mkdir -p $(dir $(RESULTS))
	$(BIN)/mamba-search evaluate --json $(foreach set,$(wildcard $(DATASETS)/*/),--dataset $(set)) $(foreach mode,$(MODES),--mode $(mode)) > $(RESULTS)
	@$(BIN)/python -m encoder.evaluation.report $(RESULTS)

evaluate-baseline: setup  ## Measure BM25 and the sentence-transformers model BASELINE over DATASETS, in RESULTS.
	@test -n "$(BASELINE)" || { echo "Name a folder: make evaluate-baseline BASELINE=all-MiniLM-L6-v2 RESULTS=build/baseline.jsonl" >&2; exit 1; }
	@mkdir -p $(dir $(RESULTS))
	$(BIN)/mamba-search evaluate --json $(foreach set,$(wildcard $(DATASETS)/*/),--dataset $(set)) --sentence-transformers $(BASELINE) --chunk-tokens 250 --mode dense --mode bm25s --mode rrf > $(RESULTS)

prove-quality: evaluate  ## Fail unless the quality in RESULTS clears the project's bars.
	$(BIN)/python tests/benchmarks/prove_quality.py $(RESULTS)

prove-context: setup  ## Fail unless chunks in one pass through documents are found as well as alone, over DATASETS.
	@mkdir -p build
	$(BIN)/mamba-search evaluate --json $(foreach set,$(wildcard $(DATASETS)/*/),--dataset $(set)) --mode dense --run-dir build/runs-alone > build/alone.jsonl
	$(BIN)/mamba-search evaluate --json $(foreach set,$(wildcard $(DATASETS)/*/),--dataset $(set)) --mode dense --chunks one-pass --baseline build/runs-alone > build/one-pass.jsonl
	$(BIN)/python tests/benchmarks/prove_context.py build/one-pass.jsonl

prove-length: setup  ## Fail unless documents of LENGTH_SETS are found at 32K tokens nearly as well as at 2K.
	@mkdir -p build
	$(BIN)/mamba-search evaluate --json $(addprefix --dataset ,$(LENGTH_SETS)) --mode dense --length 2048 --length 32768 > build/length.jsonl
	$(BIN)/mamba-search evaluate --json $(addprefix --dataset ,$(LENGTH_SETS)) --mode dense --length 2048 --length 32768 --chunks document >> build/length.jsonl
	$(BIN)/python tests/benchmarks/prove_length.py build/length.jsonl

prove-ingest-speed: setup  ## Fail unless ingestion without an encoder's work is half as fast as raw upserts.
	$(BIN)/python -m tests.benchmarks.ingest_speed

prove-ingest-memory: setup  ## Fail unless ingesting 100,000 documents needs hardly more memory than 10,000.
	$(BIN)/python -m tests.benchmarks.ingest_memory

prove-append: setup  ## Fail unless adding 1 % to a document of 200K tokens costs under 5 % of ingesting it; takes minutes.
	$(BIN)/python tests/benchmarks/append_cost.py

prove-crashes: setup  ## Fail unless 200 kills of workers, encoder, index owner and node, at all points, lose, double and leave nothing.
	$(BIN)/python -m tests.benchmarks.crashes.killing --kills 200 --documents 500

prove-reader: setup  ## Fail unless a document replaced 200 times is found whole, in one version, by every search.
	$(BIN)/python -m tests.benchmarks.replacing.replacing --replacements 200

prove-document-memory: setup  ## Fail unless a document of 10M tokens is ingested in bounded memory.
	$(BIN)/python -m tests.benchmarks.document_memory

prove-bm25: setup  ## Fail unless BM25 here agrees with an independent implementation over DATASETS.
	$(BIN)/python tests/benchmarks/compare_bm25.py $(wildcard $(DATASETS)/*/)

prove-code-search: setup  ## Fail unless half of 200 docstrings of a public package, taken out of it, find their code; takes minutes.
	@mkdir -p build
	$(BIN)/python -m tests.benchmarks.code_search

prove-search-latency: setup  ## Fail unless one search over 100,000 chunks takes at most 25 ms (p50), the whole product running.
	$(BIN)/python -m tests.benchmarks.load.latency

prove-load: setup  ## Fail unless searches are as fast as those of a plain FastAPI server, and faster for 16 clients; 6 minutes.
	$(BIN)/python -m tests.benchmarks.load.comparison $(if $(PLOT),--plot $(PLOT)) $(if $(README),--readme $(README))

prove-search-under-ingestion: setup  ## Fail unless searches and ingestion leave each other room.
	$(BIN)/python -m tests.benchmarks.load.under_ingestion

prove-fuzz: setup  ## Fail unless 10,000 malformed messages to each RPC crash nothing and leak nothing; takes minutes.
	$(BIN)/python -m tests.fuzz.fuzzing --messages 10000

prove-chaos: setup  ## Fail unless parts that are killed, stopped and cut off during load cost no answer and no document.
	$(BIN)/python -m tests.chaos.causing

prove-gpu-service: setup  ## Fail unless passages as texts come through the service at 80 % of the bare encoder's speed, on an NVIDIA GPU.
	$(BIN)/python -m tests.benchmarks.load.service

prove-upstream: setup  ## Fail unless hidden states equal those of transformers, on the CPU.
	$(BIN)/python tests/benchmarks/upstream_parity.py

prove-parameters: setup  ## Fail unless the named sizes have exactly the published numbers of parameters.
	$(BIN)/python tests/benchmarks/parameters.py

prove-one-pass: setup  ## Fail unless a document embeds alike in one call, in pieces, and continued from its state.
	$(BIN)/python tests/benchmarks/one_pass.py

prove-cpu-speed: setup  ## Fail unless the default model outruns a BERT of its size on this CPU.
	$(BIN)/python tests/benchmarks/cpu_speed.py --plot docs/cpu-speed.svg

prove-cpu-memory: setup  ## Fail unless a document of 1M tokens needs hardly more memory than one of 8K.
	$(BIN)/python tests/benchmarks/cpu_memory.py

prove-batches: setup  ## Fail unless one process builds training batches at 2M tokens/s.
	$(BIN)/python tests/benchmarks/batch_building.py

prove-gpu-upstream: setup  ## Fail unless hidden states equal mamba_ssm's, on an NVIDIA GPU; compiles for minutes.
	@$(BIN)/python -c "import sys; from encoder.kernels.upstream import missing; from encoder.sizes import SIZES; sys.exit(missing(SIZES['codestral-7b']) or None)"
	$(BIN)/python -m pytest tests/gpu

prove-encoder-speed: setup  ## Fail unless the fused kernels clear their bars beside other encoders, on an NVIDIA H200; BASELINE is MiniLM.
	@mkdir -p build
	$(BIN)/python -m tests.benchmarks.prove_encoder_speed $(if $(BASELINE),--sentence-transformers $(BASELINE)) $(if $(PLOT),--plot $(PLOT)) $(if $(REPORT),--report $(REPORT))

prove-gpu-quality: setup  ## Fail unless a GPU's kernels embed DATASETS as plain torch in float32 does, and find the same documents.
	$(BIN)/python -m tests.benchmarks.gpu_quality $(wildcard $(DATASETS)/*/)

prove-gpu-memory: setup  ## Fail unless documents of 8K to 1M tokens need the same memory of an NVIDIA GPU.
	$(BIN)/python tests/benchmarks/gpu_memory.py mamba2-130m 8192 65536 262144 1048576

prove-gpu-codestral: setup  ## The same for Codestral Mamba's architecture and 256K tokens; needs 17 GB.
	$(BIN)/python tests/benchmarks/gpu_memory.py codestral-7b 8192 262144

prove-security: setup  ## Fail unless every check passes of who may do what, tenants, TLS, paths, filters, floods and logs.
	$(BIN)/python -m tests.security.prove

prove-sizes: setup  ## Fail unless source files stay small.
	$(BIN)/python tests/benchmarks/prove_sizes.py

paper-runs: setup  ## Train Mamba, a Transformer, ablations and sizes alike and measure them over DATASETS; for a GPU.
	@mkdir -p build
	$(BIN)/python -m tests.benchmarks.experiments.runs --datasets $(DATASETS) --results build/paper-runs.jsonl $(if $(RUNS),--only $(RUNS))

paper-length: setup  ## Measure MODELS on LENGTH_SETS lengthened from 2K to 64K tokens; for a GPU.
	@mkdir -p build
	$(BIN)/python -m tests.benchmarks.experiments.length $(addprefix --model ,$(MODELS)) $(addprefix --dataset ,$(LENGTH_SETS)) --results build/paper-length.jsonl

paper-needle: setup  ## Let MODELS find a paragraph in documents of 2K to 256K tokens of HAYSTACK; for a GPU.
	@mkdir -p build
	$(BIN)/python -m tests.benchmarks.experiments.needle $(addprefix --model ,$(MODELS)) --haystack $(HAYSTACK) --results build/paper-needle.jsonl

paper-speed: setup  ## Time Mamba and a Transformer of its size: to 8K tokens on a CPU, to 128K on a GPU.
	@mkdir -p build
	$(BIN)/python -m tests.benchmarks.experiments.speed --results build/paper-speed.jsonl

paper-plots: setup  ## Draw what the other paper-* targets measured, into docs.
	$(BIN)/python -m tests.benchmarks.experiments.plots $(wildcard build/paper-*.jsonl) --out docs

clean:  ## Remove what the targets made, .venv included.
	rm -rf $(VENV) build dist .hypothesis .*_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
