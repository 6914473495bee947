#!/usr/bin/env bash
# Evaluate a checkpoint on the annotated test set of its config.
#
#   bash scripts/eval.sh CHECKPOINT [KEY VALUE ...]
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: bash scripts/eval.sh CHECKPOINT [KEY VALUE ...]" >&2; exit 2; }
root="$(dirname "${BASH_SOURCE[0]}")/.."
checkpoint="$1"; shift
exec "$root/.venv/bin/python" "$root/train_net.py" --eval-only "$@" MODEL.WEIGHTS "$checkpoint"
