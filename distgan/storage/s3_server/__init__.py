"""A real S3 server on this machine, for the demo, the tests and runs without a cloud account.

`server` starts and stops one SeaweedFS process a directory, which holds its data, credentials and log. It listens on
the loopback interface only, unless S3 is given another address. `security` closes every port but S3's.
"""
