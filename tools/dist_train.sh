#!/usr/bin/env bash
# Train on several devices: tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
# Without a GPU, GPUS is the number of processes. NNODES, NODE_RANK, MASTER_ADDR and PORT come from the environment.
set -euo pipefail
tools=$(dirname "$0")
. "$tools/launch.sh"
[ $# -ge 2 ] || usage
check_nodes "$@"
run_torch "$2" "$tools/train.py" "$1" "${@:3}"
