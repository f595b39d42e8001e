#!/usr/bin/env bash
# One node of the job's Ray cluster, started by srun on every node: the head on the first, workers on the others.
set -euo pipefail
umask 077

address="$("$DISTGAN_HOME/cluster/slurm/address.sh")"
options=(
    --block
    --node-ip-address="$address"
    --dashboard-agent-listen-port=0
    --num-cpus="${SLURM_CPUS_PER_TASK:-1}"
    --num-gpus="${SLURM_GPUS_ON_NODE:-0}"
    --object-store-memory=1000000000
    --disable-usage-stats
)

if [ "$SLURM_NODEID" = 0 ]; then
    # A folder of this job's own: /tmp/ray may be another user's.
    temporary="/tmp/distgan-$SLURM_JOB_ID"
    options+=(
        --head
        --no-monitor
        --port="$HEAD_PORT"
        --dashboard-host="$address"
        --dashboard-port="$DASHBOARD_PORT"
        --ray-client-server-port="$CLIENT_PORT"
        --labels=ray.io/market-type=on-demand
    )
else
    temporary="/tmp/distgan-$SLURM_JOB_ID-$SLURM_NODEID"
    options+=(--address="$HEAD_ADDRESS:$HEAD_PORT")
    for _ in $(seq 120); do
        if (: >"/dev/tcp/$HEAD_ADDRESS/$HEAD_PORT") 2>/dev/null; then break; fi
        sleep 1
    done
fi

trap 'rm -rf "$temporary"' EXIT
trap 'kill -TERM "$ray" 2>/dev/null || true' TERM INT
ray start "${options[@]}" --temp-dir="$temporary" &
ray=$!
while kill -0 "$ray" 2>/dev/null; do
    if [ -e "$JOB_DIR/over" ]; then
        kill -TERM "$ray"
        wait "$ray" || true
        exit 0
    fi
    sleep 1
done
wait "$ray"
