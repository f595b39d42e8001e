"""What every cluster definition must hold: a token, no open port, no secret in a file, nobody who is root."""

from __future__ import annotations

import configparser
import ipaddress
import json
import os
import re
import shutil
import stat
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from cluster_files import (
    CLUSTER,
    LAUNCHERS,
    OVERLAYS,
    ROOT,
    cluster_spec,
    compose,
    files,
    of_kind,
    pod_templates,
    ray_starts,
    read_yaml,
    render,
    words,
)

pytestmark = pytest.mark.slow

OVERLAY_FOLDER = CLUSTER / "kubernetes" / "overlays"
# Everything inside a pod's own network, which the network policy closes (KubeRay asks it at its address).
OPEN_WITHIN = "cluster/kubernetes/base/ray-cluster.yaml"
RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
# Names of credentials with a value behind them, keys of well-known forms, private keys.
SECRET = re.compile(
    r"AKIA[0-9A-Z]{16}|ghp_\w{20,}|-----BEGIN|"
    r"(?i:password|secret_access_key|secretkey|auth_token)[\"']?\s*[:=]\s*[\"']?[\w/+-]{8,}"
)


def test_nothing_listens_everywhere() -> None:
    everywhere = re.compile(r"0\.0\.0\.0(?!/)")  # not a network, as 0.0.0.0/0
    found = {str(path.relative_to(ROOT)): len(everywhere.findall(path.read_text())) for path in files()}
    assert {path: count for path, count in found.items() if count} == {OPEN_WITHIN: 1}
    for where, options in ray_starts():
        if "cpu" in where or "gpu" in where:
            continue
        assert options["dashboard_host"] in {"10.0.0.2", "127.0.0.1", "localhost", None}, where


