"""Several real Ray nodes and an S3 server on this machine: `cluster/local/up 3`, `status`, `down`.

With root and iproute2 each node is a network namespace with an address of its own on a bridge; without, the nodes
have 127.0.0.2, 127.0.0.3 and on. Everything that is started can be found and ended again, whatever was killed.
"""
