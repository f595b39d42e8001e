"""The cluster definitions are what their own tools take, and the checks see what is wrong."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from jsonschema import ValidationError

import distgan
from cluster_files import (
    CLUSTER,
    LAUNCHERS,
    OVERLAYS,
    ROOT,
    SCRIPTS,
    Object,
    check_aws_node,
    check_compose,
    check_distgan_command,
    check_gcp_node,
    check_manifest,
    cluster_spec,
    compose,
    lint,
    of_kind,
    pinned,
    prepared,
    project,
    ray_start_options,
    ray_starts,
    read_yaml,
    render,
    words,
)

pytestmark = pytest.mark.slow

OVERLAY_FOLDER = CLUSTER / "kubernetes" / "overlays"
NODE_CHECKS = {"aws": check_aws_node, "gcp": check_gcp_node}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_manifests_are_valid(overlay: str) -> None:
    objects = render(OVERLAY_FOLDER / overlay)
    for item in objects:
        check_manifest(item)
    kinds = [item["kind"] for item in objects]
    owner = "RayJob" if "-" in overlay else "RayCluster"
    assert sorted(kinds) == sorted(["Namespace", "ServiceAccount", "NetworkPolicy", owner])
    assert {item["metadata"].get("namespace", "distgan") for item in objects} == {"distgan"}
    assert all("namespace" in item["metadata"] for item in objects if item["kind"] != "Namespace")


def test_there_are_clusters_and_jobs_for_both() -> None:
    assert OVERLAYS == ["cpu", "cpu-train", "cpu-tune", "gpu", "gpu-train", "gpu-tune"]


@pytest.mark.parametrize("overlay", [name for name in OVERLAYS if "-" in name])
def test_jobs_run_commands_that_exist(overlay: str) -> None:
    """The cluster of a job is the overlay's own, and its command is one that distgan parses."""
    job = of_kind(render(OVERLAY_FOLDER / overlay), "RayJob")
    alone = cluster_spec(render(OVERLAY_FOLDER / overlay.split("-")[0]))
    assert job["spec"]["rayClusterSpec"] == alone
    check_distgan_command(words(job["spec"]["entrypoint"]))
    assert overlay.split("-")[1] in job["spec"]["entrypoint"].split()
    # KubeRay's submitter hands the command to a shell.
    assert not set("$\"'`;&|<>*?\\") & set(job["spec"]["entrypoint"])
    assert ("scale.device=cuda" in job["spec"]["entrypoint"]) == overlay.startswith("gpu")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_workers_scale_from_zero_and_the_head_is_never_on_spot(overlay: str) -> None:
    spec = cluster_spec(render(OVERLAY_FOLDER / overlay))
    (workers,) = spec["workerGroupSpecs"]
    assert spec["enableInTreeAutoscaling"]
    assert workers["minReplicas"] == workers["replicas"] == 0 < workers["maxReplicas"]
    head = spec["headGroupSpec"]["template"]["spec"]
    (term,) = head["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    avoided = {(rule["key"], *rule["values"]) for rule in term["matchExpressions"] if rule["operator"] == "NotIn"}
    preferred = workers["template"]["spec"]["affinity"]["nodeAffinity"][
        "preferredDuringSchedulingIgnoredDuringExecution"
    ]
    wanted = {(rule["key"], *rule["values"]) for item in preferred for rule in item["preference"]["matchExpressions"]}
    assert avoided == wanted
    assert "tolerations" not in head
    gpus = workers["template"]["spec"]["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
    assert gpus == ("1" if overlay.startswith("gpu") else None)
    tolerated = {item["key"] for item in workers["template"]["spec"]["tolerations"]}
    assert ("nvidia.com/gpu" in tolerated) == overlay.startswith("gpu")
    assert spec["headGroupSpec"]["labels"] == {"ray.io/market-type": "on-demand"}
    assert workers["labels"] == {"ray.io/market-type": "spot"}


def _misspell(cluster: Object) -> None:
    cluster["spec"]["headGroupSpecs"] = cluster["spec"].pop("headGroupSpec")


def _misspell_in_pod(cluster: Object) -> None:
    pod = cluster["spec"]["headGroupSpec"]["template"]["spec"]
    pod["securityContexts"] = pod.pop("securityContext")


def _words_for_number(cluster: Object) -> None:
    cluster["spec"]["workerGroupSpecs"][0]["maxReplicas"] = "many"


def _unknown_mode(cluster: Object) -> None:
    cluster["spec"]["authOptions"]["mode"] = "tokens"


def _nested_unknown(cluster: Object) -> None:
    cluster["spec"]["autoscalerOptions"]["securityContext"]["capability"] = {}


@pytest.mark.parametrize(
    "break_it",
    [_misspell, _misspell_in_pod, _words_for_number, _unknown_mode, _nested_unknown],
    ids=lambda f: f.__name__,
)
def test_wrong_manifests_are_seen(break_it: Callable[[Object], None]) -> None:
    cluster = copy.deepcopy(of_kind(render(OVERLAY_FOLDER / "cpu"), "RayCluster"))
    break_it(cluster)
    with pytest.raises((ValidationError, KeyError)):
        check_manifest(cluster)


def test_wrong_policy_and_kustomization_are_seen(tmp_path: Path) -> None:
    policy = of_kind(render(OVERLAY_FOLDER / "cpu"), "NetworkPolicy")
    policy["spec"]["ingres"] = policy["spec"].pop("ingress")
    with pytest.raises(ValidationError, match="ingres"):
        check_manifest(policy)
    copied = shutil.copytree(CLUSTER / "kubernetes", tmp_path / "kubernetes")
    (copied / "base" / "service-account.yaml").unlink()
    with pytest.raises(ValueError, match=r"service-account\.yaml"):
        render(copied / "overlays" / "gpu-train")


@pytest.mark.parametrize("name", LAUNCHERS)
def test_launcher_files_are_valid(name: str) -> None:
    config = prepared(read_yaml(CLUSTER / f"{name}.yaml"))
    head, worker = (config["available_node_types"][kind] for kind in ("head", "gpu-worker"))
    for node in (head, worker):
        NODE_CHECKS[name](node["node_config"])
    assert (worker["min_workers"], worker["max_workers"], config["max_workers"]) == (0, 8, 8)
    assert head["labels"] == {"ray.io/market-type": "on-demand"}
    assert worker["labels"] == {"ray.io/market-type": "spot"}
    spot = {
        "aws": {"InstanceMarketOptions": {"MarketType": "spot"}},
        "gcp": {"scheduling": {"provisioningModel": "SPOT"}},
    }
    (key, value), *_ = spot[name].items()
    assert value.items() <= worker["node_config"][key].items()
    assert key not in head["node_config"]


def test_launcher_has_nothing_of_rays_defaults_that_binds_or_installs_elsewhere() -> None:
    """Ray's own defaults, which `ray up` adds where a key is missing, open the dashboard to the network."""
    for name in LAUNCHERS:
        config = prepared(read_yaml(CLUSTER / f"{name}.yaml"))
        said = " ".join(line for key in config if key.endswith("commands") for line in config[key])
        assert "0.0.0.0" not in said
        assert "wheels" not in said
        assert "~/distgan/constraints.txt" in said


@pytest.mark.parametrize("name", LAUNCHERS)
def test_wrong_launcher_files_are_seen(name: str) -> None:
    good = read_yaml(CLUSTER / f"{name}.yaml")
    with pytest.raises(ValidationError, match="idle_minutes"):
        prepared({**good, "idle_minutes": 3})
    with pytest.raises(ValueError, match="head_node_type"):
        prepared({**good, "head_node_type": "heads"})
    node = copy.deepcopy(good["available_node_types"]["gpu-worker"]["node_config"])
    key, mistake = {"aws": ("InstanceMarketOptions", "MarketTyp"), "gcp": ("scheduling", "provisioning")}[name]
    node[key] = {mistake: "spot"}
    with pytest.raises(ValueError, match=mistake):
        NODE_CHECKS[name](node)


def test_every_ray_start_is_one_that_ray_takes() -> None:
    found = dict(ray_starts())
    assert len(found) == 2 + 4 + 2 * len(OVERLAYS)
    for where, options in found.items():
        # The object store fits into the shared memory that the files give, with room for NCCL.
        assert options["object_store_memory"] == 1_000_000_000, where
    with pytest.raises(Exception, match="No such option"):
        ray_start_options(["--head", "--dashboard-hosts=10.0.0.1"])


def test_values_that_stand_twice_are_equal() -> None:
    version, ray = distgan.__version__, pinned("ray")
    images, cpu_images = set(), set()
    for overlay in OVERLAYS:
        spec = cluster_spec(render(OVERLAY_FOLDER / overlay))
        assert spec["rayVersion"] == ray
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            image = group["template"]["spec"]["containers"][0]["image"]
            (cpu_images if overlay.startswith("cpu") else images).add(image)
            volumes = {item["name"]: item["emptyDir"] for item in group["template"]["spec"]["volumes"]}
            assert volumes["shared-memory"] == {"medium": "Memory", "sizeLimit": "2Gi"}
    assert (cpu_images, images) == (
        {f"registry.example/distgan:{version}-cpu"},
        {f"registry.example/distgan:{version}-cuda"},
    )
    for service in compose()["services"].values():
        assert service["image"] == f"distgan:{version}-${{DISTGAN_VARIANT:-cpu}}"
        assert service["shm_size"] == "2gb"
    dockerfile = (CLUSTER / "docker" / "Dockerfile").read_text()
    assert f"distgan:{version}-cuda" in dockerfile
    for page in (ROOT / "docs" / "guides" / "clusters").glob("*.md"):
        assert set(re.findall(r"distgan:(\d[\w.]*)", page.read_text())) <= {version}, page
    python = project()["requires-python"].removeprefix(">=")
    assert f"ARG PYTHON_VERSION={python}\n" in dockerfile
    for name in LAUNCHERS:
        assert any(f"--python {python} " in item for item in read_yaml(CLUSTER / f"{name}.yaml")["setup_commands"])


def test_ports_are_the_same_everywhere() -> None:
    for where, options in ray_starts():
        assert options["port"] in {None, 6379}, where
        assert options["dashboard_port"] == 8265, where
    assert {name: service["ports"] for name, service in compose()["services"].items() if "ports" in service} == {
        "head": ["127.0.0.1:8265:8265"], "store": ["127.0.0.1:8333:8333"], "tensorboard": ["127.0.0.1:6006:6006"]
    }  # fmt: skip
    policy = of_kind(render(OVERLAY_FOLDER / "cpu"), "NetworkPolicy")
    assert policy["spec"]["ingress"][1]["ports"] == [{"port": 8265, "protocol": "TCP"}]


def test_the_object_store_of_compose_closes_its_inner_ports() -> None:
    store = compose()["services"]["store"]
    prepare, start = store["command"][2].split(" && ")
    assert prepare == 'options="$$(python -m distgan.storage.s3_server.security)"'
    assert start.startswith("exec weed server $$options -dir=/data ")
    assert store["working_dir"] == "/tmp"


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_compose_files_are_valid(name: str) -> None:
    content = read_yaml(CLUSTER / "docker" / name)
    check_compose(content)
    content["services"]["worker"]["comand"] = ["ray"]
    with pytest.raises(ValidationError, match="comand"):
        check_compose(content)


def test_dockerfile_passes_its_linter(tmp_path: Path) -> None:
    dockerfile = CLUSTER / "docker" / "Dockerfile"
    lint("hadolint", dockerfile)
    broken = tmp_path / "Dockerfile"
    broken.write_text(
        dockerfile.read_text().replace("${PYTHON_VERSION}-slim-bookworm${BASE_DIGEST:+@${BASE_DIGEST}}", "latest")
    )
    with pytest.raises(ValueError, match="DL3007"):
        lint("hadolint", broken)


def test_scripts_pass_their_linter(tmp_path: Path) -> None:
    assert len(SCRIPTS) == 6, SCRIPTS
    lint("shellcheck", "--external-sources", *SCRIPTS)
    broken = tmp_path / "node.sh"
    broken.write_text((CLUSTER / "slurm" / "node.sh").read_text().replace('rm -rf "$temporary"', "rm -rf $temporary"))
    broken.write_text(broken.read_text() + "\nrm -rf $temporary\n")
    with pytest.raises(ValueError, match="SC2086"):
        lint("shellcheck", broken)


def test_scripts_can_be_started() -> None:
    for path in (CLUSTER / "docker" / "make-secrets", CLUSTER / "slurm" / "node.sh", CLUSTER / "slurm" / "address.sh"):
        assert path.stat().st_mode & 0o111, path
        assert path.read_text().startswith("#!/usr/bin/env bash\n"), path
    assert (ROOT / ".dockerignore").exists()
