"""The interface through which workers meet: found by address, named, and used by gloo between network namespaces."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from distgan.distributed import _listen, join_store
from distgan.errors import UserError
from distgan.launch.local import choose_interface
from distgan.launch.placement.network import interface_of, own_address_towards, use_interface
from distgan.training.run_spec import RunSpec
from distgan.training.train import train
from processes import finish, listening, start
from runs import ALONE, Recorder, tiny_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")

MEET = """
import os, sys
import psutil, torch, torch.distributed as dist
from distgan.launch.local import choose_interface
from distgan.distributed import join_torchrun
choose_interface(sys.argv[1] or None)
join_torchrun("cpu", 30)
total = torch.full((1000,), float(os.environ["RANK"]) + 1)
dist.all_reduce(total)
found = {one.laddr.ip for one in psutil.Process().net_connections() if one.status == psutil.CONN_LISTEN}
dist.destroy_process_group()
print(*found, os.environ["GLOO_SOCKET_IFNAME"], float(total[0]))
"""


@pytest.fixture(autouse=True)
def no_interface_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (*VARIABLES, "MASTER_ADDR", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(variable, "")  # so that what a test sets is taken back
        monkeypatch.delenv(variable)


def chosen() -> list[str | None]:
    return [os.environ.get(variable) for variable in VARIABLES]


def loopback() -> str:
    return next(
        name for name, found in psutil.net_if_addrs().items() if any(one.address == "127.0.0.1" for one in found)
    )


def test_an_address_is_found_on_its_interface() -> None:
    for name, found in psutil.net_if_addrs().items():
        for one in found:
            if one.family in {socket.AF_INET, socket.AF_INET6}:
                assert interface_of(one.address) == name
    assert interface_of("127.0.0.7") == loopback(), "nodes of one machine may have any of 127.0.0.0/8"
    assert interface_of("203.0.113.77") is None
    assert interface_of("2001:db8::7") is None
    assert interface_of("no-address") is None


def test_the_interface_of_the_address_unless_one_is_named() -> None:
    assert use_interface(None, "203.0.113.77") is None
    assert chosen() == [None, None], "behind a translation of addresses the libraries choose"
    assert use_interface(loopback(), "203.0.113.77") == loopback()
    assert chosen() == [loopback(), f"={loopback()}"]


def test_what_the_environment_says_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "^docker")
    use_interface(None, "127.0.0.1")
    assert chosen() == [loopback(), "^docker"]


def test_an_interface_that_is_not_there_is_one_line() -> None:
    with pytest.raises(
        UserError, match=r"^placement\.interface=nic9: is not there on .* which has .*127\.0\.0\.1.*; name"
    ):
        use_interface("nic9", "127.0.0.1")
    assert chosen() == [None, None]


def test_torchrun_meets_where_the_way_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    choose_interface()
    assert chosen() == [None, None], "alone there is nobody to meet"
    assert own_address_towards("127.0.0.1", 1) == "127.0.0.1"
    assert own_address_towards("no-such-host.invalid", 1) is None
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    choose_interface()
    assert chosen() == [None, None], "no other host finds this one at its loopback address"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    choose_interface()
    assert chosen() == [loopback(), f"={loopback()}"]


def may_make_namespaces() -> bool:
    name = f"dg-{uuid.uuid4().hex[:8]}"
    try:
        subprocess.run(["ip", "netns", "add", name], check=True, capture_output=True)
        subprocess.run(["ip", "netns", "delete", name], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


@pytest.fixture
def hosts() -> Iterator[list[tuple[list[str], str, str]]]:
    """Two hosts: what a command is begun with to run there, the host's address, and its interface.

    With root and iproute2 they are network namespaces that a cable of a name of its own on each side joins, else
    this machine's loopback interface.
    """
    if not may_make_namespaces():
        yield [([], "127.0.0.1", loopback())] * 2
        return
    run, mark = subprocess.run, uuid.uuid4().hex[:6]
    names = [f"dg-{mark}-{side}" for side in "ab"]
    interfaces = [f"left{mark}", f"right{mark}"]
    try:
        for name in names:
            run(["ip", "netns", "add", name], check=True)
        cable = ["ip", "link", "add", interfaces[0], "netns", names[0], "type", "veth", "peer", "name", interfaces[1]]
        run([*cable, "netns", names[1]], check=True)
        for number, (name, interface) in enumerate(zip(names, interfaces, strict=True), start=1):
            inside = ["ip", "-n", name]
            run([*inside, "address", "add", f"10.77.0.{number}/24", "dev", interface], check=True)
            for link in ("lo", interface):
                run([*inside, "link", "set", link, "up"], check=True)
        yield [
            (["ip", "netns", "exec", name], f"10.77.0.{number}", interface)
            for number, (name, interface) in enumerate(zip(names, interfaces, strict=True), start=1)
        ]
    finally:
        for name in names:
            run(["ip", "netns", "delete", name], check=False)


@pytest.mark.parametrize("named", [False, True], ids=["found", "named"])
def test_gloo_meets_between_hosts(
    hosts: list[tuple[list[str], str, str]], named: bool, tmp_path: Path, free_port: int
) -> None:
    common = {"MASTER_ADDR": hosts[0][1], "MASTER_PORT": str(free_port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    common["LOCAL_WORLD_SIZE"] = "2" if hosts[0][1].startswith("127.") else "1"
    (tmp_path / "meet.py").write_text(MEET)
    processes = [
        subprocess.Popen(
            [*begin, sys.executable, "meet.py", interface if named else ""],
            cwd=tmp_path,
            env=os.environ | common | {"RANK": str(rank), "PYTHONPATH": str(Path(__file__).parents[2])},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank, (begin, _, interface) in enumerate(hosts)
    ]
    told = [finish(process, 90) for process in processes]
    wanted = [[address, interface, "3.0"] for _, address, interface in hosts]
    assert [words.splitlines()[-1].split() for words in told] == wanted, told


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_torchrun_refuses_an_interface_that_is_not_there_once(data: str, tmp_path: Path) -> None:
    train = ["train", "quickstart", f"data.url={data}", "image_size=16", "--no-ray", "--workers", "2"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "distgan"]
    output = finish(start(*launcher, *train, "placement.interface=nic9", cwd=tmp_path), 100)
    told = [line for line in output.splitlines() if "distgan: error: " in line]
    assert len(told) == 1, output
    assert "placement.interface=nic9: is not there on " in told[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.5"])
def test_the_store_listens_on_its_address_alone(host: str, free_port: int) -> None:
    before = listening(os.getpid())
    store = join_store(host, free_port, 0, 1, 30)
    assert {found for found, _ in listening(os.getpid()) - before} == {host}
    del store


@pytest.mark.parametrize(
    ("host", "leads_to", "address"),
    [
        ("localhost", "127.0.0.1", "127.0.0.1"),
        ("this-machine", "127.0.1.1", "::"),  # as Debian's /etc/hosts has it; the other machines know its real address
        ("203.0.113.77", "203.0.113.77", "::"),  # behind a translation of addresses
    ],
)
def test_the_store_is_found_where_others_see_another_address(
    host: str, leads_to: str, address: str, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    found = (socket.AF_INET, socket.SOCK_STREAM, 0, "", (leads_to, free_port))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [found])
    with _listen(host, free_port) as listener:
        assert listener.getsockname()[:2] == (address, free_port)


def test_a_run_of_one_process_listens_nowhere(data: str, tmp_path: Path) -> None:
    before = listening(os.getpid())
    seen: list[set[tuple[str, str]]] = []
    recorder = Recorder(on_event=lambda _: seen.append(listening(os.getpid())))
    train(RunSpec(tiny_config("quickstart", data, 2), "run", str(tmp_path)), ALONE, recorder)
    assert seen
    assert all(found <= before for found in seen)
