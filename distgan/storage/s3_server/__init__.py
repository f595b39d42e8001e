"""A real S3 server on this machine, for the demo, the tests and runs without a cloud account.

`seaweedfs` starts and stops one SeaweedFS server a directory. Everything it keeps (data, credentials, log)
is below that directory, and it listens on the loopback interface only, unless S3 is given an address of its own.
"""
