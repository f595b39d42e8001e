"""What nodes cannot reach: the data, the storage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from distgan.diagnosis.facts import Diagnosis
from distgan.diagnosis.finding import Finding

_CREDENTIALS = (
    "give the node the URL's credentials: AWS variables where `ray start` runs, ~/.aws, an instance role, or "
    "`distgan submit --env-file`"
)


def judge_reach(found: Diagnosis) -> list[Finding]:
    """Every node against each URL."""
    return [*_data(found), *_storage(found)]


def _data(found: Diagnosis) -> Iterator[Finding]:
    read = {node.address: node.data for node in found.nodes if node.data is not None}
    for address, one in read.items():
        if one.problem is not None:
            yield Finding("fail", "data", address, one.problem, _remedy(found.data_url))
    hashes = {address: one.hash for address, one in read.items() if one.problem is None}
    if len(set(hashes.values())) > 1:
        most, _ = Counter(hashes.values()).most_common(1)[0]
        others = ", ".join(address for address, value in hashes.items() if value != most)
        yield Finding(
            "fail", "data", others, f"{found.data_url}: another data set than the other nodes see",
            "copy the same data to every node, or put them where all nodes see them",
        )  # fmt: skip


def _storage(found: Diagnosis) -> Iterator[Finding]:
    if found.storage_problem is not None:
        yield Finding("fail", "storage", "the driver", found.storage_problem, _remedy(found.storage_url))
    used = {node.address: node.storage for node in found.nodes if node.storage is not None}
    for address, one in used.items():
        if one.problem is not None:
            yield Finding("fail", "storage", address, one.problem, _remedy(found.storage_url))
        elif one.sees_mark is False:
            yield Finding(
                "fail", "storage", address, f"{found.storage_url}: not the same folder as the driver's",
                "give a URL that all nodes share: s3://…, gs://…, or a folder that is mounted everywhere",
            )  # fmt: skip


def _remedy(url: str | None) -> str:
    if url is not None and "://" in url and not url.startswith("file:"):
        return _CREDENTIALS
    return "mount or copy the folder there, or give a URL that all nodes reach"
