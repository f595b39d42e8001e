"""Nodes with GPUs, from data sheets and assumptions. None of these was measured: no GPU was at hand.

Looked up on 2026-11-22. Peaks are without sparsity. Float32 convolutions run as TF32 where the GPU has it, which is
torch's default; the extractor of evaluations switches that off. Latencies of an all-reduce are the constants of NCCL's
own tuner for its protocol LL128 (NVIDIA/nccl, src/graph/tuning.cc: `baseLat`, `hwLat`).
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.scale.machine import Links, Machine

# The assumptions; an option of `python -m benchmarks.scale predict` overrides each.
FRACTION = 0.15  # of the peak, reached by small convolutions in deterministic kernels
OPERATOR_S = 10e-6  # for the host to dispatch one operator of eager torch, its share of autograd with it
BANDWIDTH_FRACTION = 0.7  # of a link's rate, reached by an all-reduce
JITTER = 0.03  # standard deviation of an update's time
DECODE_S = 100e-6  # an image; `predict` takes the preset's own, measured on one core
GATHER_S = 2e-6  # an image
WRITE = 200e6  # bytes a second of a checkpoint, serialized, hashed and sent
DISTANCE_S = 0.05  # the Fréchet distance of 320 features
GRID_S = 0.1  # a picture of samples

_NVLINK, _PCI, _NET = (1.2e-6, 1.9e-6), (1.9e-6, 2.5e-6), (8.5e-6, 4.0e-6)  # tree, ring


def _gpus(
    name: str,
    source: str,
    gpus: int,
    cores: int,
    peak: float,
    exact_peak: float,
    within: float,
    network: float,
    copy: float,
    nvlink: bool,
) -> Machine:
    """A node of so many GPUs. `within` is bytes a second of a GPU to its neighbors, `network` of the whole node."""
    inside = _NVLINK if nvlink else _PCI
    return Machine(
        name=name,
        source=source,
        workers_a_node=gpus,
        cores=cores,
        threads=1,
        flops=peak * FRACTION,
        exact_flops=exact_peak * FRACTION,
        operator_s=OPERATOR_S,
        queued=True,
        ring=Links(10.0e-6, inside[1], _NET[1]),
        tree=Links(4.4e-6, inside[0], _NET[0]),
        within=within * BANDWIDTH_FRACTION,
        between=network * BANDWIDTH_FRACTION,
        decode_s=DECODE_S,
        gather_s=GATHER_S,
        storage=min(network, 12.5e9) * BANDWIDTH_FRACTION,
        copy=copy,
        write=WRITE,
        distance_s=DISTANCE_S,
        grid_s=GRID_S,
        jitter=JITTER,
    )


MACHINES = {
    "h100": _gpus(
        "8 H100 SXM a node, NVLink, 400 Gb/s InfiniBand a GPU",
        "NVIDIA H100 data sheet: TF32 494 TFLOP/s, float32 67, NVLink 450 GB/s each way; NDR InfiniBand 50 GB/s",
        gpus=8, cores=192, peak=494e12, exact_peak=67e12, within=450e9, network=8 * 50e9, copy=20e9, nvlink=True,
    ),
    "a10g": _gpus(
        "8 A10G a node, PCIe, 100 Gb/s Ethernet a node",
        "AWS g5.48xlarge: 192 vCPUs, 100 Gb/s; NVIDIA A10G: TF32 and float32 35 TFLOP/s; PCIe 4.0 shared, 12 GB/s",
        gpus=8, cores=192, peak=35e12, exact_peak=35e12, within=12e9, network=12.5e9, copy=10e9, nvlink=False,
    ),
    "t4": _gpus(
        "4 T4 a node, PCIe, 50 Gb/s Ethernet a node",
        "AWS g4dn.12xlarge: 48 vCPUs, 50 Gb/s; NVIDIA T4 data sheet: float32 8.1 TFLOP/s, no TF32; PCIe 3.0, 8 GB/s",
        gpus=4, cores=48, peak=8.1e12, exact_peak=8.1e12, within=8e9, network=6.25e9, copy=6e9, nvlink=False,
    ),
    "t4-25": _gpus(
        "1 T4 a node, 25 Gb/s Ethernet",
        "AWS g4dn.8xlarge: 32 vCPUs, 25 Gb/s wherever it is not shared; NVIDIA T4 data sheet: float32 8.1 TFLOP/s",
        gpus=1, cores=32, peak=8.1e12, exact_peak=8.1e12, within=8e9, network=3.125e9, copy=6e9, nvlink=False,
    ),
}  # fmt: skip


def scaled(machine: Machine, fraction: float, operator_s: float, jitter: float, network: float | None) -> Machine:
    """A machine with other assumptions; `network` in bytes a second of a node, as its data sheet would say."""
    changed = replace(
        machine,
        flops=machine.flops / FRACTION * fraction,
        exact_flops=machine.exact_flops / FRACTION * fraction,
        operator_s=operator_s,
        jitter=jitter,
    )
    return changed if network is None else replace(changed, between=network * BANDWIDTH_FRACTION)
