#!/usr/bin/env bash
# Test on several devices: tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]
# Without a GPU, GPUS is the number of processes. NNODES, NODE_RANK, MASTER_ADDR and PORT come from the environment.
set -euo pipefail
tools=$(dirname "$0")
. "$tools/launch.sh"
[ $# -ge 3 ] || usage
check_nodes "$@"
run_torch "$3" "$tools/test.py" "$1" "$2" "${@:4}"
