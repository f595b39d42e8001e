"""Data sources to pack: one file each, registered in `config.plugins`; `base` has the interface."""
