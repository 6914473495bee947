#!/usr/bin/env bash
# The main job in small, from a bare clone: set-up, generated pictures, training, evaluation, the
# submission file, a contact sheet, a report. On two CPU cores it takes about six minutes; nothing but
# Python is needed.
#
#   bash scripts/demo.sh [SETUP OPTIONS]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh "$@"
python=.venv/bin/python
data=data/generated
output=output/demo
config=configs/tiny_voc/cascade_mask_rcnn_effnet_lite0_fpn_cpu.yaml
step() { echo; echo "demo: $*"; }

step "generating pictures in $data"
"$python" scripts/generate_dataset.py "$data" --train 800 --test 100 --seed 0 --overwrite

# Mixed precision is bfloat16 on machines that compute with it, and float32 on others.
step "training on them, then evaluating on pictures with other backgrounds"
"$python" train_net.py --overwrite --config-file "$config" \
  DATASETS.ROOT "$data" OUTPUT_DIR "$output" SEED 1 SOLVER.AMP.ENABLED True

step "writing the submission file for the test set, which has no annotations"
"$python" train_net.py --eval-only --overwrite --format-only "$output/submission.json" \
  MODEL.WEIGHTS "$output/latest.pth"

step "drawing predictions beside the ground truth"
"$python" scripts/draw_predictions.py "$output" --min-score 0.3 --overwrite

step "writing the report"
"$python" scripts/report.py "$output" --overwrite

step "done"
"$python" scripts/print_evaluation.py "$output/evaluation.json"
echo "
model        $output/latest.pth
metrics      $output/evaluation.json
submission   $output/submission.json
pictures     $output/predictions.png   (prediction left, ground truth right)
report       $output/report.html       (one file, for any browser)
log          $output/log.txt           (curves: .venv/bin/tensorboard --logdir $output)"
