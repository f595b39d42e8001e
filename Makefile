# Everything is set up on first use; all that is needed is Python (3.11 or newer, with venv) and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTEST_PROCESSES ?= 2
PYTEST_ARGS ?=
FASHION_MNIST ?= /usr/share/datasets/fashion-mnist
PHOTOGRAPHS := photographs-output

.PHONY: help install demo photographs labels test test-all lint format docs dist clean

help:
	@echo "make demo         the main job on an embedded S3 server, in minutes"
	@echo "make photographs  a small DCGAN on Fashion-MNIST, in minutes"
	@echo "make labels       a small conditional GAN on Fashion-MNIST, and whether it obeys, in minutes"
	@echo "make test         the test suite"
	@echo "make test-all     the test suite and what is slow"
	@echo "make lint         ruff, mypy and the import contracts"
	@echo "make format       ruff's formatter"
	@echo "make docs         the documentation site, in build/docs"
	@echo "make dist         wheel and sdist of the last commit, in dist"
	@echo "make clean        remove what the targets above made"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt distgan/__init__.py
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/python examples/demo.py

photographs: $(INSTALLED) $(PHOTOGRAPHS)/data/index.json
	$(BIN)/distgan train quickstart data.url=$(PHOTOGRAPHS)/data training.kimg=96 evaluation.every_kimg=24 \
		--no-ray --storage $(PHOTOGRAPHS) --name run
	$(BIN)/distgan sample $(PHOTOGRAPHS)/run --count 64 --seed 0 --out $(PHOTOGRAPHS)/samples.png

labels: $(INSTALLED) $(PHOTOGRAPHS)/data/index.json
	$(BIN)/distgan train cgan-fashion data.url=$(PHOTOGRAPHS)/data generator.width=24 \
		discriminator.width=24 discriminator.dropout=0 "objective={name: rpgan, gamma: 0.1, penalty_every: 16}" \
		"optimizer.generator={lr: 1e-3, beta1: 0, beta2: 0.99}" "optimizer.discriminator={lr: 1e-3, beta1: 0, beta2: 0.99}" \
		"optimizer.lr_factor={from: 1, to: 0.1, until_kimg: 200}" training.batch_size=16 scale.groups=1 \
		training.kimg=200 training.log_every=100 \
		evaluation.every_kimg=50 evaluation.samples=2048 evaluation.real_samples=4096 \
		--no-ray --storage $(PHOTOGRAPHS) --name labels
	$(BIN)/distgan sample $(PHOTOGRAPHS)/labels --checkpoint last --label all --count 80 --seed 0 --out $(PHOTOGRAPHS)/labels.png
	$(BIN)/python examples/label_agreement.py $(PHOTOGRAPHS)/labels --checkpoint last --data $(PHOTOGRAPHS)/data \
		--json $(PHOTOGRAPHS)/labels.json

$(PHOTOGRAPHS)/data/index.json: | $(INSTALLED) $(FASHION_MNIST)
	$(BIN)/distgan data pack $(FASHION_MNIST) --format idx --out $(@D) --size 32 --channels 1

$(FASHION_MNIST):
	@echo "$@: Fashion-MNIST is not there; apt-get install dataset-fashion-mnist, or make FASHION_MNIST=FOLDER ..."; exit 2

test: $(INSTALLED)
	$(BIN)/python -m pytest -n $(PYTEST_PROCESSES) --dist loadfile -m "not slow" $(PYTEST_ARGS)

# Tests that start Ray run one after the other: two instances on one machine disturb each other.
test-all: $(INSTALLED)
	$(BIN)/python -m pytest -n $(PYTEST_PROCESSES) --dist loadfile -m "not (slow and ray)" $(PYTEST_ARGS)
	$(BIN)/python -m pytest -m "slow and ray" $(PYTEST_ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx --nitpicky --fail-on-warning --keep-going --quiet -b html docs build/docs

$(VENV)/.installed-docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

# Of a copy: a build takes what lies about in its folder.
dist: $(INSTALLED)
	rm -rf dist build/source
	mkdir -p build/source
	git archive HEAD | tar -x -C build/source
	$(BIN)/python -m build --outdir dist build/source

clean:
	rm -rf $(VENV) demo-output $(PHOTOGRAPHS) build dist docs/_generated *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
