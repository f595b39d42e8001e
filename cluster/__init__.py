"""Definitions of Ray clusters that distgan runs on."""
