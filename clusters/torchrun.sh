#!/usr/bin/env bash
# One run on all GPUs of this machine:       clusters/torchrun.sh train vitamin-b-128m --out runs/b data.path=/data/pairs
# On several: the same line on each of them, with NODES and, on all, the first one's name in MASTER_ADDR.
# PROCESSES on each machine: one a GPU unless set (without GPUs it must be). RESTARTS: so often all processes are started
# again when one has died; `train` and `resume` then go on from the last saved state.
set -euo pipefail

nodes=${NODES:-1}
processes=${PROCESSES:-gpu}
if [ "$nodes" -eq 1 ] && [ -z "${MASTER_ADDR:-}" ]; then
  meet=(--standalone)
else
  : "${MASTER_ADDR:?with NODES=$nodes, set MASTER_ADDR to the name of the first machine}"
  meet=(--nnodes "$nodes" --rdzv-backend c10d --rdzv-endpoint "$MASTER_ADDR:${MASTER_PORT:-29500}")
  meet+=(--rdzv-id "${RUN_ID:-eyesmith}")
fi
# how long processes may save their state after SIGTERM before they are killed; torchrun's own 30 s is short for that
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-240}
# a store of its own for each start: torchrun's shared one still holds where the processes before a restart were
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=${TORCH_DISABLE_SHARE_RDZV_TCP_STORE:-1}
exec torchrun "${meet[@]}" --nproc-per-node "$processes" --max-restarts "${RESTARTS:-3}" -m eyesmith.cli.main "$@"
