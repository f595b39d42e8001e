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

# Others may be on this node: a folder that they cannot enter, around Ray's own, which Ray opens to everyone.
temporary="$(mktemp -d "/tmp/distgan-$SLURM_JOB_ID-XXXX")"
trap 'rm -rf "$temporary"' EXIT

if [ "$SLURM_NODEID" = 0 ]; then
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
    options+=(--address="$HEAD_ADDRESS:$HEAD_PORT")
    for _ in $(seq 120); do
        if (: >"/dev/tcp/$HEAD_ADDRESS/$HEAD_PORT") 2>/dev/null; then break; fi
        sleep 1
    done
fi

trap 'kill -TERM "$ray" 2>/dev/null || true' TERM INT
ray start "${options[@]}" --temp-dir="$temporary/ray" &
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
