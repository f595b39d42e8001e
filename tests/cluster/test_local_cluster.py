"""Several Ray nodes on this machine: who they are, who may speak to them, and that they can always be ended."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from cluster.local import lifecycle, nodes
from cluster.local.processes import NAMESPACES, processes_of, start_time
from cluster.local.state import State, read_state
from distgan.errors import UserError
from distgan.storage.s3_server import server
from local_cluster import MODES, LocalCluster, command, ended_afterwards, local_cluster
from processes import our_processes, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]

# A call of each of Ray's services that listen, as a stranger would try it.
CALLS = [
    "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "/ray.rpc.JobInfoGcsService/GetAllJobInfo",
    "/ray.rpc.NodeManagerService/GetNodeStats",
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.ReporterService/GetTraceback",
    "/ray.rpc.RayletDriver/ClusterInfo",
]
DRIVER = """
import os, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
print("connected")
"""


@pytest.fixture(scope="module", params=MODES, ids=lambda options: "loopback" if options else "namespaces")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with local_cluster(tmp_path_factory.mktemp("cluster"), 3, request.param) as cluster:
        yield cluster


def ask(url: str, token: str | None) -> int | None:
    """The HTTP status of a request with that token; None where something else than HTTP/1 is spoken."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(urllib.request.Request(url, headers=headers), timeout=10) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):
        return None


def test_nodes_have_addresses_and_labels_of_their_own(cluster: LocalCluster) -> None:
    state = cluster.state
    assert len({node.address for node in state.nodes}) == 3
    assert cluster.alive() == {node.address for node in state.nodes}
    request = urllib.request.Request(
        f"{state.api}/nodes?view=summary", headers={"Authorization": f"Bearer {cluster.token}"}
    )
    with urllib.request.urlopen(request, timeout=10) as reply:
        summary = {node["ip"]: node["raylet"] for node in json.load(reply)["data"]["summary"]}
    labels = [summary[node.address]["labels"] for node in state.nodes]
    assert [label["ray.io/node-group"] for label in labels] == ["head", "worker", "worker"]
    assert [label["ray.io/market-type"] for label in labels] == ["on-demand", "on-demand", "spot"]
    assert all(summary[node.address]["resourcesTotal"]["CPU"] >= 1 for node in state.nodes)
    shown = command("status", cluster.directory).stdout
    assert all(f"node {node.number}: {node.address}, " in shown for node in state.nodes)
    assert re.search(r"^\d+ processes of Ray take \d\.\d\d GB$", shown, re.MULTILINE)


def test_http_requests_without_the_token_are_refused(cluster: LocalCluster) -> None:
    api = cluster.state.api
    for path in ("/api/jobs/", "/nodes?view=summary", "/api/v0/nodes", "/logs"):
        assert ask(api + path, None) == 401
        assert ask(api + path, "0" * 64) == 403
    assert ask(f"{api}/api/jobs/", cluster.token) == 200
    agents = [
        (node.address, port)
        for node, listening in cluster.listening().items()
        for address, port in listening
        if address == node.address and port == cluster.state.ports[node.agent]
    ]
    assert len(agents) == 3
    assert {ask(f"http://{address}:{port}/api/job_agent/jobs/", None) for address, port in agents} == {401}


def test_no_port_answers_a_stranger(cluster: LocalCluster) -> None:
    """Each port asks for the token, by HTTP or by gRPC, whichever it speaks."""
    for node, listening in cluster.listening().items():
        assert len(listening) >= 6
        for bound, port in listening:
            if bound == "127.0.0.1" and node.namespace:
                continue
            address = node.address if bound in {"*", "0.0.0.0"} else bound
            status = ask(f"http://{address}:{port}/api/jobs/", None)
            assert status in {401, None}, (bound, port)
            if status is None:
                answers = {call: grpc_status(f"{address}:{port}", call) for call in CALLS}
                allowed = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED}
                assert set(answers.values()) <= allowed, (bound, port, answers)
                assert grpc.StatusCode.UNAUTHENTICATED in answers.values(), (bound, port, answers)


def grpc_status(address: str, call: str) -> grpc.StatusCode:
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(call)(b"", timeout=10)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def test_the_head_listens_on_its_own_address(cluster: LocalCluster) -> None:
    """Jobs and dashboard have one address; in namespaces nothing of Ray listens on this machine's own addresses."""
    port = cluster.state.ports["api"]
    listening = cluster.listening()
    head = cluster.state.head
    assert {address for address, bound in listening[head] if bound == port} == {head.address}
    own = {"127.0.0.1", *(entry[4][0] for entry in socket.getaddrinfo(socket.gethostname(), port, socket.AF_INET))}
    if head.namespace:
        own.add(cluster.state.gateway)
    for address in own - {head.address}:
        with socket.socket() as stranger:
            stranger.settimeout(5)
            assert stranger.connect_ex((str(address), port)) != 0, address


