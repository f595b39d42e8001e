"""Distributed GAN training: Ray Train, WebDataset shards from object storage, runs that resume to the bit."""

__version__ = "0.1.0"
