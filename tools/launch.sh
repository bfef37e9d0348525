# Read by dist_*.sh and slurm_*.sh; the two ways to start one script on several devices.

usage() {  # print the caller's header
    sed -n '2,/^[^#]/s/^# //p' "$0" >&2
    exit 2
}

run_torch() {  # run_torch GPUS SCRIPT [arguments]
    exec "${PYTHON:-python}" -m torch.distributed.run \
        --nnodes="${NNODES:-1}" \
        --node_rank="${NODE_RANK:-0}" \
        --nproc_per_node="$1" \
        --master_addr="${MASTER_ADDR:-127.0.0.1}" \
        --master_port="${PORT:-29500}" \
        "${@:2}" --launcher pytorch
}

run_slurm() {  # run_slurm PARTITION JOB_NAME SCRIPT [arguments]
    local gpus=${GPUS:-8}
    local gpus_per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
    # SRUN_ARGS holds several words on purpose.
    # shellcheck disable=SC2086
    exec srun --partition="$1" \
        --job-name="$2" \
        --gres=gpu:"$gpus_per_node" \
        --ntasks="$gpus" \
        --ntasks-per-node="$gpus_per_node" \
        --cpus-per-task="${CPUS_PER_TASK:-8}" \
        --kill-on-bad-exit=1 \
        ${SRUN_ARGS:-} \
        "${PYTHON:-python}" -u "${@:3}" --launcher slurm
}
