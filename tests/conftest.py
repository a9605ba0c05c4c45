import os

# Set before anything imports transformers or scipy.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["SCIPY_ARRAY_API"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from pathlib import Path

import numpy as np
import pytest
import sklearn

ROOT = Path(__file__).parents[1]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def routing():
    """Metadata routing switched on for one test."""
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.fixture(scope="session")
def reference():
    """Loader of reference numbers, which an optional folder beside the repository holds."""
    folder = Path(os.environ.get("SKACT_REFERENCE", ROOT.parent / "shared" / "reference"))
    if not folder.is_dir():
        pytest.skip("the folder with the reference numbers is not here")
    return lambda name: np.load(folder / f"{name}.npz", allow_pickle=False)


@pytest.fixture(scope="session")
def data_folder():
    """Return a function that gives the path of an optional data set or skips the test."""
    root = Path(os.environ.get("SKACT_DATA", ROOT.parent / "shared" / "data"))

    def find(name):
        if not (root / name).is_dir():
            pytest.skip(f"optional data set {name} is not in {root}; set SKACT_DATA to its folder")
        return root / name

    return find


@pytest.fixture(scope="session")
def real_model():
    """Folder of a pretrained model by its name, as ``make models`` leaves it."""

    def folder(name):
        path = Path(os.environ.get("SKACT_MODELS", ROOT / "models")) / name
        if not (path / "model.safetensors").is_file():
            pytest.skip(f"the model {name!r} is not here; `make models` brings it")
        return path

    return folder


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory):
    from tests import tiny_models

    return tiny_models.save_pair(tiny_models.text_pair("bert"), tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def vit_folder(tmp_path_factory):
    from tests import tiny_models

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