def test_compose_publishes_on_loopback_alone() -> None:
    for name, service in compose()["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert not {"network_mode", "privileged", "pid", "ipc", "cap_add"} & set(service), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_compose_limits_memory_and_processes() -> None:
    for name, service in compose()["services"].items():
        assert re.fullmatch(r"\$\{DISTGAN_NODE_MEMORY:-\d+g\}", service["mem_limit"]), name
        assert service["pids_limit"] <= 8192, name


def test_pods_reach_each_other_dns_and_https_but_no_metadata_server() -> None:
    policy = of_kind(render(OVERLAY_FOLDER / "cpu"), "NetworkPolicy")["spec"]
    among, names, https = policy["egress"]
    assert among == {"to": [{"podSelector": policy["podSelector"]}]}
    assert {(port["port"], port["protocol"]) for port in names["ports"]} == {(53, "UDP"), (53, "TCP")}
    assert {(port["port"], port["protocol"]) for port in https["ports"]} == {(443, "TCP"), (6443, "TCP")}

    def may(address: str, rule: dict[str, Any]) -> bool:
        blocks = [peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer]
        wanted = ipaddress.ip_address(address)
        return any(
            wanted in ipaddress.ip_network(block["cidr"])
            and not any(wanted in ipaddress.ip_network(hole) for hole in block.get("except", []))
            for block in blocks
        )

    assert all(may(address, https) for address in ("52.216.1.1", "10.96.0.1", "2600::1"))
    for address in ("169.254.169.254", "169.254.170.2", "fd00:ec2::254", "fe80::a9fe:a9fe"):
        assert not any(may(address, rule) for rule in (https, names)), address


def test_files_with_secrets_that_the_guide_makes_stay_out_of_git_and_of_the_cloud() -> None:
    guide = (CLUSTER / "README.md").read_text()
    for name in ("distgan.token", "storage.env"):
        assert name in guide
        for place in (ROOT / name, CLUSTER / "kubernetes" / name):
            subprocess.run(["git", "check-ignore", "-q", place], cwd=ROOT, check=True)
        for launcher in LAUNCHERS:
            assert any(fnmatch(name, pattern) for pattern in read_yaml(CLUSTER / f"{launcher}.yaml")["rsync_exclude"])


def test_compose_has_the_token_on_and_never_its_value() -> None:
    content = compose()
    for name in ("head", "worker"):
        service = content["services"][name]
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_token"
        assert "ray_token" in service["secrets"]
    for service in content["services"].values():
        for key in service["environment"]:
            assert not re.search("SECRET|PASSWORD|TOKEN$|ACCESS_KEY", key), key
    assert all(set(secret) == {"file"} for secret in content["secrets"].values())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_has_the_token_on_and_secrets_by_name(overlay: str) -> None:
    objects = render(OVERLAY_FOLDER / overlay)
    assert cluster_spec(objects)["authOptions"] == {"mode": "token", "secretName": "distgan-ray-token"}
    assert not [item for item in objects if item["kind"] in {"Secret", "ConfigMap"}]
    for name, template in pod_templates(objects).items():
        (container,) = template["spec"]["containers"]
        assert "env" not in container, name
        for source in container.get("envFrom", []):
            assert source == {"secretRef": {"name": "distgan-storage", "optional": True}}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_restricted_and_behind_the_policy(overlay: str) -> None:
    """What Kubernetes' `restricted` level asks for, and labels that the network policy selects."""
    objects = render(OVERLAY_FOLDER / overlay)
    policy = of_kind(objects, "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    selected = policy["podSelector"]["matchLabels"]
    within, to_jobs = policy["ingress"]
    assert within == {"from": [{"podSelector": {"matchLabels": selected}}]}
    assert all(peer.get("namespaceSelector", {}).get("matchLabels") or peer["podSelector"] for peer in to_jobs["from"])
    for name, template in pod_templates(objects).items():
        assert selected.items() <= template["metadata"]["labels"].items(), name
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["securityContext"]["runAsUser"] == 1000, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        for container in spec["containers"]:
            assert container["securityContext"] == RESTRICTED, name
            mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert {"/tmp", "/home/distgan"} <= mounted.keys(), name
            assert set(mounted.values()) <= {item["name"] for item in spec["volumes"] if "emptyDir" in item}, name
            assert {"cpu", "memory"} <= container["resources"]["limits"].keys(), name
        # Only the autoscaler, beside the head, talks to Kubernetes.
        assert spec["automountServiceAccountToken"] is (name == "head"), name
    autoscaler = cluster_spec(objects)["autoscalerOptions"]
    assert autoscaler["securityContext"] == RESTRICTED
    assert autoscaler["volumeMounts"] == [{"name": "scratch", "mountPath": "/tmp"}]
    assert of_kind(objects, "Namespace")["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_launchers_have_the_token_on(name: str) -> None:
    config = read_yaml(CLUSTER / f"{name}.yaml")
    for part in ("head", "worker"):
        (command,) = (item for item in config[f"{part}_start_ray_commands"] if "ray start" in item)
        assert "RAY_AUTH_MODE=token ray start" in command
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("chmod 600 ~/.ray/auth_token" in item for item in config["setup_commands"])
    assert any("RAY_AUTH_MODE=token" in item and "bashrc" in item for item in config["setup_commands"])
    assert {".git", ".distgan", "secrets"} <= set(config["rsync_exclude"])
    uv = [item for item in config["setup_commands"] if "pip install --quiet uv" in item]
    assert re.search(r"uv==\d+\.\d+\.\d+$", uv[0]), uv


def test_aws_opens_no_port_of_its_own_and_asks_for_metadata_tokens() -> None:
    config = read_yaml(CLUSTER / "aws.yaml")
    assert config["provider"]["security_group"] == {"GroupName": "distgan"}
    for node in config["available_node_types"].values():
        assert node["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
        assert all(disk["Ebs"]["Encrypted"] for disk in node["node_config"]["BlockDeviceMappings"])
        assert set(node["node_config"]["IamInstanceProfile"]) == {"Name"}


def test_no_file_has_a_secret_or_a_moving_version() -> None:
    for path in files():
        content = path.read_text()
        assert not SECRET.search(content), path
        assert not re.search(r":latest\b|:nightly\b", content), path
    assert SECRET.search("aws_secret_access_key = abcdefgh12345")
    assert SECRET.search('"auth_token": "0123456789"')


def test_the_image_is_nobodys_root_and_holds_only_the_package() -> None:
    dockerfile = (CLUSTER / "docker" / "Dockerfile").read_text()
    assert re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE)[-1] == "1000:1000"
    assert "RAY_AUTH_MODE=token" in dockerfile
    (base,) = re.findall(r"^FROM (.*)$", dockerfile, re.MULTILINE)
    assert base.endswith("${BASE_DIGEST:+@${BASE_DIGEST}}"), "a tag moves, a digest does not"
    assert compose()["services"]["head"]["build"]["args"]["BASE_DIGEST"] == "${BASE_DIGEST:-}"
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert ignored[0] == "*"
    allowed = {line[1:] for line in ignored if line[0] == "!"}
    copied = {word for line in re.findall(r"^COPY (.*)$", dockerfile, re.MULTILINE) for word in line.split()[:-1]}
    assert {name.replace("lock.tx[t]", "lock.txt") for name in copied} == allowed


def test_ports_that_ask_for_no_token_stay_closed() -> None:
    """Those of Ray's metrics, of every node, of the dashboard and of the autoscaler's monitor."""
    for name in ("head", "worker"):
        variables = compose()["services"][name]["environment"]
        assert (variables["RAY_enable_metrics_collection"], variables["DASHBOARD_METRIC_PORT"]) == ("0", "-1")
    assert "--no-monitor" in words(compose()["services"]["head"]["command"][-1])
    common, node = ((CLUSTER / "slurm" / name).read_text() for name in ("common.sh", "node.sh"))
    assert re.search(r"^export .*RAY_enable_metrics_collection=0 DASHBOARD_METRIC_PORT=-1$", common, re.MULTILINE)
    assert re.search(r"--head\s+--no-monitor$", node, re.MULTILINE)


def test_make_secrets(tmp_path: Path) -> None:
    """Files that only their owner reads, the same credentials on both sides, kept by a second run, not in git."""
    script = shutil.copy(CLUSTER / "docker" / "make-secrets", tmp_path / "make-secrets")
    said = subprocess.run([script], check=True, capture_output=True, text=True).stdout
    made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert {f"secrets/{name}" for name in made} == {
        secret["file"].removeprefix("./") for secret in compose()["secrets"].values()
    }
    assert re.fullmatch("[0-9a-f]{64}", made["ray_token"])
    clients = configparser.ConfigParser()
    clients.read_string(made["aws_credentials"])
    (identity,) = json.loads(made["s3_identities"])["identities"]
    (keys,) = identity["credentials"]
    assert keys == {
        "accessKey": clients["default"]["aws_access_key_id"],
        "secretKey": clients["default"]["aws_secret_access_key"],
    }
    owner = os.getuid() or 1000
    variables = dict(line.split("=") for line in (tmp_path / ".env").read_text().splitlines())
    assert variables["DISTGAN_UID"] == str(owner)
    assert int(variables["DISTGAN_NODE_CPUS"]) >= 1
    text = (CLUSTER / "docker" / "compose.yaml").read_text()
    assert set(re.findall(r"\$\{(\w+):\?", text)) == variables.keys()
    for path in (tmp_path / "secrets", *(tmp_path / "secrets").iterdir(), tmp_path / "data"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        assert path.stat().st_uid == owner
    assert not any(value in said for value in (made["ray_token"], keys["secretKey"]))

    subprocess.run([script], check=True, capture_output=True)
    assert made == {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}

    for name in ("secrets/ray_token", "data/x", ".env"):
        subprocess.run(["git", "check-ignore", "-q", CLUSTER / "docker" / name], cwd=ROOT, check=True)
