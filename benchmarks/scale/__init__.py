"""Throughput on paper, from 1 to 1,024 workers, and the model's check against real runs."""
