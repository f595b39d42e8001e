"""Where images to be packed come from: each source is one file here and one line in `config.registry`."""
