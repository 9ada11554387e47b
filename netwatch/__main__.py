"""`python -m netwatch`: the same as the `netwatch` command."""

import sys

from netwatch.cli import main

if __name__ == "__main__":
    sys.exit(main())
