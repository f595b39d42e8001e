"""Whether the head of a Ray cluster answers at an address; Ray itself would try for minutes, or without end."""

from __future__ import annotations

import socket

import grpc
import ray
from ray._private.grpc_utils import init_grpc_channel
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

from distgan.errors import UserError

_REACHABLE_S = 10.0


def check_head(address: str) -> None:
    """Raises UserError, within seconds, where no head of this environment's version of Ray answers."""
    if address == "auto":
        return
    if "://" in address:
        raise UserError(
            f"--address {address}: give HOST:PORT of the cluster's head, on a machine that is in the cluster"
        )
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()):
        raise UserError(f"--address {address}: write HOST:PORT, as in 10.0.0.1:6379, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACHABLE_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise UserError(
            f"Ray at {address}: nothing answers there ({error}); check --address and that the cluster is up"
        ) from None
    version = _version(address)
    if version and version != ray.__version__:
        raise UserError(
            f"Ray at {address}: the cluster runs Ray {version}, and here is {ray.__version__}; install one version"
        )


def _version(address: str) -> str:
    """The version of the head at `address`; empty where it asks for a token, which Ray brings later."""
    with init_grpc_channel(address) as channel:
        try:
            head = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)  # type: ignore[no-untyped-call]
            question = gcs_service_pb2.CheckAliveRequest()  # type: ignore[attr-defined]
            reply = head.CheckAlive(question, timeout=_REACHABLE_S)
        except grpc.RpcError as error:
            if error.code() in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}:
                return ""
            raise UserError(
                f"Ray at {address}: what listens there does not answer as the head of a Ray cluster does "
                f"({error.code().name}); check --address"
            ) from None
    return str(reply.ray_version)
