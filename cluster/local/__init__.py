"""Several real Ray nodes and an S3 server on this machine: `cluster/local/up 3`, `status`, `down`.

With root and iproute2 each node has a network namespace and its own address on a bridge; without, the nodes have the
addresses 127.0.0.2, 127.0.0.3 and so on. `down` finds and ends everything, even after processes were killed.
"""
