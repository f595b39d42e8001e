"""What is wrong with a cluster, of all that was found out about it; the worst first."""

from __future__ import annotations

from distgan.diagnosis.facts import Diagnosis
from distgan.diagnosis.finding import Finding
from distgan.diagnosis.judge_cluster import judge_cluster
from distgan.diagnosis.judge_node import judge_node
from distgan.diagnosis.judge_reach import judge_reach


def judge(found: Diagnosis) -> list[Finding]:
    """All findings; none where nothing is wrong."""
    findings = judge_cluster(found)
    for node in found.nodes:
        findings += judge_node(node, found.driver)
    findings += judge_reach(found)
    return sorted(findings, key=lambda one: one.level != "fail")
