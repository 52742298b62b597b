"""``python -m megaphone`` is the ``megaphone`` command."""

import sys

from megaphone.cli import main

# The guard matters: a worker process may import the main module of its parent again.
if __name__ == "__main__":
    sys.exit(main())