def test_a_driver_without_the_token_is_refused(cluster: LocalCluster) -> None:
    head = cluster.state.head
    address = f"{head.address}:{cluster.state.ports['gcs']}"
    enter = ["nsenter", f"--net={NAMESPACES / head.namespace}", "--"] if head.namespace else []
    drivers = []
    for settings in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        drivers.append(
            subprocess.Popen(
                [*enter, sys.executable, "-c", DRIVER, address],
                env=environment | settings | {"RAY_gcs_server_request_timeout_seconds": "5"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    for driver in drivers:
        output = driver.communicate(timeout=120)[0]
        assert driver.returncode != 0
        assert "connected" not in output
        assert "authenticat" in output.lower() or "token" in output.lower(), output


def test_what_it_writes_is_for_this_user_and_names_no_secret(cluster: LocalCluster) -> None:
    secrets = [cluster.token]
    store = server.status(cluster.directory / "store")
    assert store is not None
    secrets.append(store.secret_key)
    for name in ("token", "credentials", "env.sh", "clusters.toml", "state.json"):
        assert (cluster.directory / name).stat().st_mode & 0o077 == 0
    for path in ("env.sh", "clusters.toml", "state.json"):
        assert not [secret for secret in secrets if secret in (cluster.directory / path).read_text()]
    for pid in processes_of(cluster.state):
        with suppress(OSError):
            shown = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
            assert not [secret for secret in secrets if secret.encode() in shown]
    assert cluster.environment()["RAY_API_SERVER_ADDRESS"] == cluster.state.api


def test_a_killed_node_returns(cluster: LocalCluster) -> None:
    others = {node.address for node in cluster.state.nodes if node.number != 2}
    mine = processes_of(cluster.state, cluster.state.nodes[1])
    assert mine < processes_of(cluster.state)
    lifecycle.kill_node(cluster.directory, 2)
    assert not mine & processes_of(cluster.state)
    wait_for(lambda: cluster.alive() == others, 60)
    lifecycle.return_node(cluster.directory, 2)
    assert len(cluster.alive()) == 3
    state = read_state(cluster.directory)
    assert state is not None
    assert processes_of(state, state.nodes[1])


@pytest.mark.parametrize("options", MODES, ids=lambda options: "loopback" if options else "namespaces")
def test_everything_ends_whatever_was_killed(options: list[str], tmp_path: Path) -> None:
    before = our_processes()
    directory = tmp_path / "cluster"
    with ended_afterwards(directory):
        # `up` is killed while the head starts.
        up = subprocess.Popen(
            [sys.executable, "-m", "cluster.local", "up", "2", "--dir", str(directory), *options],
            stdout=subprocess.DEVNULL,
        )
        wait_for(lambda: bool((state := read_state(directory)) and state.starters), 60)
        up.kill()
        up.wait()
        half = read_state(directory)
        assert half is not None
        assert processes_of(half)
        assert "not running" in command("status", directory).stdout

        done = command("up", directory, "2", *options)
        assert done.returncode == 0, done.stderr
        assert "a cluster of 2 nodes is up after" in done.stdout
        assert_gone(half)
        state = read_state(directory)
        assert state is not None
        again = command("up", directory, "2", *options)
        assert "a cluster of 2 nodes runs already" in again.stdout
        other = command("up", directory, "3", *options)
        assert other.returncode == 2
        assert "a cluster of 2 nodes runs already" in other.stderr

        # All that belongs to it is killed, but not what Ray starts meanwhile; then it is ended.
        store = server.status(directory / "store")
        assert store is not None
        for pid in (store.pid, *processes_of(state)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert "not running" in command("status", directory).stdout
        assert command("down", directory).stdout.startswith("stopped; a shell that has sourced env.sh still has ")
        assert_gone(state)
        assert "was not running" in command("down", directory).stdout
    assert our_processes() == before
    assert {path.name for path in directory.iterdir()} == {"lock", "store"}


def assert_gone(state: State) -> None:
    assert processes_of(state) == set()
    assert not state.sessions.exists()
    for node in state.nodes:
        assert not node.namespace or not (NAMESPACES / node.namespace).exists()
    if state.bridge:
        names = {path.name for path in Path("/sys/class/net").iterdir()}
        assert not names & {state.bridge, *(node.interface for node in state.nodes)}


def test_a_node_that_does_not_come_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = our_processes()
    monkeypatch.setattr(nodes, "_options", lambda node, state: ["--no-such-option"])
    message = r"node 1 \(127\.0\.0\.2\) stopped while it started; last line of its log: .*no-such-option"
    with pytest.raises(UserError, match=message):
        lifecycle.up(tmp_path / "cluster", 2, namespaces=False)
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"node \d \(127\.0\.0\.\d\) is not there in time; last line of its log: "):
        lifecycle.up(tmp_path / "cluster", 2, namespaces=False, timeout=5)
    assert our_processes() == before
    assert read_state(tmp_path / "cluster") is None


def test_a_process_that_took_a_number_is_left_alone(tmp_path: Path) -> None:
    """State of before a restart of the machine: its process ids may be anybody's."""
    with subprocess.Popen(["sleep", "60"]) as foreign:
        try:
            state = State("0123abcd", [nodes.Node(1, "127.0.0.2")], "127.0.0.1", ports={"api": 1})
            state.starters[1] = (foreign.pid, (start_time(foreign.pid) or 0) - 1)
            tmp_path.joinpath("state.json").write_text(json.dumps({**vars(state), "nodes": [vars(state.head)]}))
            assert lifecycle.status(tmp_path) is None
            assert lifecycle.down(tmp_path)
            assert foreign.poll() is None
        finally:
            foreign.kill()
