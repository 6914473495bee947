#!/usr/bin/env bash
# Run the tests: the fast ones, or all of them with --all (the slow ones train, and run the demo).
#
#   bash scripts/test.sh [--all] [PYTEST OPTIONS]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

marker=(-m "not slow")
if [ "${1:-}" = --all ]; then marker=(); shift; fi
bash scripts/setup.sh
.venv/bin/ruff check --quiet .
.venv/bin/ruff format --quiet --check .
exec .venv/bin/python -m pytest "${marker[@]}" "$@"
