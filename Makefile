# Everything happens in cloudapp/local; these are short names for it.
PYTHON ?= python3
# Whoever kills make, even by SIGKILL, stops what it runs: the launcher asks the kernel for that.
LOCAL = @exec $(PYTHON) cloudapp/local/launch.py $$PPID 15 - $(PYTHON) -m cloudapp.local
export PORT ARGS

.PHONY: help run test setup image bench lint format lock clean
.DEFAULT_GOAL := help

help: ## show this
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## set up what is missing, start the whole product on http://localhost:8000 (PORT=)
	$(LOCAL) run

test: ## set up what is missing, run all the checks and tests (ARGS= goes to pytest)
	$(LOCAL) test

setup: ## install what is missing and start nothing
	$(LOCAL) setup

image: ## build the control plane's image, cloudapp:<version>
	$(LOCAL) image

bench: ## measure against the bare container engine; writes var/bench.json
	$(LOCAL) bench

lint: ## ruff and mypy
	$(LOCAL) lint

format: ## let ruff repair and format
	$(LOCAL) format

lock: ## resolve the dependencies anew into the two lock files
	$(LOCAL) lock

clean: ## remove what can be made again; data stays
	$(LOCAL) clean
