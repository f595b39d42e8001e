#!/usr/bin/env bash
# Prints this node's address in the cluster's network: of DISTGAN_INTERFACE, or the first that is not loopback.
set -euo pipefail

if [ -n "${DISTGAN_INTERFACE:-}" ]; then
    address="$(ip -4 -o addr show dev "$DISTGAN_INTERFACE" | awk '{ sub("/.*", "", $4); print $4; exit }')"
else
    address="$(hostname -I | awk '{ print $1 }')"
fi
if [ -z "$address" ]; then
    echo "$(hostname): no address${DISTGAN_INTERFACE:+ on $DISTGAN_INTERFACE}; set DISTGAN_INTERFACE to the network's interface" >&2
    exit 2
fi
echo "$address"
