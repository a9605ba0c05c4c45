"""Several methods in one call give what each gives, in fewer passes."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from skact.localization import METHODS, RISE, KernelSHAP
from skact.localization._methods import resolve_method
from tests.watching import watch

N_MASKS, N_STEPS = 70, 3


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*have no SuperActivator")
        yield


@pytest.fixture
def passes(shapes):
    """Samples and copies that went through the model, forwards."""
    count = []
    base = shapes.embedder._load().base
    handle = watch(
        base, lambda m, args, kwargs: count.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    yield count
    handle.remove()


def objects(names=METHODS, **settings):
    settings = {"n_masks": N_MASKS, "n_steps": N_STEPS, **settings}
    made = [resolve_method(name) for name in names]
    return [
        m.set_params(**{k: v for k, v in settings.items() if k in m.get_params()}) for m in made
    ]


@pytest.mark.parametrize(("case", "target"), [("texts", "local"), ("shapes", "global")])
def test_ten_methods_in_one_call_give_what_each_gives(case, target, request):
    case = request.getfixturevalue(case)
    fitted = case.fitted("calm", target=target)
    few = case.samples[:2]
    found = fitted.compare(few, objects())
    assert list(found) == list(METHODS)
    assert fitted.method.name == "calm"
    for method in objects():
        alone = fitted.set_params(method=method).transform(few)
        np.testing.assert_allclose(found[method.name].flat(), alone.flat(), atol=2e-5)
        assert found[method.name].feature_names == alone.feature_names
        assert found[method.name].source == alone.source


def test_one_call_costs_at_most_the_masks_and_one_embedding(shapes, passes):
    fitted, one = shapes.fitted("calm"), shapes.samples[:1]

    def cost(names):
        passes.clear()
        fitted.compare(one, objects(names))
        return sum(passes)

    reading = cost(["direct"])
    assert reading == cost(["direct", "grad_cam", "calm"]) == 1
    with_masks = ["lime", "kernel_shap", "rise", "shapiq"]
    apart = {name: cost([name]) - reading for name in with_masks}
    assert apart["lime"] == apart["rise"] == N_MASKS
    assert cost(["lime", "rise"]) == N_MASKS + reading
    together = cost(with_masks)
    assert together <= sum(apart.values()) - N_MASKS + reading
    # Gradients are tried out once for all that need them, not once for each.
    gradients = ["integrated_gradients", "full_grad", "mfaba"]
    apart = sum(cost([name]) for name in gradients)
    assert cost(gradients) < apart - 2 * reading
    steps = 2 * N_STEPS * 6
    assert cost(METHODS) - together <= steps + 10


def test_different_players_share_nothing(shapes, passes):
    fitted = shapes.fitted()
    methods = [RISE(40, unit="grid"), RISE(40, unit="grid", cell_size=4), RISE(40, unit="grid")]
    passes.clear()
    found = fitted.compare(shapes.samples[:1], methods[:2])
    assert 40 < sum(passes) <= 81
    assert list(found) == [str(method) for method in methods[:2]]
    with pytest.raises(ValueError, match="methods must hold one or more methods, each once"):
        fitted.compare(shapes.samples[:1], methods)


@pytest.mark.parametrize(
    ("methods", "error", "message"),
    [
        ([], ValueError, r"methods must hold one or more methods, each once, got \[\]"),
        (["rise", "rise"], ValueError, "each once, got .'rise', 'rise'."),
        (["rize"], ValueError, "The 'method' parameter of ConceptLocalizer must be"),
        ([RISE(1)], ValueError, "The 'n_masks' parameter of RISE must be"),
        (["direct", "calm"], NotFittedError, 'need a localizer fitted with method="calm"'),
        (["direct", KernelSHAP(9)], ValueError, "n_masks=9 is too small: sample 0 has 64 players"),
        (["direct", RISE(baseline="pad")], ValueError, "baseline='pad' is not for images"),
    ],
)
def test_methods_that_cannot_be_compared(methods, error, message, shapes):
    with pytest.raises(error, match=message):
        shapes.fitted().compare(shapes.samples[:1], methods)


def test_a_localizer_must_be_fitted_to_compare(shapes):
    with pytest.raises(NotFittedError):
        shapes.localizer().compare(shapes.samples[:1], ["direct"])
