"""Code that runs in a process of its own, and the memory that code takes."""

import subprocess
import sys
import tracemalloc


def printed_by(code):
    """What code prints in a fresh interpreter; an error there is one here."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.strip()


def peak_of(function):
    """Bytes that a call allocates at most beyond what there was, as far as Python knows."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
