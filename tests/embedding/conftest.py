import os
from pathlib import Path

import numpy as np
import pytest

from tests import tiny_models  # sets HF_HUB_OFFLINE before transformers is imported

REFERENCE = Path(
    os.environ.get("SKACT_REFERENCE", Path(__file__).parents[3] / "shared" / "reference")
)


@pytest.fixture
def reference():
    def load(name):
        path = REFERENCE / name
        if not path.exists():
            pytest.skip(f"no reference file {path}; set SKACT_REFERENCE")
        return np.load(path, allow_pickle=False)

    return load


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory):
    return tiny_models.save_pair(tiny_models.text_pair("bert"), tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def vit_folder(tmp_path_factory):
    return tiny_models.save_pair(tiny_models.image_pair("vit"), tmp_path_factory.mktemp("vit"))


@pytest.fixture
def texts():
    return [
        "The cat sat.",
        "x",
        "I am not happy, not at all: the cat sat on the thing!",
        "Émoji 😀 in the middle",
        "happy angry",
    ]


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    sizes = [(40, 60), (28, 28), (70, 35), (40, 60), (31, 90)]
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
