#!/usr/bin/env bash
# Run the tests: the fast ones in two processes, or all of them with --all, one after the other (the slow
# ones train with all cores, and run the demo).
#
#   bash scripts/test.sh [--all] [PYTEST OPTIONS]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ "${1:-}" = --all ]; then
  shift; selection=()
else
  # A file stays in one process, for its fixtures; one thread each, for most tests wait for a program to start.
  selection=(-m "not slow" -n 2 --dist loadfile)
  export OMP_NUM_THREADS=1
fi
bash scripts/setup.sh
.venv/bin/ruff check --quiet .
.venv/bin/ruff format --quiet --check .
exec .venv/bin/python -m pytest "${selection[@]}" "$@"
