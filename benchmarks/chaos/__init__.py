"""Runs and searches that meet faults at drawn moments, against undisturbed ones."""
