import os
from pathlib import Path

import pytest


@pytest.fixture
def data_folder():
    """Return a function that gives the path of an optional data set or skips the test."""
    default = Path(__file__).resolve().parents[3] / "shared" / "data"
    root = Path(os.environ.get("SKACT_DATA", default))

    def find(name):
        if not (root / name).is_dir():
            pytest.skip(f"optional data set {name} is not in {root}; set SKACT_DATA to its folder")
        return root / name

    return find
