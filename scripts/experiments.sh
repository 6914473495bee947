#!/usr/bin/env bash
# Train and evaluate every row of scripts/experiments.txt, and print the table. A run that is finished is
# not run again; one that was interrupted goes on.
#
#   bash scripts/experiments.sh DATA OUTPUT [ROW ...] [-- KEY VALUE ...]
#
# DATA has the layout of docs/data.md. Rows are judged on a quarter of its training pictures that is set
# aside (scripts/split_dataset.py), or on its test pictures; experiments.txt says which. KEY VALUE pairs go
# into every run that begins; one that goes on keeps its own.
set -euo pipefail

die() { echo "error: $*" >&2; exit 2; }

if [ "${1:-}" = -h ] || [ "${1:-}" = --help ]; then sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit; fi
[ $# -ge 2 ] || die "usage: bash scripts/experiments.sh DATA OUTPUT [ROW ...] [-- KEY VALUE ...]"
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python="$root/.venv/bin/python"
rows_file="$root/scripts/experiments.txt"
[ -x "$python" ] || die "there is no $python; run bash scripts/setup.sh"
data="$1"; output="$2"; shift 2
names=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do names+=("$1"); shift; done
if [ $# -gt 0 ]; then shift; fi
for name in "${names[@]}"; do
  awk -v name="$name" '$1 == name { found = 1 } END { exit !found }' "$rows_file" || die "there is no row $name in $rows_file"
done

# What to train and to evaluate on, for the column "pictures"; the files are made if they are not there.
choose_sets() {
  case "$1" in
    split)
      sets=(DATASETS.TRAIN '("tiny_voc_train_split",)' DATASETS.TEST '("tiny_voc_val",)')
      [ -f "$data/pascal_val.json" ] || "$python" "$root/scripts/split_dataset.py" "$data" --share 0.25 ;;
    all) sets=(DATASETS.TRAIN '("tiny_voc_train",)') ;;
    *)
      sets=(DATASETS.TRAIN '("custom_train",)' DATASETS.TRAIN_IMAGES train_images
        DATASETS.TRAIN_JSON "pascal_train_$1.json")
      [ -f "$data/pascal_train_$1.json" ] || "$python" "$root/scripts/subset_dataset.py" "$data" "$1" ;;
  esac
}

is_finished() {
  [ -f "$1/evaluation.json" ] &&
    grep -Eq '"exit": "(finished|stopped by TEST.EARLY_STOP_PATIENCE)"' "$1/run.json"
}

while read -r name seeds pictures recipe pairs; do
  [[ -n "$name" && "$name" != \#* ]] || continue
  if [ ${#names[@]} -gt 0 ] && [[ " ${names[*]} " != *" $name "* ]]; then continue; fi
  for seed in ${seeds//,/ }; do
    run="$output/$name/seed_$seed"
    if is_finished "$run"; then echo "experiments: $run is finished"; continue; fi
    echo "experiments: $run"
    if [ -f "$run/last_checkpoint" ]; then
      arguments=(--resume OUTPUT_DIR "$run")
    else
      choose_sets "$pictures"
      read -ra of_row <<< "$pairs"
      arguments=(--overwrite --config-file "$root/configs/small_data/$recipe"
        DATASETS.ROOT "$data" OUTPUT_DIR "$run" SEED "$seed"
        "${sets[@]}" "${of_row[@]}" "$@")
    fi
    "$python" "$root/train_net.py" "${arguments[@]}" < /dev/null
  done
done < "$rows_file"

"$python" "$root/scripts/print_experiments.py" "$output"
