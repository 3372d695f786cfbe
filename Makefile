.DEFAULT_GOAL := help
.PHONY: help serve test export lint fuzz audit sbom image bundle clean

# The environment of the service, and that of everything else (export, tests, checks).
RUNTIME := .venv
DEV := .venv-dev
IMAGE ?= qa
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' service/__init__.py)
# Those environments are whole: a caller's Python must not mix its own modules in, or hide this folder's.
unexport PYTHONPATH PYTHONHOME PYTHONSAFEPATH

help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

serve: ## Answer over HTTP (QA_PORT, QA_MODEL and the other QA_ settings apply)
	@deploy/install.sh runtime $(RUNTIME)
	@exec $(RUNTIME)/bin/python -m service serve

test: ## Run all tests
	@deploy/install.sh runtime $(RUNTIME)
	@deploy/install.sh dev $(DEV)
	$(DEV)/bin/python -m pytest $(TESTS)

export: ## Export a model: make export MODEL=hub-id-or-folder OUTPUT=folder [FLAGS=...]
	@test -n "$(MODEL)" -a -n "$(OUTPUT)" || { echo "usage: make export MODEL=... OUTPUT=..." >&2; exit 2; }
	@deploy/install.sh dev $(DEV)
	$(DEV)/bin/python -m export --model "$(MODEL)" --output "$(OUTPUT)" $(FLAGS)

lint: ## Check style, types, pinned requirements and the table of settings
	@deploy/install.sh dev $(DEV)
	$(DEV)/bin/ruff check
	$(DEV)/bin/ruff format --check
	$(DEV)/bin/mypy
	$(DEV)/bin/python deploy/requirements.py --check
	$(DEV)/bin/python deploy/settings_table.py --check

fuzz: ## Search for inputs that crash, for SECONDS (default 60): make fuzz TARGET=manifest, request or operator
	@deploy/install.sh dev $(DEV)
	@$(DEV)/bin/python deploy/install_packages.py atheris==3.0.0
	$(DEV)/bin/python -m tests.fuzz.run $(or $(TARGET),manifest) -max_total_time=$(or $(SECONDS),60)

audit: ## Look up every pinned package among known vulnerabilities (needs the network)
	@deploy/install.sh dev $(DEV)
	$(DEV)/bin/pip-audit --strict --no-deps --disable-pip --requirement requirements-dev.txt

sbom: ## Write the bill of materials of the service and its default model (CycloneDX) to sbom.json
	@deploy/install.sh runtime $(RUNTIME)
	@deploy/install.sh dev $(DEV)
	$(DEV)/bin/python deploy/sbom.py $(RUNTIME) models/default > sbom.json

image: ## Build the Docker image qa with the model that comes along (MODEL=exported folder, Hugging Face folder or hub id)
	@rm -rf models/exported
	@[ ! -f "$(MODEL)/manifest.json" ] || cp -rL "$(MODEL)" models/exported
	DOCKER_BUILDKIT=1 docker build $(FLAGS) -t $(IMAGE) -t $(IMAGE):$(VERSION) \
	    --build-arg MODEL="$(if $(wildcard $(MODEL)/manifest.json),exported,$(or $(MODEL),default))" .
	@rm -rf models/exported

bundle: ## Pack what a machine without a network needs to install the service into qa-onnx.tar (FLAGS="--image qa")
	@deploy/install.sh runtime $(RUNTIME)
	PYTHON=$(RUNTIME)/bin/python deploy/bundle.sh $(FLAGS) qa-onnx.tar

clean: ## Remove the environments and caches
	rm -rf $(RUNTIME) $(DEV) .pytest_cache .ruff_cache .mypy_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
