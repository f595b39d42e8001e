"""The files of `cluster/`: how they are read, rendered and checked. A check raises where a file is wrong."""

from __future__ import annotations

import copy
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import botocore.session
import jsonschema
import kubernetes_validate
import typer
import yaml
from botocore.validate import ParamValidator
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start as ray_start

from distgan.cli.main import app

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
BIN = Path(sys.executable).parent
KUBERNETES = "1.33"
OVERLAYS = sorted(path.name for path in (CLUSTER / "kubernetes" / "overlays").iterdir())
LAUNCHERS = ("aws", "gcp")
SCRIPTS = sorted([*CLUSTER.glob("slurm/*.s*"), CLUSTER / "docker" / "make-secrets"])

Object = dict[str, Any]


def files() -> list[Path]:
    """Every file of this part of `cluster/`, as git would list it."""
    wanted = [
        ".dockerignore",
        *(f"cluster/{name}" for name in ("docker", "kubernetes", "slurm", "aws.yaml", "gcp.yaml")),
    ]
    found = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *wanted],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return [ROOT / line for line in found.stdout.splitlines()]


def pinned(package: str) -> str:
    """The version of a package in constraints.txt."""
    found = re.search(rf"^{package}==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert found, f"{package} is not in constraints.txt"
    return found[1]


def project() -> Object:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def read_yaml(path: Path) -> Any:
    """With YAML's merge keys, as the tools read it."""
    return yaml.safe_load(path.read_text())


# Kubernetes


def render(folder: Path) -> list[Object]:
    """What `kubectl apply -k` would send."""
    done = subprocess.run([BIN / "kubectl", "kustomize", folder], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(done.stderr)
    return list(yaml.safe_load_all(done.stdout))


def of_kind(objects: list[Object], kind: str) -> Object:
    (found,) = (item for item in objects if item["kind"] == kind)
    return found


def cluster_spec(objects: list[Object]) -> Object:
    """The RayCluster's, or that of a RayJob's own cluster."""
    (found,) = (
        item["spec"] if item["kind"] == "RayCluster" else item["spec"]["rayClusterSpec"]
        for item in objects
        if item["kind"] in {"RayCluster", "RayJob"}
    )
    return found


def pod_templates(objects: list[Object]) -> dict[str, Object]:
    """All pod templates, by what they are."""
    spec = cluster_spec(objects)
    found = {"head": spec["headGroupSpec"]["template"]}
    found |= {group["groupName"]: group["template"] for group in spec["workerGroupSpecs"]}
    for item in objects:
        if item["kind"] == "RayJob":
            found["submitter"] = item["spec"]["submitterPodTemplate"]
    return found


def check_manifest(item: Object) -> None:
    """Against KubeRay's schema or Kubernetes' own; a field that neither knows is wrong, too."""
    if item["apiVersion"] != "ray.io/v1":
        kubernetes_validate.validate(item, KUBERNETES, strict=True)
        return
    schema = _kuberay()[item["kind"]]
    jsonschema.validate(item["spec"], schema)
    assert set(item) == {"apiVersion", "kind", "metadata", "spec"}, item.keys()
    for template in pod_templates([item]).values():
        wrapped = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "any"}, "template": template}
        kubernetes_validate.validate(wrapped, KUBERNETES, strict=True)


def _kuberay() -> dict[str, Object]:
    """The reduced schemas as JSON schemas that forbid unknown fields."""
    reduced = yaml.safe_load((Path(__file__).parents[1] / "cluster" / "kuberay-1.7.0.yaml").read_text())

    def strict(schema: Any) -> Any:
        if isinstance(schema, list):
            return [strict(item) for item in schema]
        if not isinstance(schema, dict):
            return schema
        if "x-ray-cluster-spec" in schema:
            return strict(reduced["RayCluster"])
        closed = {"additionalProperties": False} if "properties" in schema else {}
        return closed | {key: strict(value) for key, value in schema.items()}

    return {kind: strict(schema) for kind, schema in reduced.items()}


# Ray's cluster launcher


def prepared(config: Object) -> Object:
    """A launcher file as `ray up` takes it, with Ray's defaults; raises what Ray raises."""
    config = prepare_config(copy.deepcopy(config))
    validate_config(config)
    return config


