"""All public functions, classes and methods, with nonsense for each argument in turn.

What is legal is listed in ``legal``; anything else is refused within a second, by an error that
names the argument. A sample of the walk is taken; ``SKACT_WALK=3600`` gives it so many seconds.
"""

import inspect
import os
import random
import time
import warnings

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError

import skact
from skact import TokenArray
from tests.hostile.legal import legal_of

BUDGET = float(os.environ.get("SKACT_WALK", 12))

RNG = np.random.default_rng(0)
X = TokenArray(RNG.random((32, 5)), np.arange(0, 33, 4))
Y = np.c_[np.arange(8) % 2, np.arange(8) // 2 % 2]
LABELS = TokenArray(np.repeat(Y, 4, axis=0).astype(bool), X.offsets)
MAP = [[0.1], [0.2], [0.3]]

NONSENSE = {
    "None": None,
    "True": True,
    "text": "nonsense",
    "no text": "",
    "bytes": b"abc",
    "object": object(),
    "class": int,
    "-1": -1,
    "0": 0,
    "1": 1,
    "2.5": 2.5,
    "nan": np.nan,
    "inf": np.inf,
    "-inf": -np.inf,
    "1j": 1j,
    "[]": [],
    "{}": {},
    "[None]": [None],
    "[nan]": [np.nan],
    "['a', 'a']": ["a", "a"],
    "empty array": np.empty((0, 5)),
    "nan array": np.full((8, 5), np.nan),
    "inf array": np.full((8, 5), np.inf),
    "object array": np.full((8, 5), None),
    "complex array": np.full((8, 5), 1j),
    "text array": np.full((8, 5), "a"),
    "3-D array": np.ones((2, 2, 2, 2)),
}


class Sum:
    n_players, n_targets = 3, 1

    def __call__(self, masks):
        return masks @ np.ones((3, 1))


# What a right call of each function looks like.
FUNCTIONS = {
    "bootstrap_interval": {"y_true": Y, "y_pred": Y, "n_resamples": 3, "random_state": 0},
    "check_tokens": {"estimator": skact.MeanPrototype(), "X": X},
    "concept_f1": {"present": Y, "predicted": Y},
    "deletion_curve": {"game": Sum(), "attribution": MAP},
    "depth_to_block": {"fraction": 0.5, "n_blocks": 6},
    "elbow_curve": {"X": X, "n_concepts_grid": [1], "max_iter": 2, "backend": "faiss"},
    "faithfulness": {"games": [Sum()], "attributions": [MAP]},
    "insertion_curve": {"game": Sum(), "attribution": MAP},
    "keep_pairs": {"tokens": LABELS, "pairs": Y.astype(bool)},
    "make_paragraphs": {"n_samples": 2},
    "make_shapes": {"n_samples": 1, "image_size": 16},
    "parse_answer": {"text": "Yes"},
    "parse_tags": {"text": "a"},
    "pointing_game_score": {"labels_true": LABELS, "scores": LABELS.map(np.float32)},
    "tail_threshold": {"scores": np.arange(5.0), "delta": 0.5},
    "token_average_precision_score": {"labels_true": LABELS, "scores": LABELS.map(np.float32)},
    "token_f1_score": {"labels_true": LABELS, "labels_pred": LABELS},
    "token_iou_score": {"labels_true": LABELS, "labels_pred": LABELS},
    "weighted_f1_score": {"y_true": Y, "y_pred": Y},
    "TokenArray": {"values": X.values, "offsets": X.offsets},
    "LayerStack": {"layers": {0: X}},
    "Source": {},
    "MaskFiles": {"paths": ["a"], "values": [1]},
}
# Those that need models, files or figures, which have tables of their own, and plain records.
LEFT_OUT = {
    *("ActivationStore", "ConceptLocalizer", "ConceptSearchCV", "CrossFitTransformer"),
    *("PromptDetector", "TransformerEmbedder", "embed_to_store", "superactivators"),
    *("LocalizationDisplay", "PatchHeatMapDisplay", "TokenHeatMapDisplay", "FaithfulnessResult"),
    *("Interval", "Patch", "Prompt", "Span", "Token", "ChatToken", "DELTA_GRID"),
    *("load_masks", "load_spans", "pointing_game_scorer", "token_average_precision_scorer"),
    "token_f1_scorer",
    *("token_iou_scorer", "shapes_model_path", "SelectLayer", "DirectAlignment", "GradCAM"),
    *("CALM", "FullGrad", "GlobalTarget", "LocalTarget", "IntegratedGradients", "KernelSHAP"),
    *("LIME", "MFABA", "RISE", "SHAPIQ"),
}
METHODS = ("fit", "partial_fit", "transform", "inverse_transform", "predict", "decision_function")
METHODS += ("score", "superactivators")
QUICK = {
    "KMeansConcepts": {"n_concepts": 2},
    "KMeansSeparator": {"n_concepts": 2, "max_iter": 3},
    "NMFConcepts": {"n_concepts": 2, "max_iter": 3},
    "SemiNMFConcepts": {"n_concepts": 2, "max_iter": 3},
    "SparseAutoencoder": {"n_concepts": 4, "k": 2},
    "SAEUnitFilter": {"min_ratio": 0, "max_ratio": 99, "max_share": 1},
}
# Other words for what an argument holds.
WORDS = {
    "X": ("X", "sample", "array", "token", "feature", "input"),
    "y": ("y", "label", "class", "concept", "numbers of samples"),
    "sample_weight": ("sample_weight", "sample weight", "numbers of samples"),
    "n_concepts_grid": ("n_concepts",),
    "labels_true": ("labels",),
    "attributions": ("attribution",),
    "values": ("values", "token", "feature"),
}


def settings():
    """Objects of settings, each within an estimator that reads them."""
    yield "LBFGS", lambda s: skact.LinearSeparator(s), skact.LBFGS(max_iter=2)
    yield "Minibatch", lambda s: skact.LinearSeparator(s), skact.Minibatch(n_passes=1)
    yield "Adam", lambda s: skact.LinearSeparator(s), skact.Adam(max_epochs=1)
    small = skact.AutoencoderTraining(max_epochs=1)
    yield "AutoencoderTraining", lambda s: skact.SparseAutoencoder(4, training=s), small


def estimators():
    for name in skact.__all__:
        thing = getattr(skact, name)
        is_class = inspect.isclass(thing) and name not in LEFT_OUT
        if is_class and issubclass(thing, BaseEstimator) and hasattr(thing, "fit"):
            yield name, thing(**QUICK.get(name, {}))


def call_with(function, kwargs, parameter, value):
    return lambda: function(**{**kwargs, parameter: value})


def cases():
    """Of every argument: where it is, its name, and what calls it with a value."""
    for name, kwargs in FUNCTIONS.items():
        for parameter in inspect.signature(getattr(skact, name)).parameters:
            yield name, parameter, call_with, (getattr(skact, name), kwargs)
    for name, estimator in estimators():
        for parameter in estimator.get_params(deep=False):
            yield name, parameter, fit_with, (estimator,)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that little is learnt in few iterations
            fitted = clone(estimator).fit(X, Y)
        for method in METHODS:
            if not hasattr(fitted, method) or name == method:
                continue
            bound = getattr(clone(estimator) if "fit" in method else fitted, method)
            for parameter in inspect.signature(bound).parameters:
                kwargs = {"X": X, "y": Y} if "y" in inspect.signature(bound).parameters else {}
                if method == "inverse_transform":
                    kwargs = {"X": fitted.transform(X)}
                yield f"{name}.{method}", parameter, call_with, (bound, kwargs or {"X": X})
    for name, within, settings_ in settings():
        for parameter in settings_.get_params(deep=False):
            yield name, parameter, fit_within, (within, settings_)


def fit_with(estimator, parameter, value):
    return lambda: clone(estimator).set_params(**{parameter: value}).fit(X, Y)


def fit_within(within, settings_, parameter, value):
    return lambda: within(clone(settings_).set_params(**{parameter: value})).fit(X, Y)


def verdict(call, parameter):
    """None if a call is refused as it should be, else what happened."""
    start = time.process_time()
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            call()
    except (ValueError, TypeError, NotFittedError) as error:
        words = WORDS.get(parameter, (parameter,))
        if not any(word.lower() in str(error).lower() for word in words):
            return f"{type(error).__name__} does not name it: {str(error)[:90]}"
    except (FileNotFoundError, IndexError) as error:
        return f"{type(error).__name__}: {str(error)[:90]}"
    except Exception as error:
        return f"raises {type(error).__name__}: {str(error)[:90]}"
    else:
        return "is taken"
    seconds = time.process_time() - start
    return None if seconds < 1 else f"is refused after {seconds:.1f} s"


def walk(seconds, seed=0):
    """Go through the cases in random order, for so long."""
    todo = [(*case, kind) for case in cases() for kind in NONSENSE]
    random.Random(seed).shuffle(todo)
    stop = time.monotonic() + seconds
    for where, parameter, make, args, kind in todo:
        if time.monotonic() > stop:
            return
        result = verdict(make(*args, parameter, NONSENSE[kind]), parameter)
        yield f"{where}({parameter})", kind, result


def test_nonsense_is_refused_by_name():
    n, wrong = 0, []
    for where, kind, result in walk(BUDGET):
        n += 1
        if result is not None and kind not in legal_of(where):
            wrong.append((where, kind, result))
    assert n > 100
    assert not wrong, "\n".join(map(str, wrong))


def test_the_walk_leaves_nothing_out():
    walked = {*FUNCTIONS, *(name for name, _ in estimators()), *(name for name, *_ in settings())}
    assert walked | LEFT_OUT == set(skact.__all__)


def test_what_is_right_goes_through():
    for name, kwargs in FUNCTIONS.items():
        getattr(skact, name)(**kwargs)


def careless(number):
    return 3 * number


def test_the_verdict_sees_carelessness():
    assert verdict(lambda: careless("a"), "number") == "is taken"
    assert "does not name it" in verdict(lambda: int("a"), "number")
    assert "raises KeyError" in verdict(lambda: {}["a"], "number")
    assert verdict(lambda: skact.depth_to_block("a", 3), "fraction") is None
