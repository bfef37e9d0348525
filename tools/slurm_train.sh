#!/usr/bin/env bash
# Train under Slurm: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py]
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS come from the environment.
set -euo pipefail
tools=$(dirname "$0")
. "$tools/launch.sh"
[ $# -ge 3 ] || usage
run_slurm "$1" "$2" "$tools/train.py" "${@:3}"
