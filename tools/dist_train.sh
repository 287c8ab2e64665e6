#!/usr/bin/env bash
# Trains a config in several processes, one per GPU, as mmdet's tools/dist_train.sh does:
#
#   tools/dist_train.sh CONFIG GPUS [any option of tools/train.py]
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 PORT=29500 tools/dist_train.sh CONFIG GPUS
#
# For configs that train a detector. Forgetting (ContinualForgettingLoop) runs in one process for
# now: with GPUS above 1 it stops with an error that says so, before any work. On a machine without
# GPU, tools/train.py stops with an error: MMEngine 0.10 starts no process group there.
set -euo pipefail

if (( $# < 2 )); then
    echo 'usage: tools/dist_train.sh CONFIG GPUS [any option of tools/train.py]' >&2
    exit 2
fi
CONFIG=$1
GPUS=$2
TOOLS="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

PYTHONPATH="$(dirname "$TOOLS")${PYTHONPATH:+:$PYTHONPATH}" \
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$GPUS" \
    "$TOOLS/train.py" "$CONFIG" --launcher pytorch "${@:3}"
