#!/usr/bin/env bash
# Sourced by train.sbatch and tune.sbatch, which run on the allocation's first node.
#
# run_on_ray COMMAND ARGUMENT... starts Ray on every node of the allocation, runs `distgan COMMAND ARGUMENT...` on it
# and takes all down again. Slurm sends USR1 some minutes before the time is over (--signal=B:USR1@300): the command
# then saves its state and ends, and the job is queued again; the same command resumes it.
#
# DISTGAN_HOME        the repository, seen by every node; by default where sbatch was called
# DISTGAN_VENV        the virtual environment, seen by every node; by default .venv in the repository
# DISTGAN_INTERFACE   the network interface that nodes reach one another through; by default a node's first address
set -euo pipefail
umask 077

export DISTGAN_HOME="${DISTGAN_HOME:-$SLURM_SUBMIT_DIR}"
export PATH="${DISTGAN_VENV:-$DISTGAN_HOME/.venv}/bin:$PATH"
# Ray's metrics ports ask for no token, and others may be on these nodes.
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_enable_metrics_collection=0 DASHBOARD_METRIC_PORT=-1
# Nodes end when nothing runs on them any more, or because Slurm has signaled all their processes: nothing to drain.
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0

# A token of this job's own, readable by this user only, in a folder that every node sees.
make_token() {
    export JOB_DIR="$SLURM_SUBMIT_DIR/.distgan/slurm/$SLURM_JOB_ID"
    mkdir -p "$JOB_DIR"
    rm -f "$JOB_DIR/over"
    export RAY_AUTH_TOKEN_PATH="$JOB_DIR/token"
    unset RAY_AUTH_TOKEN
    rm -f "$RAY_AUTH_TOKEN_PATH"
    od -An -N 32 -tx1 /dev/urandom | tr -d ' \n' >"$RAY_AUTH_TOKEN_PATH"
}

# Ports of this job, free on this node, the head: two jobs on one node begin their search at different ones.
# Below them are those that Ray gives to its workers, above them those that Linux gives to connections.
choose_ports() {
    local first=$((20000 + SLURM_JOB_ID % 1200 * 10))
    read -r HEAD_PORT DASHBOARD_PORT CLIENT_PORT < <(
        python - "$HEAD_ADDRESS" "$first" <<'PYTHON'
import socket, sys

address, port, found = sys.argv[1], int(sys.argv[2]), []
while len(found) < 3:
    try:
        socket.create_server((address, port)).close()
        found.append(port)
    except OSError:
        pass
    port += 1
print(*found)
PYTHON
    )
    export HEAD_PORT DASHBOARD_PORT CLIENT_PORT
}

# The exit code of a process, waited for through every signal that this shell is sent meanwhile.
wait_for() {
    local code=0
    while kill -0 "$1" 2>/dev/null; do
        code=0
        wait "$1" || code=$?
    done
    if [ "$code" -gt 128 ]; then
        wait "$1" || code=$?
    fi
    return "$code"
}

# The nodes see a file and end by themselves; a signal to srun would have Slurm kill them.
stop_ray() {
    touch "$JOB_DIR/over"
    for _ in $(seq 120); do
        if ! kill -0 "$RAY_STEP" 2>/dev/null; then break; fi
        sleep 1
    done
    kill -TERM "$RAY_STEP" 2>/dev/null || true
    wait_for "$RAY_STEP" || true
    rm -rf "$JOB_DIR"
}

# What Slurm asks for: an end, and with USR1 another beginning.
end_driver() {
    ENDING=yes
    if [ -n "$DRIVER" ]; then kill -TERM "$DRIVER" 2>/dev/null || true; fi
}

run_on_ray() {
    local code=0
    DRIVER='' ENDING=no WANTS_MORE=no
    trap 'WANTS_MORE=yes; end_driver' USR1
    trap end_driver TERM INT
    HEAD_ADDRESS="$("$DISTGAN_HOME/cluster/slurm/address.sh")"
    export HEAD_ADDRESS
    make_token
    choose_ports

    srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
        --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=1 \
        "$DISTGAN_HOME/cluster/slurm/node.sh" &
    RAY_STEP=$!
    trap stop_ray EXIT
    python "$DISTGAN_HOME/cluster/slurm/wait_for_nodes.py" "$HEAD_ADDRESS:$HEAD_PORT" "$SLURM_JOB_NUM_NODES" "$RAY_STEP"

    if [ "$ENDING" = no ]; then
        distgan "$@" --address "$HEAD_ADDRESS:$HEAD_PORT" &
        DRIVER=$!
        wait_for "$DRIVER" || code=$?
    else
        code=143
    fi
    trap '' USR1 TERM INT
    stop_ray
    trap - EXIT

    if [ "$WANTS_MORE" = yes ] && [ "$code" -ne 0 ]; then
        echo "the job's time is over: it is queued again and resumes"
        scontrol requeue "$SLURM_JOB_ID"
    fi
    return "$code"
}
