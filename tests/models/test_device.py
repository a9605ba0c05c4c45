"""A device that is not there is named before anything is loaded."""

import numpy as np
import pytest
import torch

from skact import AutoencoderTraining, PromptDetector, SparseAutoencoder, TransformerEmbedder
from skact.models import check_device

MISSING = ["gpu", "", "cpu:x", "cuda:99"]


@pytest.mark.parametrize("device", MISSING)
@pytest.mark.parametrize(
    "use",
    [
        check_device,
        lambda device: TransformerEmbedder("no/such-model", device=device).transform(["a"]),
        lambda device: (
            PromptDetector("no/such-model", concepts=["a", "b"], device=device)
            .fit(["x", "y"], np.eye(2, dtype=int))
            .predict(["x"])
        ),
        lambda device: SparseAutoencoder(
            training=AutoencoderTraining(max_epochs=1, device=device)
        ).fit(np.eye(3)),
    ],
)
def test_a_device_that_is_not_there(use, device):
    with pytest.raises(ValueError, match=rf"device='{device}' cannot be used here; there is cpu"):
        use(device)


def test_devices_that_are_there(monkeypatch):
    check_device("cpu")
    check_device("cpu:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="there is cpu, cuda:0, cuda:1"):
        check_device("gpu")
