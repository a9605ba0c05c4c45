"""``python -m skact`` is the command ``skact``."""

import sys

from skact.cli import main

if __name__ == "__main__":
    sys.exit(main())
