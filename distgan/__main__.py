"""`python -m distgan`."""

import sys

from distgan.errors import UserError
from distgan.launch.jobs.bootstrap import bootstrap

if __name__ == "__main__":
    try:
        bootstrap()
    except UserError as error:
        print(f"distgan: error: {error}", file=sys.stderr)
        sys.exit(2)
    from distgan.cli.main import main

    main()
