#!/usr/bin/env bash
# Test under Slurm: tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of tools/test.py]
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS come from the environment.
set -euo pipefail
tools=$(dirname "$0")
. "$tools/launch.sh"
[ $# -ge 4 ] || usage
run_slurm "$1" "$2" "$tools/test.py" "${@:3}"
