"""The explained function: cosines that do not depend on the size of a token."""

import numpy as np
import pytest
import torch

from skact.concepts import cosines
from skact.localization._concept_game import MeanCosine


@pytest.mark.parametrize("scale", [1e-30, 1, 1e30])
def test_cosines_and_their_gradients_are_those_of_any_size(rng, scale):
    state, targets = rng.normal(size=(2, 6, 5)), rng.normal(size=(3, 5))
    explained = MeanCosine(targets, np.zeros(5))
    scaled = torch.tensor(state * scale, dtype=torch.float32, requires_grad=True)
    found = explained.per_token(scaled)
    expected = cosines(state.reshape(-1, 5), targets).reshape(2, 6, 3)
    np.testing.assert_allclose(found.detach(), expected, atol=1e-6)
    plain = torch.tensor(state, requires_grad=True)
    unit = torch.nn.functional.normalize(torch.tensor(targets))
    (torch.nn.functional.normalize(plain, dim=-1) @ unit.T).sum().backward()
    found.sum().backward()
    np.testing.assert_allclose(scaled.grad.double() * scale, plain.grad, atol=1e-5)
    # A zero token has no direction.
    assert (explained.per_token(torch.zeros(1, 2, 5)) == 0).all()