def check_aws_node(node_config: Object) -> None:
    """As parameters of EC2's RunInstances, in botocore's model of it."""
    shape = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    report = ParamValidator().validate({**node_config, "MinCount": 1, "MaxCount": 1}, shape)
    if report.has_errors():
        raise ValueError(report.generate_report())


def check_gcp_node(node_config: Object) -> None:
    """As an Instance in the discovery document of Google's Compute Engine, which its client brings along."""
    folder = resources.files("googleapiclient") / "discovery_cache" / "documents"
    schemas = json.loads((folder / "compute.v1.json").read_text())["schemas"]
    kinds = {"string": str, "boolean": bool, "integer": int, "number": float}

    def check(value: Any, schema: Object, where: str) -> None:
        if "$ref" in schema:
            schema = schemas[schema["$ref"]]
        if schema["type"] == "array":
            if not isinstance(value, list):
                raise ValueError(f"{where}: {value!r} is no list")
            for index, item in enumerate(value):
                check(item, schema["items"], f"{where}[{index}]")
        elif schema["type"] == "object":
            if not isinstance(value, dict):
                raise ValueError(f"{where}: {value!r} is no mapping")
            for key, item in value.items():
                if key not in schema["properties"]:
                    raise ValueError(f"{where}.{key}: unknown")
                check(item, schema["properties"][key], f"{where}.{key}")
        elif "enum" in schema and value not in schema["enum"]:
            raise ValueError(f"{where}: {value!r} is none of {schema['enum']}")
        # 64-bit numbers are strings there, and are accepted as numbers.
        elif not isinstance(value, kinds[schema["type"]]) and not schema.get("format", "").endswith("int64"):
            raise ValueError(f"{where}: {value!r} is no {schema['type']}")

    check(node_config, {"$ref": "Instance"}, "node_config")


# Command lines


def words(command: str, **values: str) -> list[str]:
    """A shell command's words, `$(hostname -i)`, the variables given and compose's numbers replaced."""
    command = command.replace("$$", "$").replace('"$(hostname -i)"', "10.0.0.2")
    command = re.sub(r"\$\{\w+_CPUS:\?[^}]*\}", "1", command)
    for name, value in values.items():
        command = command.replace(f"${name}", value)
    return shlex.split(command)


def ray_start_options(arguments: list[str]) -> Mapping[str, Any]:
    """The options of `ray start ARGUMENTS`, parsed by Ray; raises where it would not take them."""
    return ray_start.make_context("start", list(arguments)).params


def ray_starts() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every `ray start` of compose, the launcher files and the manifests, by where it stands."""
    for name, service in compose()["services"].items():
        found = words(service["command"][-1])
        if found[:3] == ["exec", "ray", "start"]:
            yield f"compose {name}", ray_start_options(found[3:])
    for name in LAUNCHERS:
        config = read_yaml(CLUSTER / f"{name}.yaml")
        for part in ("head", "worker"):
            (command,) = (item for item in config[f"{part}_start_ray_commands"] if "ray start" in item)
            found = words(command, RAY_HEAD_IP="10.0.0.1")
            yield f"{name} {part}", ray_start_options(found[found.index("start") + 1 :])
    for overlay in OVERLAYS:
        spec = cluster_spec(render(CLUSTER / "kubernetes" / "overlays" / overlay))
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            params = group["rayStartParams"]
            yield (
                f"{overlay} {group.get('groupName', 'head')}",
                ray_start_options(
                    [
                        *(f"--{key}={value}" for key, value in params.items()),
                        *([] if "groupName" in group else ["--head"]),
                    ]
                ),
            )


def check_distgan_command(found: list[str]) -> None:
    """`distgan COMMAND ARGUMENT...` as the command line parses it."""
    assert found[0] == "distgan"
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    commands[found[1]].make_context(found[1], found[2:])


# Docker


def compose() -> Object:
    return read_yaml(CLUSTER / "docker" / "compose.yaml")


def check_compose(content: Object) -> None:
    schema = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.validate(content, json.loads(schema.read_text()))


def lint(program: str, *arguments: Path | str) -> None:
    """Runs a linter of the environment; raises with what it says."""
    done = subprocess.run([BIN / program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(done.stdout + done.stderr)


def run_steps(dockerfile: str) -> list[str]:
    """The scripts of a Dockerfile's RUN instructions."""
    joined = dockerfile.replace("\\\n", "\\\x00")
    found = re.findall(r"^RUN (.*)$", joined, re.MULTILINE)
    return [step.replace("\x00", "\n") for step in found]
