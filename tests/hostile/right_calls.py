"""What a right call of each public function, class and method looks like."""

import inspect
import shutil
import tempfile
import warnings
from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import make_pipeline

import skact
from skact import LayerStack, Source, Token, TokenArray, theory
from tests import tiny_models
from tests.datasets import formats
from tests.prompting import word_search
from tests.store import toy_store

matplotlib.use("Agg")

RNG = np.random.default_rng(0)
X = TokenArray(RNG.random((32, 5)), np.arange(0, 33, 4))
Y = np.c_[np.arange(8) % 2, np.arange(8) // 2 % 2]
LABELS = TokenArray(np.repeat(Y, 4, axis=0).astype(bool), X.offsets)
SOME = LABELS.map(np.float32)
MAP = [[0.1], [0.2], [0.3]]
TEXTS = ["the happy cat", "not happy at all", "the angry thing sat", "angry cat"]
WORDS = ["happy", "cat"]


class Call(NamedTuple):
    """A call that goes through, and so that each of its arguments can be another one."""

    where: str
    function: Any
    kwargs: dict[str, Any]

    def parameters(self):
        """Names of the arguments."""
        if self.where.partition(".")[0] in _BY_NAME and "." not in self.where:
            return list(self.kwargs)
        kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        known = inspect.signature(self.function).parameters.values()
        return [p.name for p in known if p.kind not in kinds]

    def __call__(self, **changed):
        return self.function(**{**self.kwargs, **changed})


class Sum:
    n_players, n_targets = 3, 1

    def __call__(self, masks):
        return masks @ np.ones((3, 1))


# What a sample holds, with scores or marks, and the settings of analyses.
_HELD = {"scores": SOME, "y": Y, "token_labels": LABELS, "n_resamples": 2, "random_state": 0}
_MARKED = {"marks": LABELS, **{name: _HELD[name] for name in _HELD if name != "scores"}}
_SPLIT = {**_HELD, "calibration": np.arange(8) < 4, "deltas": [0.5]}
_ANALYSES = {
    "best_layers": ("BestLayersDisplay", _HELD),
    "best_sparsity": ("BestSparsityDisplay", _HELD),
    "coverage": ("CoverageDisplay", _HELD),
    "depth_curve": ("DepthCurveDisplay", _SPLIT),
    "score_distributions": ("ScoreDistributionsDisplay", _HELD),
    "separability": ("SeparabilityDisplay", _HELD),
    "sparsity_curve": ("SparsityCurveDisplay", _SPLIT),
    "superactivator_counts": ("SuperActivatorCountsDisplay", _MARKED),
    "superactivator_positions": ("SuperActivatorPositionsDisplay", _MARKED),
}
_FUNCTIONS = {
    **{name: kwargs for name, (_, kwargs) in _ANALYSES.items()},
    "all_positive_f1_score": {"y_true": Y},
    "bootstrap_interval": {"y_true": Y, "y_pred": Y, "n_resamples": 3, "random_state": 0},
    "concept_iou": {"labels_true": LABELS, "labels_pred": LABELS},
    "rank_gaussian_filter": {"maps": np.ones((3, 4))},
    "remove_interference": {"target": np.ones((3, 4)), "others": np.ones((2, 3, 4))},
    "check_tokens": {"estimator": skact.MeanPrototype(), "X": X},
    "concept_f1": {"present": Y, "predicted": Y},
    "deletion_curve": {"game": Sum(), "attribution": MAP},
    "depth_to_block": {"fraction": 0.5, "n_blocks": 6},
    "draw_splits": {"groups": ["a", "b"]},
    "elbow_curve": {"X": X, "n_concepts_grid": [1], "max_iter": 2, "backend": "faiss"},
    "faithfulness": {"games": [Sum()], "attributions": [MAP]},
    "insertion_curve": {"game": Sum(), "attribution": MAP},
    "keep_pairs": {"tokens": LABELS, "pairs": Y.astype(bool)},
    "make_paragraphs": {"n_samples": 2},
    "make_shapes": {"n_samples": 1, "image_size": 16},
    "parse_answer": {"text": "Yes"},
    "parse_tags": {"text": "a"},
    "pointing_game_score": {"labels_true": LABELS, "scores": SOME},
    "shapes_model_path": {},
    "tail_threshold": {"scores": np.arange(5.0), "delta": 0.5},
    "token_average_precision_score": {"labels_true": LABELS, "scores": SOME},
    "token_f1_score": {"labels_true": LABELS, "labels_pred": LABELS},
    "token_iou_score": {"labels_true": LABELS, "labels_pred": LABELS},
    "tpr_at_fpr_score": {"y_true": Y, "y_score": Y},
    "weighted_f1_score": {"y_true": Y, "y_pred": Y},
    "TokenArray": {"values": X.values, "offsets": X.offsets},
    "LayerStack": {"layers": {0: X}},
    "Source": {},
    "MaskFiles": {"paths": ["a"], "values": [1]},
}
_CODER = skact.SparseAutoencoder(
    4, training=skact.AutoencoderTraining(max_epochs=2), random_state=0
)
_TWO_CUTS = {"delta": None, "cut": ("recall", "false_alarms"), "level": (0.5, 0.5)}
_QUICK = {
    "Cascade": {"first": skact.TopWindows(**_TWO_CUTS), "second": skact.MaxToken(0.5)},
    "IsolatedConcepts": {"estimator": skact.DifferenceInMeans()},
    "KMeansConcepts": {"n_concepts": 2},
    "KMeansSeparator": {"n_concepts": 2, "max_iter": 3},
    "NMFConcepts": {"n_concepts": 2, "max_iter": 3},
    "SemiNMFConcepts": {"n_concepts": 2, "max_iter": 3},
    "SparseAutoencoder": {
        "n_concepts": 4,
        "k": 2,
        "training": skact.AutoencoderTraining(max_epochs=2),
    },
    "SAEUnitFilter": {"min_ratio": 0, "max_ratio": 99, "max_share": 1},
    "CrossFitTransformer": {"estimator": skact.MeanPrototype(), "cv": 2, "shuffle": False},
    "ConceptSearchCV": {
        "estimator": skact.TopWindows(**_TWO_CUTS),
        "param_grid": {"level": [(0.5, 0.5), (0.4, 0.5)]},
        "cv": 2,
    },
    "TopWindows": _TWO_CUTS,
    "MultiLayerAutoencoder": {"autoencoder": _CODER},
    "UnitEdit": {"autoencoder": _CODER},
}
_RAW = {"ConceptDetector", "ConceptLocalizer", "PromptDetector", "TransformerEmbedder"}
# What is not fitted on tokens and a label of each sample.
_ARRAYS = {"ActivationSpaceMap", "ConceptBottleneckClassifier", "HeadPursuit", "SimultaneousOMP"}
# Their constructors take parameters by name, from `get_params`.
_BY_NAME = {n for n in skact.__all__ if hasattr(getattr(skact, n), "get_params")}
_ON_TOKENS = {"y": Y, "pooled": X.max(), "scores": X[:, ...]}


def _fit(made, /, *data, **params):
    changed = clone(made).set_params(**params)
    folds = isinstance(made, skact.CrossFitTransformer)
    return changed.fit_transform(*data) if folds else changed.fit(*data)


def _merge(fitted, /, others):
    return deepcopy(fitted).merge(others)


def _calls_of(name, bound, kwargs):
    """Calls of methods; ``bound`` gives the method of a name."""
    for method, given in kwargs.items():
        yield Call(f"{name}.{method}", bound(method), given)


def public_methods(cls):
    """Names of the methods that this package gives a class."""
    for name, _ in inspect.getmembers(cls, callable):
        home = next((c for c in cls.__mro__ if name in vars(c)), cls)
        is_request = name.startswith("set_") and name.endswith("_request")
        if not name.startswith("_") and home.__module__.startswith("skact") and not is_request:
            yield name


def token_estimators():
    """All that is fitted on tokens, by name."""
    for name in skact.__all__:
        cls = getattr(skact, name)
        is_estimator = inspect.isclass(cls) and issubclass(cls, BaseEstimator)
        gives = hasattr(cls, "transform") or hasattr(cls, "predict")
        if is_estimator and gives and name not in _RAW | _ARRAYS:
            yield name, cls(**_QUICK.get(name, {}))
    yield "LinearSeparator", skact.LinearSeparator(skact.Minibatch(n_passes=1))


def _of_token_estimators():
    for name, estimator in token_estimators():
        yield Call(name, partial(_fit, estimator, X, Y), estimator.get_params(deep=False))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that little is learnt in few iterations
            fitted = clone(estimator).fit(X, Y)
        for method in public_methods(type(estimator)):
            if method in ("set_params", "set_output", "from_pretrained"):
                continue
            if (name, method) == ("RandomToken", "running_pool"):  # which it has not
                continue
            if method == "merge":
                yield Call(f"{name}.merge", partial(_merge, fitted), {"others": fitted})
                continue
            of = clone(estimator) if "fit" in method or method == "match_table" else fitted
            if not hasattr(of, method):
                continue
            bound = getattr(of, method)
            required = {
                p.name: _ON_TOKENS.get(p.name, X)
                for p in inspect.signature(bound).parameters.values()
                if p.default is p.empty
            }
            if "y" in inspect.signature(bound).parameters:
                required["y"] = Y
            if method == "inverse_transform":
                required = {"X": fitted.transform(X)}
            yield Call(f"{name}.{method}", bound, required)
        if hasattr(estimator, "score"):
            yield Call(f"{name}.score", fitted.score, {"X": X, "y": Y})


def _of_settings():
    """Objects of settings, each within an estimator that reads them."""
    small = skact.AutoencoderTraining(max_epochs=1)
    for made in skact.LBFGS(max_iter=2), skact.Minibatch(n_passes=1), skact.Adam(max_epochs=1):
        yield from _within(made, lambda s: skact.LinearSeparator(s).fit(X, Y))
    yield from _within(small, lambda s: skact.SparseAutoencoder(4, training=s).fit(X))
    masks = {"n_masks": 20}
    for made in (
        *(skact.CALM(), skact.DirectAlignment(), skact.FullGrad(), skact.GradCAM()),
        *(skact.IntegratedGradients(n_steps=2), skact.MFABA(n_steps=2), skact.RISE(**masks)),
        *(skact.KernelSHAP(**masks), skact.LIME(**masks), skact.SHAPIQ(**masks)),
    ):
        yield from _within(made, lambda s: localizer().set_params(method=s).fit(TEXTS, words()))


def _within(made, use):
    def call(**params):
        return use(clone(made).set_params(**params))

    yield Call(type(made).__name__, call, made.get_params(deep=False))


@cache
def words():
    """Which text holds which word."""
    return np.array([[word in text for word in WORDS] for text in TEXTS], int)


def spans():
    """Where in the texts the words are."""
    return [[(t.index(w), t.index(w) + len(w), w) for w in WORDS if w in t] for t in TEXTS]


@cache
def embedder(kind="bert"):
    """A tiny model."""
    pair = tiny_models.image_pair(kind) if kind == "vit" else tiny_models.text_pair(kind)
    return skact.TransformerEmbedder(pair, layer=2)


@cache
def line():
    """Texts in, decisions out."""
    return make_pipeline(embedder(), skact.MeanPrototype(), skact.SuperActivator(0.5)).fit(
        TEXTS, words()
    )


def localizer():
    """Maps of texts, not fitted."""
    parts = [step for _, step in line().steps]
    return skact.ConceptLocalizer(*parts, target="global", random_state=0)


def _of_raw():
    """Estimators of raw samples."""
    folder = tempfile.mkdtemp()
    texts, images = embedder(), np.zeros((2, 28, 28, 3), np.uint8)
    stored = clone(texts).set_params(store=f"{folder}/store")
    some, masks = {"X": TEXTS}, [np.ones((28, 28))] * 2
    params = texts.get_params(deep=False)
    yield Call(
        "TransformerEmbedder", lambda **p: clone(texts).set_params(**p).transform(TEXTS), params
    )
    names = (
        "fit",
        "transform",
        "prepare",
        "tokens_of",
        "truncated",
        "missing",
        "distinct",
        "forget",
    )
    calls = {**dict.fromkeys(names, some), "get_feature_names_out": {}}
    calls["align_spans"] = {"texts": TEXTS, "spans": spans()}
    yield from _calls_of("TransformerEmbedder", partial(getattr, stored), calls)
    calls = {"align_masks": {"images": images, "masks": masks}, "transform": {"X": images}}
    yield from _calls_of("TransformerEmbedder", partial(getattr, embedder("vit")), calls)
    maps, both = localizer(), {"X": TEXTS, "y": words()}
    fitted = clone(maps).set_params(method=skact.SHAPIQ(n_masks=20)).fit(**both)
    yield Call("ConceptLocalizer", partial(_fit, maps, *both.values()), maps.get_params(deep=False))
    calls = {"transform": some, "predict": some, "score": both, "get_feature_names_out": {}}
    calls |= {"fit": both, "compare": {**some, "methods": ["direct"]}}
    yield from _calls_of("ConceptLocalizer", partial(getattr, fitted), calls)
    for name in "games", "interactions":
        yield Call(f"ConceptLocalizer.{name}", _listing(getattr(fitted, name)), some)
    asks = word_search.detector(batch_size=2)
    some, both = {"X": word_search.TEXTS}, {"X": word_search.TEXTS, "y": word_search.Y}
    yield Call("PromptDetector", partial(_fit, asks, *both.values()), asks.get_params(deep=False))
    calls = {"answers": some, "decision_function": some, "predict": some, "fit": both}
    yield from _calls_of("PromptDetector", partial(getattr, asks), {**calls, "score": both})


def _of_augmentation():
    """A writer, and what it is given."""
    writes = {"model": lambda prompts: [f"So. {p.sample}" for p in prompts]}
    writer = skact.DraftWriter(**writes)
    yield Call("DraftWriter", skact.DraftWriter, writes)
    texts = {"texts": TEXTS, "labels": WORDS * 2, "writer": writer}
    yield Call("embed_in_paragraphs", skact.embed_in_paragraphs, texts)
    wanted = {"concept": "joy", "n_samples": 2, "writer": writer}
    yield Call("write_paragraphs", skact.write_paragraphs, wanted)
    quoted = {"original": "So.", "draft": "So. It rains."}
    yield Call("find_original", skact.find_original, quoted)


def _of_concept_detector():
    detector = skact.ConceptDetector(embedder().model, layer=0, cv=2, random_state=0)
    texts, some = TEXTS * 2, {"raw": TEXTS}
    both = {"raw": texts, "y": np.tile(words(), (2, 1))}
    params = detector.get_params(deep=False)
    yield Call("ConceptDetector", partial(_fit, detector, *both.values()), params)
    yield Call("ConceptDetector.fit", clone(detector).fit, both)
    located = {"raw": texts, "spans": spans() * 2}
    yield Call("ConceptDetector.fit", clone(detector).fit, located)
    fitted = clone(detector).fit(**both)
    calls = dict.fromkeys(("predict", "predict_proba", "decision_function", "explain"), some)
    calls |= {"score": both, "encode": {"y": both["y"]}}
    yield from _calls_of("ConceptDetector", partial(getattr, fitted), calls)
    kept = Path(tempfile.mkdtemp(), "kept.safetensors")
    yield Call("ConceptDetector.save", fitted.save, {"path": kept})
    yield Call("ConceptDetector.plot", _closing(fitted.plot), {"sample": TEXTS[0]})


def _of_monitor():
    pipe = make_pipeline(skact.TokenScaler(), skact.MeanPrototype(), skact.MaxToken()).fit(X, Y)
    monitor = skact.Monitor(pipe)
    yield Call("Monitor", skact.Monitor, {"estimator": pipe})
    calls = {"update": {"tokens": X[0]}, "stream": {}, "reset": {}}
    yield from _calls_of("Monitor", partial(getattr, monitor), calls)
    affine = make_pipeline(skact.DifferenceInMeans(), skact.MaxToken()).fit(X, Y)
    given = {"path": Path(tempfile.mkdtemp(), "probe"), "source": Source("a", block=1)}
    yield Call("Monitor.export", skact.Monitor(affine).export, given)
    pair = tiny_models.text_pair("gpt2", head=True)
    reader = skact.TransformerEmbedder(pair, layer=1, sink=None)
    line = make_pipeline(reader, skact.MeanPrototype(), skact.MaxToken()).fit(TEXTS, words())
    yield Call("Monitor.watch", _entered(skact.Monitor(line).watch), {"model": pair[0]})


def _half(texts):
    return [0.5] * len(texts)


def _of_steering():
    model = tiny_models.text_pair("gpt2", head=True)[0]
    width = tiny_models.WIDTH
    edit = skact.Addition(np.arange(width)).fit(np.ones((2, width)))
    steer = _entered(skact.steer)
    given = {"model": model, "edit": edit, "layer": 1}
    yield Call("steer", steer, given)

    yield Call("bake_edit", _on_a_copy(skact.bake_edit), given)
    pair = tiny_models.text_pair("gpt2", head=True)
    few = {"neutral": ["the sun"], "n_random": 1, "max_new_tokens": 2, "n_resamples": 3}
    few |= {"strengths": [1.0], "layer": 1}
    report = {"model": pair, "edits": edit, "prompts": TEXTS[:2], "judges": _half, **few}
    yield Call("steering_report", skact.steering_report, report)
    display = skact.SteeringDisplay
    shown = {"result": skact.steering_report(**report)}
    yield Call("SteeringDisplay", display, shown)
    yield Call("SteeringDisplay.plot", _closing(display(**shown).plot), {})
    path = Path(tempfile.mkdtemp(), "vectors.safetensors")
    yield Call("export_vectors", skact.export_vectors, {"edits": edit, "path": path})


def _of_algebra():
    space = skact.ActivationSpaceMap()
    params, both = space.get_params(deep=False), {"X": X, "y": X}
    yield Call("ActivationSpaceMap", partial(_fit, space, X, X), params)
    yield Call("ActivationSpaceMap.fit", clone(space).fit, both)
    fitted = clone(space).fit(**both)
    read = skact.DifferenceInMeans().fit(X, Y)
    names = ("affine_map", "get_feature_names_out", "token_function")
    calls = {"transform": {"X": X}, "score": both, **{name: {} for name in names}}
    calls |= {"carry": {"estimator": read}, "carry_vectors": {"vectors": read}}
    yield from _calls_of("ActivationSpaceMap", partial(getattr, fitted), calls)
    bottleneck = skact.ConceptBottleneckClassifier(skact.DifferenceInMeans(), max_iter=50)
    params, kinds = bottleneck.get_params(deep=False), {"X": X, "y": Y[:, 0]}
    yield Call("ConceptBottleneckClassifier", partial(_fit, bottleneck, *kinds.values()), params)
    yield Call("ConceptBottleneckClassifier.fit", clone(bottleneck).fit, kinds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that little is learnt in few iterations
        classifier = clone(bottleneck).fit(**kinds)
    calls = {name: {"X": X} for name in ("decision_function", "predict", "predict_proba")}
    yield from _calls_of("ConceptBottleneckClassifier", partial(getattr, classifier), calls)
    said = [[Token("a", i, i + 1) for i in range(4)]] * 8
    given = {**both, "X_tokens": said, "y_tokens": said}
    yield Call("align_tokens", skact.align_tokens, given)
    given = {"X": X, "Y": X, "n_permutations": 2, "random_state": 0}
    yield Call("activation_drift", skact.activation_drift, given)
    cls, shown = skact.DriftDisplay, {"result": skact.activation_drift(**given)}
    yield Call("DriftDisplay", cls, shown)
    yield Call("DriftDisplay.plot", _closing(cls(**shown).plot), {})
    yield Call("DriftDisplay.from_activations", _closing(cls.from_activations), given)
    given = {"vectors": np.eye(3), "first": [1, 0, 0], "second": [0, 1, 0]}
    yield Call("concept_bias", skact.concept_bias, given)
    given = {
        "embedder": embedder(),
        "samples": TEXTS,
        "classes": [0] * 4,
        "method": skact.DifferenceInMeans(),
        "X": embedder().transform(TEXTS),
        "y": words(),
        "heads": {0: lambda output: output.last_hidden_state.mean(dim=(1, 2))},
        "n_splits": 2,
        "random_state": 0,
    }
    yield Call("concept_sensitivity", skact.concept_sensitivity, given)
    yield Call("layer_consistency", skact.layer_consistency, {"scores": [[0.1, 0.2], [0.3, 0.2]]})


def _on_a_copy(bake):
    """A function that changes the weights of a copy, not those that the next call reads."""

    def on_a_copy(model, *args, **kwargs):
        return bake(deepcopy(model), *args, **kwargs)

    on_a_copy.__signature__ = inspect.signature(bake)
    return on_a_copy


def _entered(context):
    """A function that enters a context and leaves it."""

    def enter(*args, **kwargs):
        with context(*args, **kwargs):
            pass

    enter.__signature__ = inspect.signature(context)
    return enter


def _of_heads():
    reader = clone(embedder()).set_params(site="heads")
    yield Call("head_writes", skact.head_writes, {"X": reader.transform(TEXTS), "model": reader})
    given = {"vectors": np.eye(2, 32), "model": embedder()}
    yield Call("head_alignment", skact.head_alignment, {**given, "layer": 1, "n_random": 2})
    stack = clone(embedder()).set_params(layer=[1, 2]).transform(TEXTS)
    yield Call("gap_growth", skact.gap_growth, {"X": stack, **given, "n_resamples": 2})
    omp, samples, atoms = skact.SimultaneousOMP(2), RNG.random((8, 5)), RNG.random((6, 5))
    both = {"X": samples, "dictionary": atoms}
    yield Call("SimultaneousOMP", partial(_fit, omp, *both.values()), omp.get_params(deep=False))
    fitted = clone(omp).fit(**both)
    calls = {"transform": {"X": samples}, "inverse_transform": {"X": samples[:, :2]}}
    yield Call("SimultaneousOMP.fit", clone(omp).fit, both)
    yield from _calls_of("SimultaneousOMP", partial(getattr, fitted), calls)
    writes = {(0, 0): samples, (0, 1): samples[::-1]}
    pursuit = skact.HeadPursuit(atoms, [*"abcdef"], top_k=1)
    yield Call("HeadPursuit", partial(_fit, pursuit, writes), pursuit.get_params(deep=False))
    fitted = clone(pursuit).fit(writes)
    yield Call("HeadPursuit.fit", clone(pursuit).fit, {"X": writes})
    calls = {"describe": {"layer": 0, "head": 1}, "get_support": {}}
    yield from _calls_of("HeadPursuit", partial(getattr, fitted), calls)
    scaled = {"model": tiny_models.text_pair("gpt2", head=True), "heads": [(0, 1)], "factor": 1.0}
    yield Call("scale_heads", skact.scale_heads, scaled)
    yield Call("bake_heads", _on_a_copy(skact.bake_heads), scaled)
    every = [[0, 0], [0, 1], [1, 0]]
    yield Call("random_heads", skact.random_heads, {"ranking": every, "like": every[:1]})


def _of_files():
    path = Path(tempfile.mkdtemp(), "kept.safetensors")
    skact.save(embedder(), path)
    yield Call(
        "save", skact.save, {"estimator": skact.MeanPrototype(), "path": path.with_suffix(".b")}
    )
    yield Call("load", skact.load, {"path": path, "model": embedder().model})
    yield Call("describe", skact.describe, {"path": path})


def _of_pages():
    given = {"estimator": line(), "samples": TEXTS, "y": words(), "n_resamples": 3}
    yield Call("report", skact.report, given)
    units = {"estimator": line()[:-1], "samples": TEXTS}
    yield Call("unit_pages", skact.unit_pages, units)
    yield Call("top_activations", skact.top_activations, units)
    speaker = skact.TransformerEmbedder(tiny_models.text_pair("gpt2", head=True), layer=0)
    training = skact.AutoencoderTraining(max_epochs=1)
    method = skact.SparseAutoencoder(4, training=training, random_state=0)
    coded = {"estimator": make_pipeline(speaker, method).fit(TEXTS), "samples": TEXTS}
    yield Call("autoencoder_report", skact.autoencoder_report, coded)
    yield Call("unit_input_scores", skact.unit_input_scores, coded)
    yield Call("unit_output_scores", skact.unit_output_scores, coded)
    yield Call("name_units", skact.name_units, {"table": skact.top_activations(**units)})


def _listing(method):
    def call(*args, **kwargs):
        return list(method(*args, **kwargs))

    call.__signature__ = inspect.signature(method)
    return call


def _of_containers():
    source, half = Source("a"), TokenArray(X.values[:, :2].copy(), X.offsets)
    calls = {
        "concatenate": {"parts": [X, X]},
        "from_list": {"samples": X.to_list()},
        "columns": {"columns": [0]},
        "map": {"function": np.negative},
        "rows": {"numbers": [0, 1]},
        "take": {"indices": [0, 1]},
        "tokens_at": {"positions": np.zeros(8, int)},
        "with_source": {"source": source},
        "with_stored_values": {"values": half.values},
        "with_values": {"values": half.values},
        **{name: {} for name in ("blocks", "compact", "flat", "float_chunks", "last", "max")},
        **{name: {} for name in ("mean", "positions", "row_blocks", "sum", "to_list")},
    }
    yield from _calls_of("TokenArray", partial(getattr, X), calls)
    yield Call("TokenArray.each_block", _listing(X.each_block), {"function": lambda *piece: None})
    stack = LayerStack({0: X, 3: X})
    calls = {"concatenate": {"parts": [stack]}, "layer": {"block": 3}, "take": {"indices": [0]}}
    yield from _calls_of("LayerStack", partial(getattr, stack), calls)
    yield Call("Source.conflict", source.conflict, {"other": source})
    yield Call("FaithfulnessResult.normalized", result().normalized, {})


def result():
    """Curves of one sample."""
    return skact.faithfulness([Sum()], [MAP])


def _of_displays():
    tokens = [Token("the", 0, 3), Token("cat", 4, 7)]
    text = {"sample": "the cat", "tokens": tokens, "scores": [0.1, 0.9]}
    patches = [skact.Patch(0, 0, (0, 0, 4, 8)), skact.Patch(0, 1, (4, 0, 8, 8))]
    image = {**text, "sample": np.zeros((8, 8, 3), np.uint8), "tokens": patches}
    maps = {"direct": {"global": [0.1, 0.9]}}
    many = {"sample": "the cat", "tokens": tokens, "maps": maps}
    estimator, fitted = line(), localizer().fit(TEXTS, words())
    for name, kwargs, read in (
        ("TokenHeatMapDisplay", text, estimator),
        ("PatchHeatMapDisplay", image, _image_line()),
        ("LocalizationDisplay", many, fitted),
    ):
        cls = getattr(skact, name)
        yield Call(name, cls, kwargs)
        sample = TEXTS[0] if name != "PatchHeatMapDisplay" else np.zeros((28, 28, 3), np.uint8)
        given = {"estimator": read, "sample": sample}
        yield Call(f"{name}.from_estimator", _closing(cls.from_estimator), given)
        yield Call(f"{name}.plot", _closing(cls(**kwargs).plot), {})
        yield Call(f"{name}.to_html", cls(**kwargs).to_html, {})
    several = {"displays": [skact.TokenHeatMapDisplay(**text)]}
    shown = skact.SamplesDisplay(**several)
    yield Call("SamplesDisplay", skact.SamplesDisplay, several)
    yield Call("SamplesDisplay.plot", _closing(shown.plot), {})
    yield Call("SamplesDisplay.to_html", shown.to_html, {})


def _of_analyses():
    detector = skact.SuperActivator(0.5).fit(SOME, Y, LABELS)
    for name, (display, kwargs) in _ANALYSES.items():
        cls, given = getattr(skact, display), dict(kwargs)
        made = cls(getattr(skact, name)(**kwargs))
        given["scores"] = given.pop("marks", SOME)
        yield Call(display, cls, {"result": made.result})
        yield Call(f"{display}.plot", _closing(made.plot), {})
        yield Call(f"{display}.from_predictions", _closing(cls.from_predictions), dict(given))
        del given["scores"]
        given |= {"estimator": detector, "X": SOME}
        yield Call(f"{display}.from_estimator", _closing(cls.from_estimator), given)
    tokens = [Token("the", 0, 3), Token("cat", 4, 7)]
    given = {"sample": "the cat", "tokens": tokens, "scores": {0: [0.1, 0.9]}}
    name, cls = "LayerHeatMapDisplay", skact.LayerHeatMapDisplay
    yield Call(name, cls, given)
    yield Call(f"{name}.plot", _closing(cls(**given).plot), {})
    yield Call(f"{name}.to_html", cls(**given).to_html, {})
    given = {"estimator": {2: line()}, "sample": TEXTS[0]}
    yield Call(f"{name}.from_estimator", _closing(cls.from_estimator), given)

    cls, given = skact.DynamicsDisplay, {"activations": [-1.0, 0.5, 2.0], "n_layers": 2}
    yield Call("DynamicsDisplay.from_activations", _closing(cls.from_activations), given)
    simulation = theory.simulate(**given)
    yield Call("DynamicsDisplay", cls, {"simulation": simulation})
    yield Call("DynamicsDisplay.plot", _closing(cls(simulation).plot), {})
    cls, given = skact.HeadScoresDisplay, {"scores": [[0.1, 0.2], [0.3, 0.4]]}
    pursuit = skact.HeadPursuit(np.eye(5), top_k=1).fit({(0, 0): RNG.random((4, 5))})
    yield Call("HeadScoresDisplay", cls, given)
    yield Call("HeadScoresDisplay.plot", _closing(cls(**given).plot), {})
    call = _closing(cls.from_estimator)
    yield Call("HeadScoresDisplay.from_estimator", call, {"pursuit": pursuit})


def _closing(method):
    from matplotlib import pyplot

    def call(*args, **kwargs):
        try:
            return method(*args, **kwargs)
        finally:
            pyplot.close("all")

    call.__signature__ = inspect.signature(method)
    return call


def _image_line():
    images = [np.full((28, 28, 3), 60 * i, np.uint8) for i in range(4)]
    detector = skact.SuperActivator(0.5)
    return make_pipeline(embedder("vit"), skact.MeanPrototype(), detector).fit(images, words())


def _of_stores():
    folder = Path(tempfile.mkdtemp())
    toy_store.fill(skact.ActivationStore(folder / "first"), [0, 1])
    recorded = X.with_source(Source("a model", "a commit", 0))
    skact.ActivationStore(folder / "first").put(recorded[:1], ["a"])

    def store():
        path = Path(tempfile.mkdtemp(dir=folder), "copy")
        return skact.ActivationStore(shutil.copytree(folder / "first", path))

    store().export(folder / "layer", model="toy")
    keys, names = [toy_store.key(0)], toy_store.identities(0)
    calls = {
        "info": {},
        "verify": {},
        "prune": {},
        "forget": {"keys": keys},
        "export": {"file": folder / "out", "model": "toy"},
        "import_": {"file": folder / "layer"},
        "lacking": {"keys": keys, "identities": names},
        "read": {"keys": keys, "identity": names[0]},
        "fill": {"keys": keys, "identities": names, "also": {}, "prepare": toy_store.Job},
        "put": {"samples": recorded[1:2], "names": ["b"]},
        "get": {"names": ["a"], "source": recorded.source},
    }
    yield Call("ActivationStore", skact.ActivationStore, {"path": folder / "new"})
    for method, kwargs in calls.items():

        def call(*args, method=method, **given):
            return getattr(store(), method)(*args, **given)

        call.__signature__ = inspect.signature(getattr(store(), method))
        yield Call(f"ActivationStore.{method}", call, kwargs)
    kwargs = {"samples": TEXTS[:2], "embedder": embedder(), "store": folder / "embedded"}
    yield Call("embed_to_store", skact.embed_to_store, kwargs)


def _of_readers():
    spans, masks = _spans_folder(), _masks_folder()
    yield Call("load_spans", skact.load_spans, {"folder": spans})
    yield Call("load_masks", skact.load_masks, {"folder": masks})
    for name, kwargs in formats.right_calls(Path(tempfile.mkdtemp())).items():
        yield Call(name, getattr(skact, name), kwargs)
    tokens, y = embedder().transform(TEXTS), words()
    detector = skact.SuperActivator().fit(skact.MeanPrototype().fit_transform(tokens, y), y)
    scores = skact.MeanPrototype().fit_transform(tokens, y)
    yield Call("superactivators", skact.superactivators, {"estimator": detector, "X": scores})
    truth, maps = detector.superactivators(scores), skact.MeanPrototype().fit(tokens, y)
    for name in "token_f1", "token_iou":
        given = {"estimator": detector, "X": scores, "token_labels": truth}
        yield Call(f"{name}_scorer", getattr(skact, f"{name}_scorer"), given)
    for name in "token_average_precision", "pointing_game":
        given = {"estimator": maps, "X": tokens, "token_labels": truth}
        yield Call(f"{name}_scorer", getattr(skact, f"{name}_scorer"), given)
    yield Call("SparseAutoencoder.from_pretrained", skact.SparseAutoencoder.from_pretrained, _sae())


def _of_recorded():
    import pyarrow
    from safetensors.numpy import save_file

    folder = Path(tempfile.mkdtemp())
    states = RNG.random((4, 2, 5), np.float32)
    save_file({"token_ids": np.arange(4), "hidden_states": states}, folder / "a.safetensors")
    np.savez(folder / "a.npz", values=X.values, offsets=X.offsets)
    vllm = {"paths": [folder / "a.safetensors"], "layers": [3, 5]}
    yield Call("read_vllm", skact.read_vllm, vllm)
    yield Call("read_stacked", skact.read_stacked, {"arrays": [states], "blocks": [0, 2, 3, 4]})
    yield Call("read_flat", skact.read_flat, {"path": folder / "a.npz"})
    yield Call("read_padded", skact.read_padded, {"values": states, "mask": np.ones((4, 2))})
    column = pyarrow.array([[[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]]])
    yield Call("read_arrow", skact.read_arrow, {"column": column})


def _spans_folder():
    folder = Path(tempfile.mkdtemp())
    record = '{"id": "1", "text": "a b", "split": "train", "spans": [[0, 1, "x"]]}'
    (folder / "samples.jsonl").write_text(record)
    return folder


def _masks_folder():
    from PIL import Image

    folder = Path(tempfile.mkdtemp())
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    Image.new("L", (4, 4), 1).save(folder / "m.png")
    (folder / "classes.json").write_text('{"classes": {"1": "x"}}')
    record = '{"id": "1", "image": "a.png", "mask": "m.png", "labels": ["x"], "split": "train"}'
    (folder / "index.jsonl").write_text(record)
    return folder


def _sae():
    folder = Path(tempfile.mkdtemp())
    arrays = {"W_enc": np.ones((4, 6)), "b_enc": np.zeros(6), "W_dec": np.ones((6, 4))}
    arrays |= {"b_dec": np.zeros(4), "threshold": np.full(6, 0.5)}
    np.savez(folder / "params.npz", **{k: v.astype("f4") for k, v in arrays.items()})
    return {"path": folder}


def right_calls():
    """All of them."""
    for name, kwargs in _FUNCTIONS.items():
        yield Call(name, getattr(skact, name), kwargs)
    for some in (_of_token_estimators, _of_settings, _of_raw, _of_containers):
        yield from some()
    for some in (_of_concept_detector, _of_monitor, _of_heads, _of_files, _of_displays):
        yield from some()
    for some in (_of_analyses, _of_stores, _of_readers):
        yield from some()
    yield from _of_steering()
    yield from _of_algebra()
    yield from _of_recorded()
    yield from _of_pages()
    yield from _of_augmentation()
