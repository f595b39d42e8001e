"""`python -m distgan`."""

from distgan.cli.main import main

if __name__ == "__main__":
    main()
