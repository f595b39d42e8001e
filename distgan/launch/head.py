"""Whether the head of a Ray cluster answers at an address; Ray itself would try for minutes, or without end."""

from __future__ import annotations

import os
import socket

import grpc
import ray
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from ray._private.grpc_utils import init_grpc_channel
from ray._private.services import canonicalize_bootstrap_address
from ray._raylet import Config  # type: ignore[attr-defined]
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc
from ray.exceptions import AuthenticationError

from distgan.errors import UserError
from distgan.submission.tokens import find_token

_REACHABLE_S = 10.0


def check_head(address: str) -> None:
    """Raises UserError, within seconds, where no head of this environment's version of Ray answers."""
    if address == "auto":
        try:
            address = canonicalize_bootstrap_address(address) or ""
        except ConnectionError:
            raise UserError("--address auto: no Ray runs on this machine; start one, or give HOST:PORT") from None
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
    """The version of the head at `address`, which gets this user's token where it asks for one."""
    reply = _ask(address)
    if reply is None and not is_token_auth_enabled() and find_token() is not None:
        os.environ["RAY_AUTH_MODE"] = "token"
        Config.initialize("")  # Ray reads the variable again, and so does what it starts
        reply = _ask(address)
    if reply is None and find_token() is None:
        raise UserError(
            f"Ray at {address}: it asks for a token and there is none here; set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, "
            f"or copy the cluster's token to ~/.ray/auth_token"
        )
    if reply is None:
        raise UserError(
            f"Ray at {address}: the token is not that of this cluster; look at RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or "
            f"~/.ray/auth_token"
        )
    return reply


def _ask(address: str) -> str | None:
    """The version of the head at `address`; None where it refuses the token, or asks for one."""
    with init_grpc_channel(address) as channel:
        try:
            head = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)  # type: ignore[no-untyped-call]
            question = gcs_service_pb2.CheckAliveRequest()  # type: ignore[attr-defined]
            reply = head.CheckAlive(question, timeout=_REACHABLE_S)
        except AuthenticationError:  # in token mode, without one
            return None
        except grpc.RpcError as error:
            if error.code() in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}:
                return None
            raise UserError(
                f"Ray at {address}: what listens there does not answer as the head of a Ray cluster does "
                f"({error.code().name}); check --address"
            ) from None
    return str(reply.ray_version)
