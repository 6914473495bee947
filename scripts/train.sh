#!/usr/bin/env bash
# Train the tiny-VOC recipe on the data in data/, on every GPU that there is. The recipe's batch
# is for one or two; four take SOLVER.IMS_PER_BATCH 4 SOLVER.BASE_LR 0.005, and CUDA_VISIBLE_DEVICES=0,1 leaves two.
#
#   bash scripts/train.sh [KEY VALUE ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
gpus=$(.venv/bin/python -c 'from torch import cuda; print(cuda.device_count() if cuda.is_available() else 0)')
options=(); if [ "$gpus" -gt 0 ]; then options=(--num-gpus "$gpus"); fi
exec .venv/bin/python train_net.py "${options[@]}" \
  --config-file configs/tiny_voc/cascade_mask_rcnn_resnest50_fpn.yaml "$@"
