"""Code that runs in a process of its own."""

import subprocess
import sys


def printed_by(code):
    """What code prints in a fresh interpreter; an error there is one here."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.strip()
