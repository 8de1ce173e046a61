# jepa-arm: `make demo` and `make test` set everything up first; set-up takes a second when nothing changed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test check safety fuzz mutate clean

setup: ## make or update .venv
	@$(PYTHON) scripts/setup.py

demo: setup ## the main job over ROS 2, with a live view and a report in out/demo
	@$(BIN)/jepa-arm demo

test: setup
	@$(BIN)/python -m pytest

check: setup ## style, types, direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

safety: setup ## the three figures of hardware/safety: branch coverage, fuzzing, mutants killed
	$(BIN)/python -m pytest -q -p no:cacheprovider tests/hardware/safety \
	  --cov=hardware.safety --cov-branch --cov-report=term --cov-fail-under=100
	$(MAKE) --no-print-directory fuzz mutate

fuzz: ## a million commands, good and bad, to the safety gate; SEED=1 for others
	$(BIN)/python tests/hardware/safety/barrage.py --commands 1000000 --seed $(or $(SEED),0)

mutate: ## how many small bugs in hardware/safety its tests notice
	$(BIN)/python scripts/mutate.py --show

clean: ## remove what set-up made; data/, runs/ and out/ stay
	rm -rf .venv ros_ws/build ros_ws/install ros_ws/log .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
