#!/usr/bin/env bash
# Train on a SLURM cluster: a torchrun on each node, a process for each GPU.
#
#   sbatch --nodes 2 --gpus-per-node 4 scripts/train_slurm.sh --config-file FILE [KEY VALUE ...]
#
# Call it from the repository's root, which every node must see, OUTPUT_DIR too. Two minutes before the
# time is up, and when the job is pre-empted, training saves and ends (torchrun leaves it 30 seconds for
# that); a job that SLURM queues again goes on from there. It does not queue one again whose time was up:
#
#   sbatch --nodes 2 --gpus-per-node 4 scripts/train_slurm.sh --resume OUTPUT_DIR DIR
#
# With --num-gpus 4 before the other options, a node whose GPUs torch cannot use ends the job; without, it
# trains on its CPUs. What is set here can be set on sbatch's command line.
#SBATCH --job-name=train_net
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
: "${SLURM_JOB_ID:?error: not in a SLURM job; start this file with sbatch}"
cd "$SLURM_SUBMIT_DIR"
first_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# Jobs that share a node need ports of their own.
port=$((20000 + SLURM_JOB_ID % 20000))
# A node that starts again would wait for an address that torch's shared store does not give again.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
# srun itself does not take this from sbatch in all versions of SLURM.
exec srun --cpus-per-task "${SLURM_CPUS_PER_TASK:-8}" .venv/bin/python -m torch.distributed.run \
  --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" \
  --rdzv-backend c10d --rdzv-endpoint "$first_node:$port" --rdzv-id "$SLURM_JOB_ID" \
  --max-restarts 3 train_net.py "$@"
