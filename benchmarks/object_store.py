"""Range reads from the embedded S3 server: s3fs, as `Storage.read_ranges` uses it, against obstore.

python -m benchmarks.object_store [--kib 512] [--concurrent 8]

obstore need not be installed with distgan: `pip install obstore`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import obstore  # type: ignore[import-not-found]
from obstore.store import S3Store  # type: ignore[import-not-found]
from rich.table import Table

from benchmarks.report import console, machine
from distgan.storage.s3_server import server
from distgan.storage.storage import Storage

Read = Callable[[list[tuple[str, int, int]]], list[bytes]]


def with_obstore(bucket: str) -> Read:
    """Reads ranges by obstore, which takes the endpoint and the credentials from the environment as well."""
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    options: dict[str, object] = {"allow_http": True}
    if endpoint.startswith("https"):
        options = {"root_certificate": Path(os.environ["AWS_CA_BUNDLE"]).read_text()}
    store = S3Store(bucket, endpoint=endpoint, region="us-east-1", client_options=options)

    def read(requests: list[tuple[str, int, int]]) -> list[bytes]:
        async def all_ranges() -> list[bytes]:
            wanted = [obstore.get_range_async(store, name, start=start, end=end) for name, start, end in requests]
            return [bytes(each) for each in await asyncio.gather(*wanted)]

        return asyncio.run(all_ranges())

    return read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kib", type=int, nargs="+", default=[16, 128, 512, 4096], help="of one range")
    parser.add_argument("--concurrent", type=int, default=8, help="ranges that are asked for at once")
    parser.add_argument("--mib", type=int, default=256, help="that one turn reads")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    console.print(machine())
    with TemporaryDirectory() as folder:
        handle = server.up(Path(folder))
        try:
            server.make_buckets(handle, ["benchmark"])
            os.environ |= handle.environment()
            storage = Storage.open("s3://benchmark")
            shard_bytes = 32 * 2**20
            data = np.random.default_rng(0).bytes(shard_bytes)
            for number in range(4):
                storage.write_bytes(f"{number}.tar", data)
            table = Table("range", "client", "MiB a second", "processor time a MiB, ms", title_justify="left")
            for kib in arguments.kib:
                _compare(table, storage, data, kib * 1024, arguments)
            console.print(table)
        finally:
            server.down(Path(folder))


def _compare(table: Table, storage: Storage, data: bytes, size: int, arguments: argparse.Namespace) -> None:
    random = np.random.default_rng(size)
    count = max(1, arguments.mib * 2**20 // size // arguments.concurrent)
    requests = []
    for _ in range(count):
        starts = random.integers(0, len(data) - size, arguments.concurrent).tolist()
        requests.append([(f"{start % 4}.tar", start, start + size) for start in starts])
    clients: dict[str, Read] = {"s3fs": storage.read_ranges, "obstore": with_obstore("benchmark")}
    speeds: dict[str, list[tuple[float, float]]] = {name: [] for name in clients}
    for read in clients.values():
        assert read(requests[0]) == [data[start:end] for _, start, end in requests[0]]
    for _ in range(arguments.repeats):
        for name, read in clients.items():
            begin, cpu = time.perf_counter(), time.process_time()
            for each in requests:
                read(each)
            mib = count * arguments.concurrent * size / 2**20
            speeds[name].append((mib / (time.perf_counter() - begin), 1e3 * (time.process_time() - cpu) / mib))
    for name, found in speeds.items():
        rate, used = (statistics.median(values) for values in zip(*found, strict=True))
        table.add_row(f"{size // 1024} KiB", name, f"{rate:,.0f}", f"{used:.2f}")


if __name__ == "__main__":
    main()
