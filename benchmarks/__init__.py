"""Measurements of speed and memory: one command each, ratios with both sides in one run. Never a test."""
