import numpy as np
import pytest
from sklearn.neural_network import MLPRegressor

from skact.concepts._stopping import count_stagnant


def counts(losses, tol):
    best, n_stagnant, found = np.inf, 0, []
    for loss in losses:
        best, n_stagnant = count_stagnant(loss, best, n_stagnant, tol)
        found.append(int(n_stagnant))
    return found


@pytest.mark.parametrize(
    ("losses", "tol", "expected"),
    [
        # By hand. Each loss is compared with the smallest one before it.
        ([4, 3, 2, 1], 1, [0, 0, 0, 0]),
        ([4, 3.5, 3, 2.5, 2], 1, [0, 1, 2, 3, 4]),
        ([4, 3.5, 2.5, 2.25], 1, [0, 1, 0, 1]),
        ([4, 5, 3, 4], 1, [0, 1, 0, 1]),
        ([2, 2, 1, 2], 0, [0, 0, 0, 1]),
        ([2, np.nan, 1, np.nan], 0.5, [0, 1, 0, 1]),
        ([0.7, 0.1, 0.01], 3.0, [0, 1, 2]),
    ],
)
def test_epochs_without_progress_are_counted(losses, tol, expected):
    assert counts(losses, tol) == expected


@pytest.mark.parametrize("tol", [1e-4, 1e-3, 1e-2])
def test_the_count_is_that_of_scikit_learn(rng, tol):
    X = rng.normal(size=(60, 3))
    network = MLPRegressor(
        hidden_layer_sizes=(4,), tol=tol, n_iter_no_change=5, max_iter=2000, random_state=0
    )
    network.fit(X, np.tanh(X @ [1.0, 2.0, 3.0]))
    found = counts(network.loss_curve_, tol)
    # It stops when there are more than n_iter_no_change of them.
    assert found[-1] == 6 > max(found[:-1])
    assert 6 < network.n_iter_ < 2000


def test_concepts_are_counted_apart():
    best, n_stagnant = count_stagnant(
        np.array([1.0, 1.0]), np.array([2.0, 1.5]), np.array([3, 4]), 1
    )
    assert (best.tolist(), n_stagnant.tolist()) == ([1, 1], [0, 5])
