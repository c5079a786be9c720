"""`python -m routellm` is the `routellm` command."""

import sys

from routellm.cli import main

if __name__ == "__main__":
    sys.exit(main())
