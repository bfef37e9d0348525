# Read by dist_*.sh and slurm_*.sh; the two ways to start one script on several devices.

usage() {  # print the caller's header
    sed -n '2,/^[^#]/s/^# //p' "$0" >&2
    exit 2
}

check_nodes() {  # leave with an error unless each node can know its number and where node 0 is
    local nodes=${NNODES:-1} rank=${NODE_RANK:-} missing=()
    # A range, as in 1:4, is torchrun's to judge.
    [[ $nodes =~ ^[0-9]+$ ]] && [ "$nodes" -gt 1 ] || return 0
    [ -n "$rank" ] || missing+=(NODE_RANK)
    [ -n "${MASTER_ADDR:-}" ] || missing+=(MASTER_ADDR)
    if [ ${#missing[@]} -gt 0 ]; then
        echo "error: NNODES=$nodes needs ${missing[*]} in the environment. Start on each node, with its own number" >&2
        echo "from 0 to $((nodes - 1)) and the address of node 0, as in" >&2
        echo "  NNODES=$nodes NODE_RANK=0 MASTER_ADDR=10.0.0.1 $0 $*" >&2
        exit 2
    fi
    if ! [[ $rank =~ ^[0-9]+$ ]] || [ "$rank" -ge "$nodes" ]; then
        echo "error: NODE_RANK=$rank must be a number from 0 to $((nodes - 1)), as NNODES=$nodes" >&2
        exit 2
    fi
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
