#!/usr/bin/env bash
# Write the submission file of the test set: bash scripts/submit.sh latest.pth 0856610.json
#
#   bash scripts/submit.sh CHECKPOINT FILE [KEY VALUE ...]
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: bash scripts/submit.sh CHECKPOINT FILE [KEY VALUE ...]" >&2; exit 2; }
root="$(dirname "${BASH_SOURCE[0]}")/.."
checkpoint="$1" file="$2"; shift 2
exec "$root/.venv/bin/python" "$root/train_net.py" --eval-only --format-only "$file" \
  "$@" MODEL.WEIGHTS "$checkpoint"
