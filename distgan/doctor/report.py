"""A diagnosis as tables and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

import distgan
from distgan.doctor.checks import Finding
from distgan.doctor.facts import Diagnosis, Node, Space, Timing
from distgan.text import plural
from distgan.tracking import formatting

_NODES_A_TABLE = 3

_COLORS = {"fail": "bold red", "warn": "yellow"}


def diagnosis_table(diagnosis: Diagnosis, findings: Sequence[Finding]) -> RenderableType:
    """A table of the nodes, the all-reduces, and the findings with their remedies."""
    parts: list[RenderableType] = [Text(f"Ray cluster of {plural(len(diagnosis.nodes), 'node')}", "bold")]
    parts += [
        _nodes_table(diagnosis.nodes[first : first + _NODES_A_TABLE])
        for first in range(0, len(diagnosis.nodes), _NODES_A_TABLE)
    ]
    if diagnosis.all_reduce is not None and diagnosis.all_reduce.timings:
        parts.append(_timings(diagnosis))
    parts.append(_findings_table(findings) if findings else Text("nothing wrong was found"))
    return Group(*parts)


def diagnosis_document(diagnosis: Diagnosis, findings: Sequence[Finding]) -> dict[str, Any]:
    """The same as JSON, in bytes and seconds; `ok` is whether no check fails."""
    return {
        "ok": not any(one.level == "fail" for one in findings),
        "findings": [asdict(one) for one in findings],
        **asdict(diagnosis),
        "distgan": distgan.__version__,
    }


def _nodes_table(nodes: Sequence[Node]) -> Table:
    """One column a node, one row a fact."""
    table = Table(Column(""))
    for node in nodes:
        table.add_column(Text(f"{node.address}{' (head)' if node.head else ''}"), overflow="fold")
    for label, text_of in _ROWS.items():
        cells = [text_of(node) if node.problem is None else "" for node in nodes]
        if any(cells):
            table.add_row(Text(label, "dim"), *map(Text, cells))
    if any(node.problem is not None for node in nodes):
        table.add_row(Text("state", "dim"), *map(Text, map(_state, nodes)))
    return table


def _state(node: Node) -> str:
    if node.problem is None:
        return "alive"
    return "alive, cannot be examined" if node.alive else "dead"


def _host(node: Node) -> str:
    return "" if node.machine is None else node.machine.host


def _processors(node: Node) -> str:
    given = f"{node.resources.get('CPU', 0):g} for Ray"
    if node.machine is None:
        return given
    processors = node.machine.processors
    return f"{given}, {processors.usable:g} of {processors.present} usable, load {processors.load:.1f}"


def _gpus(node: Node) -> str:
    given = int(node.resources.get("GPU", 0))
    if node.machine is None or not (given or node.machine.gpus.names):
        return ""
    gpus = node.machine.gpus
    kinds = ", ".join(f"{gpus.names.count(name)}x {name}" for name in dict.fromkeys(gpus.names))
    return f"{given} for Ray; {kinds or 'none found'}; driver {gpus.driver or 'none'}, CUDA {gpus.torch_cuda or 'none'}"


def _versions(node: Node) -> str:
    return "" if node.machine is None else ", ".join(f"{k} {v}" for k, v in node.machine.versions.items())


def _memory(node: Node) -> str:
    return "" if node.machine is None else _room(node.machine.memory)


def _shared_memory(node: Node) -> str:
    return "" if node.machine is None else _room(node.machine.shared_memory)


def _disk(node: Node) -> str:
    return "" if node.machine is None else _room(node.machine.session)


def _object_store(node: Node) -> str:
    seconds = node.object_store_seconds
    size = f"{node.resources.get('object_store_memory', 0) / 1e9:.2g} GB"
    return size if seconds is None else f"{size}, {_speed(node.object_store_bytes, seconds)}"


def _clock(node: Node) -> str:
    clock = node.clock
    if clock is None:
        return ""
    return f"{clock.ahead * 1e3:+.1f} ± {clock.uncertainty * 1e3:.1f} ms, a call takes {clock.round_trip * 1e3:.1f} ms"


def _data(node: Node) -> str:
    one = node.data
    if one is None or one.problem is not None:
        return "" if one is None else "cannot be read"
    return (
        f"{_speed(one.read_bytes, one.read_seconds)}; a core decodes "
        f"{formatting.number(one.images / one.decode_seconds)} images/s"
    )


def _storage(node: Node) -> str:
    one = node.storage
    if one is None or one.problem is not None:
        return "" if one is None else "cannot be used"
    return (
        f"writes {_speed(one.size, one.write_seconds)}, reads {_speed(one.size, one.read_seconds)}, "
        f"answers in {one.latency * 1e3:.1f} ms"
    )


_ROWS: dict[str, Callable[[Node], str]] = {
    "host": _host,
    "interface": lambda node: node.interface or "",
    "CPUs": _processors,
    "GPUs": _gpus,
    "versions": _versions,
    "memory": _memory,
    "/dev/shm": _shared_memory,
    "Ray's disk": _disk,
    "object store": _object_store,
    "clock": _clock,
    "credentials": lambda node: node.credentials or "",
    "data": _data,
    "storage": _storage,
}


def _timings(diagnosis: Diagnosis) -> Table:
    one = diagnosis.all_reduce
    assert one is not None
    count = len(one.workers)
    title = f"all-reduce by {one.backend} between {plural(count, 'worker')} ({', '.join(one.workers)})"
    table = Table(title=Text(title), title_justify="left", title_style="bold")
    for column in ("bytes", "ms", "MB/s on a link"):
        table.add_column(column, justify="right")
    for timing in one.timings:
        table.add_row(f"{timing.bytes:,}", formatting.number(timing.seconds * 1e3), _bus(timing, count))
    return table


def _bus(timing: Timing, workers: int) -> str:
    """Empty for a few bytes, whose time is latency."""
    return "" if timing.bytes < 1024 else formatting.number(timing.bus_bytes_per_second(workers) / 1e6)


def _findings_table(findings: Sequence[Finding]) -> Table:
    table = Table(title="what to do", title_justify="left", title_style="bold", show_lines=True)
    table.add_column("")
    table.add_column("where", overflow="fold")
    table.add_column("what is wrong", overflow="fold", ratio=1)
    table.add_column("what to do", overflow="fold", ratio=1)
    for one in findings:
        table.add_row(
            Text(one.level, _COLORS[one.level]), Text(one.where), Text(f"{one.check}: {one.what}"), Text(one.remedy)
        )
    return table


def _speed(count: int, seconds: float) -> str:
    return f"{formatting.number(count / 1e6 / max(seconds, 1e-9))} MB/s"


def _room(space: Space | None) -> str:
    return "" if space is None else f"{space.free / 1e9:,.3g} of {space.total / 1e9:,.3g} GB free"
