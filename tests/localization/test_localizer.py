import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skact import (
    CrossFitTransformer,
    KMeansConcepts,
    MeanPrototype,
    SuperActivator,
    TokenArray,
    TokenScaler,
    TransformerEmbedder,
    token_f1_score,
)
from skact.localization import (
    LIME,
    METHODS,
    RISE,
    ConceptLocalizer,
    FullGrad,
    IntegratedGradients,
    LocalTarget,
    Target,
    _gradients,
)
from skact.localization._parts import take_apart
from skact.localization._samples import Samples
from skact.localization._targets import resolve_target
from skact.models import _hooks
from tests import tiny_models
from tests.watching import watch

ON_GAMES = ["lime", "kernel_shap", "rise", "shapiq"]
WITH_GRADIENTS = ["integrated_gradients", "full_grad", "mfaba"]


@pytest.fixture(autouse=True)
def _quiet():
    """Missing local targets are the rule; their warning has a test of its own."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*have no SuperActivator")
        yield


def samples_of(case, samples, target="global"):
    parts = take_apart(case.embedder, case.concepts, case.detector)
    return Samples(parts, resolve_target(target), samples)


@pytest.mark.parametrize("method", METHODS)
def test_planted_concepts_are_found(method, shapes, ranks):
    """Better than by chance: the mean rank of the object's patches over images and concepts."""
    maps = shapes.fitted(method=method, n_masks=100, n_steps=8).transform(shapes.samples)
    assert maps.shape == (9, 6)
    assert maps.feature_names == tuple(shapes.labels.feature_names)
    found = ranks(maps, shapes.labels)
    assert len(found) == 18
    assert found.mean() > 0.5 + 2 * found.std() / np.sqrt(len(found))


@pytest.mark.parametrize(
    ("case", "method"), [("shapes", "rise"), ("shapes", "mfaba"), *(("texts", m) for m in METHODS)]
)
def test_deterministic_and_independent_of_the_other_samples(method, case, request):
    case = request.getfixturevalue(case)
    fitted = case.fitted(method=method)
    few = case.samples[:2]
    first = fitted.transform(few)
    for i in (1, 0):
        alone = fitted.transform([few[i]])
        np.testing.assert_allclose(alone[0], first[i], atol=2e-5)
    again = case.fitted(method=method).transform(few)
    np.testing.assert_array_equal(again.flat(), first.flat())
    if method in ON_GAMES:
        other = case.fitted(method=method, random_state=1).transform(few)
        assert not np.allclose(other.flat(), first.flat(), atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_random_weights_change_the_maps(method, texts):
    fitted = texts.fitted(method=method)
    before = fitted.transform(texts.samples[:3])
    torch.manual_seed(3)
    model, tokenizer = tiny_models.text_pair("bert")
    other = type(model)(model.config).eval()
    embedder = TransformerEmbedder((other, tokenizer), layer=2)
    # The source of the activations is another one, which would be refused.
    concepts, detector = clone(texts.concepts), clone(texts.detector)
    tokens = embedder.transform(texts.samples)
    concepts.fit(tokens, texts.y, texts.labels)
    detector.fit(concepts.transform(tokens), texts.y, texts.labels)
    changed = fitted.set_params(embedder=embedder, concepts=concepts, detector=detector)
    changed = changed.transform(texts.samples[:3])
    fitted.set_params(embedder=texts.embedder, concepts=texts.concepts, detector=texts.detector)
    same = fitted.transform(texts.samples[:3])
    np.testing.assert_array_equal(before.flat(), same.flat())
    similarity = np.corrcoef(before.flat()[:, 0], changed.flat()[:, 0])[0, 1]
    assert similarity < 0.95


def test_direct_alignment_is_the_cosine_with_either_target(shapes):
    tokens = shapes.concepts[0].transform(shapes.embedder.transform(shapes.samples))
    vectors = shapes.concepts[-1].concept_vectors_
    maps = shapes.fitted(method="direct").transform(shapes.samples)
    for z, found in zip(tokens, maps, strict=True):
        slow = z @ vectors.T / np.linalg.norm(z, axis=1)[:, None] / np.linalg.norm(vectors, axis=1)
        np.testing.assert_allclose(found, slow, atol=1e-6)
    marks = shapes.detector.superactivators(shapes.concepts[-1].transform(tokens))
    local = shapes.fitted(method="direct", target="local").transform(shapes.samples)
    np.testing.assert_array_equal(np.isnan(local.max()), ~marks.max())
    for z, marked, found in zip(tokens, marks, local, strict=True):
        for c in np.flatnonzero(marked.any(axis=0)):
            t = z[marked[:, c]].mean(axis=0)
            slow = z @ t / np.linalg.norm(z, axis=1) / np.linalg.norm(t)
            np.testing.assert_allclose(found[:, c], slow, atol=1e-6)


def test_games_are_the_explained_function(shapes):
    """All kept: the mean of direct alignment. The batch size changes nothing."""
    localizer = shapes.fitted()
    few = shapes.samples[:2]
    maps = localizer.transform(few)
    games = list(localizer.games(few))
    masks = np.random.default_rng(0).random((9, 64)) < 0.5
    for game, direct in zip(games, maps, strict=True):
        assert (game.n_players, game.n_targets) == (64, 6)
        np.testing.assert_array_equal(game.players, np.arange(64))
        np.testing.assert_allclose(game(np.ones((1, 64), bool))[0], direct.mean(axis=0), atol=1e-6)
        one_by_one = np.concatenate([game(mask[None]) for mask in masks])
        np.testing.assert_allclose(game(masks), one_by_one, atol=1e-6)
        assert game(masks).std(axis=0).min() > 1e-4
        assert game(np.empty((0, 64), bool)).shape == (0, 6)
    with pytest.raises(ValueError, match=r"masks must be bool of shape \(n_masks, 64\), got int64"):
        games[0](np.ones((1, 64), int))


def test_games_have_nan_for_a_missing_target(shapes):
    localizer = shapes.localizer(target="local")
    marks = shapes.detector.superactivators(
        shapes.concepts.transform(shapes.embedder.transform(shapes.samples))
    )
    for game, marked in zip(localizer.games(shapes.samples), marks, strict=True):
        values = game(np.ones((1, game.n_players), bool))[0]
        np.testing.assert_array_equal(np.isnan(values), ~marked.any(axis=0))


@pytest.mark.parametrize("case", ["shapes", "texts"])
def test_integrated_gradients_are_complete(case, request):
    """The attributions add up to the difference of g between sample and baseline."""
    case = request.getfixturevalue(case)
    localizer = case.fitted(method="integrated_gradients", n_steps=100)
    total = localizer.transform(case.samples[:1]).sum()[0]
    (game,) = localizer.games(case.samples[:1])
    inputs = samples_of(case, case.samples[:1]).sample(0).input_function.inputs
    start = inputs.values.clone()
    start[inputs.positions] = start[inputs.positions].mean(dim=0)
    with inputs.differentiable() as state, torch.no_grad():
        ends = game.explained(state(torch.stack([start, inputs.values]))).numpy()
    np.testing.assert_allclose(total, ends[1] - ends[0], atol=1e-3)
    np.testing.assert_allclose(ends[1], game(np.ones((1, game.n_players), bool))[0], atol=1e-5)
    assert np.abs(ends[1] - ends[0]).max() > 1e-2


@pytest.mark.parametrize("n_steps", [1, 7])
def test_the_steps_of_mfaba_add_up_to_the_way_to_the_baseline(n_steps, shapes, monkeypatch):
    seen = []

    def walk(value, inputs, *, step, n_steps, clamp):
        seen.append(step * n_steps)
        assert clamp(torch.tensor([-1.0, 0.5, 2.0])).tolist() == [0, 0.5, 1]
        assert inputs.eq(1).all()
        return np.zeros((len(inputs), 6))

    sample = samples_of(shapes, shapes.samples[:1]).sample(0)
    monkeypatch.setattr(_gradients, "mfaba", walk)
    sample.input_function.mfaba(n_steps)
    n_tokens = len(sample.tokens)
    # From all present, alpha = 1, to none, alpha = 0: as long as the vector of ones.
    np.testing.assert_allclose(seen, [np.linalg.norm(np.ones(n_tokens))])


@pytest.mark.parametrize("method", ON_GAMES)
def test_all_concepts_share_the_forward_passes(method, shapes):
    def n_copies(columns):
        concepts = MeanPrototype().fit(tokens, y[:, columns], token_labels[:, columns])
        detector = SuperActivator().fit(
            concepts.transform(tokens), y[:, columns], token_labels[:, columns]
        )
        localizer = shapes.localizer(method, n_masks=70)
        localizer.set_params(concepts=concepts, detector=detector)
        localizer.fit(shapes.samples[:2], y[:2][:, columns], token_labels[:2][:, columns])
        seen = []
        base = shapes.embedder._load().base
        handle = watch(
            base,
            lambda module, args, kwargs: seen.append(len(kwargs["pixel_values"])),
            with_kwargs=True,
        )
        localizer.transform(shapes.samples[:1])
        handle.remove()
        return sum(seen)

    class Columns:
        def __init__(self, values):
            self.values = values

        def __getitem__(self, key):
            if isinstance(key, tuple):
                part = TokenArray.from_list(list(self.values[key[0]]))
                return part.with_values(part.flat()[:, key[1]])
            return Columns(self.values[key])

    rng = np.random.default_rng(0)
    tokens = shapes.embedder.transform(shapes.samples)
    marks = rng.random((tokens.n_tokens, 20)) < 0.3
    token_labels = Columns(tokens.with_values(marks))
    y = np.ones((len(tokens), 20), int)
    assert n_copies(np.arange(20)) == n_copies(np.arange(1)) <= 73


def test_blocks_beyond_the_layer_are_not_run(shapes):
    blocks = shapes.embedder._load().blocks
    seen = []
    handles = [
        watch(block, after=True, hook=lambda m, a, o, b=b: seen.append(b))
        for b, block in enumerate(blocks)
    ]
    for method in ("rise", "integrated_gradients", "full_grad", "mfaba", "direct"):
        shapes.fitted(method=method).transform(shapes.samples[:1])
    for handle in handles:
        handle.remove()
    assert set(seen) == {0, 1, 2, 3}


def test_threshold_is_the_best_cut_and_predict_applies_it(shapes):
    fitted = shapes.fitted(method="direct")
    maps, truth = fitted.transform(shapes.samples), shapes.labels.flat()
    for c, threshold in enumerate(fitted.thresholds_):
        f1 = [
            2
            * (truth[:, c] & (maps.flat()[:, c] >= cut)).sum()
            / (truth[:, c].sum() + (maps.flat()[:, c] >= cut).sum())
            for cut in maps.flat()[:, c]
        ]
        best = (maps.flat()[:, c] >= threshold, np.max(f1))
        np.testing.assert_allclose(
            2 * (truth[:, c] & best[0]).sum() / (truth[:, c].sum() + best[0].sum()), best[1]
        )
    marks = fitted.predict(shapes.samples)
    np.testing.assert_array_equal(marks.flat(), maps.flat() >= fitted.thresholds_)
    score = fitted.score(shapes.samples, shapes.y, token_labels=shapes.labels)
    assert score == token_f1_score(shapes.labels, marks) > 0.8
    assert fitted.get_feature_names_out().tolist() == list(shapes.labels.feature_names)
    assert fitted.score(shapes.samples, shapes.y) < score


def test_binary_targets(shapes):
    tokens = shapes.embedder.transform(shapes.samples)
    y = np.where(shapes.y[:, 0], "red", "other")
    labels = shapes.labels.columns([0])
    concepts = MeanPrototype().fit(tokens, y == "red", labels)
    detector = SuperActivator().fit(concepts.transform(tokens), y == "red", labels)
    localizer = ConceptLocalizer(shapes.embedder, concepts, detector, target="global")
    # "red" is the larger class; a part without it can still be scored.
    localizer.fit(shapes.samples, y, token_labels=labels)
    assert localizer.score(shapes.samples, y, token_labels=labels) > 0.5
    other = np.flatnonzero(y == "other")
    part = [shapes.samples[i] for i in other]
    assert localizer.score(part, y[other], token_labels=labels[other]) == 0


def test_missing_local_targets_are_reported(shapes):
    localizer = shapes.localizer(target=LocalTarget())
    # Nothing reaches this threshold, so no sample has a SuperActivator of the first concept.
    strict = clone(shapes.detector).set_params(delta=0.001)
    tokens = shapes.embedder.transform(shapes.samples)
    strict.fit(shapes.concepts.transform(tokens), shapes.y, shapes.labels)
    strict.thresholds_[0] = np.inf
    localizer.set_params(detector=strict)
    with pytest.warns(UserWarning, match="samples that hold the concept have no SuperActivator"):
        localizer.fit(shapes.samples, shapes.y, token_labels=shapes.labels)
    assert localizer.without_target_[0] == shapes.y[:, 0].sum()
    assert localizer.thresholds_[0] == np.inf
    with pytest.warns(UserWarning, match="their maps are NaN and their predictions False"):
        maps = localizer.transform(shapes.samples)
    assert np.isnan(maps.flat()[:, 0]).all()
    for method in ("rise", "full_grad"):
        alone = localizer.set_params(method=method).transform(shapes.samples[:1])
        np.testing.assert_array_equal(np.isnan(alone.flat()), np.isnan(maps[:1].flat()))
    assert not localizer.predict(shapes.samples).flat()[:, 0].any()


class NearVector(Target):
    """The token that is nearest to the concept vector; none for the second concept."""

    def vectors(self, tokens, marks, concept_vectors):
        nearest = tokens[(tokens @ concept_vectors.T).argmax(axis=0)].astype(np.float64)
        nearest[1] = np.nan
        return nearest


class FarVector(NearVector):
    missing = "have no token that is far"


@pytest.mark.parametrize(
    ("target", "said"), [(NearVector(), "have no target"), (FarVector(), FarVector.missing)]
)
def test_a_target_says_itself_why_it_is_missing(target, said, shapes):
    localizer = shapes.localizer(target=target)
    n = shapes.y[:, 1].sum()
    end = "their maps are NaN and their predictions False."
    with pytest.warns(UserWarning, match=f"^{n} samples that hold the concept {said}: {end}$"):
        localizer.fit(shapes.samples, shapes.y, token_labels=shapes.labels)
    with pytest.warns(UserWarning, match=f"^9 pairs of sample and concept {said}: {end}$"):
        localizer.transform(shapes.samples)
    np.testing.assert_array_equal(localizer.without_target_, n * (np.arange(6) == 1))


@pytest.mark.parametrize("method", METHODS)
def test_samples_without_any_target_are_mapped_to_nothing(method, texts):
    tokens = texts.concepts.transform(texts.embedder.transform(texts.samples))
    there = texts.detector.superactivators(tokens).max().any(axis=1)
    assert 0 < there.sum() < len(there)
    maps = texts.fitted(method=method, target="local").transform(
        [sample for sample, held in zip(texts.samples, there, strict=True) if not held]
    )
    assert np.isnan(maps.flat()).all()


def test_global_targets_never_warn(shapes):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shapes.fitted(method="direct").transform(shapes.samples)


def test_method_and_target_are_hyperparameters(shapes, routing):
    search = GridSearchCV(
        shapes.localizer(),
        {"method": ["direct", "grad_cam", "full_grad"], "target": ["global", "local"]},
        cv=[(np.arange(9), np.arange(4)), (np.arange(9), np.arange(4, 9))],
        error_score="raise",
    ).fit(shapes.samples, shapes.y, token_labels=shapes.labels)
    scores = search.cv_results_["mean_test_score"]
    assert len(scores) == 6
    assert len(set(scores)) > 3
    assert search.best_params_["method"] in ("direct", "grad_cam")


def test_settings_of_a_method_are_hyperparameters(shapes, routing):
    rows, everything = [0, 4, 7], range(3)  # each concept once
    samples, y, labels = [shapes.samples[i] for i in rows], shapes.y[rows], shapes.labels[rows]
    search = GridSearchCV(
        shapes.localizer("rise"),
        [{"method__n_masks": [66, 80]}, {"method__n_masks": [66], "method__baseline": ["black"]}],
        cv=[(everything, everything)],
        error_score="raise",
    ).fit(samples, y, token_labels=labels)
    assert len(set(search.cv_results_["mean_test_score"])) == 3
    best = search.best_estimator_
    again = clone(best).fit(samples, y, token_labels=labels)
    np.testing.assert_array_equal(again.transform(samples).flat(), best.transform(samples).flat())


def test_clones_share_the_fitted_parts(shapes, routing):
    fitted = shapes.fitted().set_fit_request(token_labels=False)
    twin = clone(fitted)
    assert twin.get_metadata_routing().fit.requests["token_labels"] is False
    assert twin.concepts is shapes.concepts
    assert twin.detector is shapes.detector
    assert twin.embedder is shapes.embedder
    assert not hasattr(twin, "thresholds_")
    with pytest.raises(NotFittedError):
        twin.transform(shapes.samples)


def test_wrappers_are_opened(shapes):
    plain = shapes.fitted().transform(shapes.samples[:2])
    wrapped = shapes.fitted()
    scaler, separator = (step for _, step in shapes.concepts.steps)
    pipe = make_pipeline(FrozenEstimator(scaler), FrozenEstimator(separator))
    wrapped.set_params(concepts=FrozenEstimator(pipe), detector=FrozenEstimator(shapes.detector))
    np.testing.assert_array_equal(wrapped.transform(shapes.samples[:2]).flat(), plain.flat())
    scores = shapes.concepts.transform(shapes.embedder.transform(shapes.samples))
    everything = np.arange(9)
    search = GridSearchCV(SuperActivator(), {"delta": [0.2]}, cv=[(everything, everything)])
    search.fit(scores, shapes.y)
    wrapped.set_params(detector=search)
    np.testing.assert_array_equal(wrapped.transform(shapes.samples[:2]).flat(), plain.flat())


def test_cross_fitted_concepts(shapes):
    tokens = shapes.embedder.transform(shapes.samples)
    concepts = CrossFitTransformer(MeanPrototype(), cv=2, random_state=0)
    scores = concepts.fit_transform(tokens, shapes.y, shapes.labels)
    detector = SuperActivator().fit(scores, shapes.y, shapes.labels)
    localizer = ConceptLocalizer(shapes.embedder, concepts, detector, target="global")
    localizer.fit(shapes.samples, shapes.y, token_labels=shapes.labels)
    assert localizer.score(shapes.samples, shapes.y, token_labels=shapes.labels) > 0.5


def test_units_take_the_matched_column(shapes):
    tokens = shapes.embedder.transform(shapes.samples)
    concepts = KMeansConcepts(12, random_state=0).fit(tokens)
    detector = SuperActivator().fit(concepts.transform(tokens), shapes.y, shapes.labels)
    localizer = ConceptLocalizer(shapes.embedder, concepts, detector, target="global")
    maps = localizer.fit(shapes.samples, shapes.y, shapes.labels).transform(shapes.samples)
    vectors = concepts.concept_vectors_[detector.matched_columns_]
    slow = tokens.flat() @ vectors.T / np.linalg.norm(tokens.flat(), axis=1)[:, None]
    np.testing.assert_allclose(maps.flat(), slow / np.linalg.norm(vectors, axis=1), atol=1e-5)


def test_words_share_their_value(texts):
    # Tiny word pieces: most words are several tokens.
    localizer = texts.fitted(method="kernel_shap", unit="word", n_masks=40)
    maps = localizer.transform(texts.samples)
    several = 0
    for game, attributions in zip(localizer.games(texts.samples), maps, strict=True):
        for player in range(game.n_players):
            rows = attributions[game.players == player]
            several += len(rows) > 1
            assert (rows == rows[0]).all()
    assert several > 5
    assert [g.n_players for g in localizer.games(texts.samples)] == [
        len(text.split()) for text in texts.samples
    ]


def test_interactions(texts):
    localizer = texts.fitted(method="shapiq", n_masks=300)
    for game, pairs in zip(
        localizer.games(texts.samples[:2]), localizer.interactions(texts.samples[:2]), strict=True
    ):
        assert pairs.shape == (2, game.n_players, game.n_players)
        np.testing.assert_allclose(pairs, pairs.swapaxes(1, 2), atol=1e-10)
        assert np.abs(pairs).max() > 1e-4


def test_interactions_of_a_missing_target_are_nan(texts):
    localizer = texts.fitted(method="shapiq", n_masks=40, target="local")
    everywhere = texts.fitted(method="shapiq", n_masks=40).interactions(texts.samples)
    tokens = texts.concepts.transform(texts.embedder.transform(texts.samples))
    there = texts.detector.superactivators(tokens).max()
    assert {(True, False), (False, False)} <= set(map(tuple, there.tolist()))
    found = localizer.interactions(texts.samples)
    for pairs, like, held in zip(found, everywhere, there, strict=True):
        assert pairs.shape == like.shape
        np.testing.assert_array_equal(np.isnan(pairs).all(axis=(1, 2)), ~held)
        assert np.isfinite(pairs[held]).all()
        assert np.isfinite(like).all()


def test_the_model_is_left_as_it_was(shapes):
    base = shapes.embedder._load().base
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in base.modules()]
    modes = [m.training for m in base.modules()]
    needs = [p.requires_grad for p in base.parameters()]
    assert any(needs)
    for method in WITH_GRADIENTS:
        shapes.fitted(method=method).transform(shapes.samples[:1])
    after = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in base.modules()]
    assert after == hooks
    assert [m.training for m in base.modules()] == modes
    assert [p.requires_grad for p in base.parameters()] == needs
    assert all(p.grad is None for p in base.parameters())


def unfitted(case):
    return {"concepts": MeanPrototype()}


def other_layer(case):
    return {"embedder": clone(case.embedder).set_params(layer=1)}


def other_width(case):
    pair = tiny_models.image_pair("vit")
    tokens = [np.ones((2, 5)), np.zeros((2, 5))]
    concepts = MeanPrototype().fit(tokens, [0, 1])
    return {"embedder": TransformerEmbedder(pair), "concepts": concepts}


def other_scaling(case):
    tokens = case.embedder.transform(case.samples)
    concepts = make_pipeline(TokenScaler(with_mean=False), MeanPrototype()).fit(tokens, case.y)
    return {"concepts": concepts}


def other_number(case):
    tokens = case.embedder.transform(case.samples)
    scores = case.concepts.transform(tokens).columns([0, 1])
    return {"detector": SuperActivator().fit(scores, case.y[:, :2])}


def other_names(case):
    tokens = case.embedder.transform(case.samples)
    labels = case.labels.with_values(case.labels.flat(), [f"no {n}" for n in "abcdef"])
    scores = case.concepts.transform(tokens)
    return {"detector": SuperActivator().fit(scores, case.y, labels)}


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"method": "gradcam"}, ValueError, "The 'method' parameter of ConceptLocalizer must be"),
        ({"target": "both"}, ValueError, 'target must be "local", "global"'),
        ({"method": RISE(n_masks=1)}, ValueError, "The 'n_masks' parameter of RISE must be"),
        ({"method": RISE(unit="letter")}, ValueError, "The 'unit' parameter of RISE must be"),
        ({"method": RISE}, ValueError, "The 'method' parameter of ConceptLocalizer must be"),
        ({"embedder": StandardScaler()}, TypeError, "embedder must be a TransformerEmbedder, got"),
        ({"embedder__layer": [1, 3]}, ValueError, r"embedder must read one layer, got layer=\[1"),
        ({"embedder__site": "mlp"}, ValueError, "must read the residual stream, got site='mlp'"),
        ({"embedder__pooling": "mean"}, ValueError, "must keep the tokens, got pooling='mean'"),
        ({"embedder__special_tokens": True}, ValueError, "must leave special tokens out"),
        ({"concepts": StandardScaler()}, NotFittedError, "StandardScaler instance is not fitted"),
        ({"concepts": None}, TypeError, "concepts must end in a concept method, got NoneType"),
        ({"concepts": TokenScaler()}, NotFittedError, "TokenScaler instance is not fitted"),
        (unfitted, NotFittedError, "MeanPrototype instance is not fitted"),
        ({"detector": MeanPrototype()}, TypeError, "detector must be a detector such as"),
        ({"detector": SuperActivator()}, NotFittedError, "SuperActivator instance is not fitted"),
        (
            other_layer,
            ValueError,
            "reads another block than concepts were fitted on.*block 3.*block 1",
        ),
        (other_width, ValueError, "embedder gives 32 features, concepts were fitted on 5"),
        (other_scaling, ValueError, "detector was fitted on scores of another scaling"),
        (other_number, ValueError, "fitted on 2 score columns, concepts give 6: .* other concepts"),
        (other_names, ValueError, "fitted on other concepts: it detects .'no a'.*score .'red'"),
        (
            {"method": RISE(n_masks=64)},
            ValueError,
            "n_masks=64 is too small: sample 0 has 64 players",
        ),
        (
            {"method": RISE(baseline="mask")},
            ValueError,
            "baseline='mask' is not for images; use one of",
        ),
    ],
)
def test_bad_parts(change, error, match, shapes):
    params = change(shapes) if callable(change) else dict(change)
    nested = {k: v for k, v in params.items() if k.startswith("embedder__")}
    if nested:
        own = {k.removeprefix("embedder__"): v for k, v in nested.items()}
        params = {"embedder": clone(shapes.embedder).set_params(**own)}
    localizer = shapes.localizer().set_params(**params)
    with pytest.raises(error, match=match):
        localizer.fit(shapes.samples, shapes.y, token_labels=shapes.labels)


def test_bad_pipelines(shapes):
    tokens = shapes.embedder.transform(shapes.samples)
    method = MeanPrototype().fit(tokens, shapes.y, shapes.labels)
    localizer = shapes.localizer()
    for concepts, match in [
        (make_pipeline(method, MeanPrototype()), "got the step MeanPrototype"),
        (TokenScaler().fit(tokens), "with concept_vectors_, which TokenScaler does not have"),
    ]:
        with pytest.raises(TypeError, match=match):
            localizer.set_params(concepts=concepts).fit(shapes.samples, shapes.y)


def test_bad_labels(shapes):
    names = list(shapes.labels.feature_names)
    renamed = shapes.labels.with_values(shapes.labels.flat(), names[::-1])
    for y, labels, match in [
        (shapes.y[:, :2], None, "y has 2 concepts, detector detects 6"),
        (shapes.y, renamed, "the labels name the concepts .'sphere'"),
        (shapes.y[:3], None, "y has 3 samples, X has 9"),
        (shapes.y, shapes.labels[:3], "token_labels has 3 samples, X has 9"),
    ]:
        with pytest.raises(ValueError, match=match):
            shapes.localizer().fit(shapes.samples, y, token_labels=labels)


def test_budget_counts_words_where_words_are_players(texts):
    with pytest.raises(ValueError, match="n_masks=9 is too small: sample 5 has 17 players"):
        texts.fitted(method="rise", n_masks=9).transform(texts.samples)
    words = texts.localizer(method="rise", n_masks=9, unit="word")
    assert words.fit(texts.samples, texts.y).thresholds_.shape == (2,)
    with pytest.raises(ValueError, match="n_masks=7 is too small: sample 0 has 7 players"):
        texts.fitted(method="rise", n_masks=7, unit="word").transform(texts.samples)


@pytest.mark.parametrize("method", WITH_GRADIENTS)
def test_a_model_without_gradients(method, shapes):
    block = shapes.embedder._load().blocks[1]

    def detach(module, args, output):
        return tuple(o.detach() for o in output) if isinstance(output, tuple) else output.detach()

    handle = watch(block, detach, after=True)
    try:
        with pytest.raises(
            ValueError, match=rf'method="{method}" needs gradients.*Methods that wo'
        ):
            shapes.localizer(method=method).fit(shapes.samples, shapes.y)
        shapes.fitted(method="rise", n_masks=70).transform(shapes.samples[:1])
    finally:
        handle.remove()


def test_other_errors_of_the_model_pass_through(shapes):
    def fail(module, args):
        raise RuntimeError("out of order")

    handle = watch(shapes.embedder._load().blocks[1], fail)
    try:
        with pytest.raises(RuntimeError, match="out of order"):
            FullGrad().check(samples_of(shapes, shapes.samples[:1]).first())
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("method", "library"),
    [
        ("lime", "captum"),
        ("kernel_shap", "captum"),
        ("integrated_gradients", "captum"),
        ("shapiq", "shapiq"),
    ],
)
def test_missing_library(method, library, shapes, monkeypatch):
    for name in [*sys.modules, library]:
        if name.split(".")[0] == library:
            monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf'method="{method}" needs {library}, which is not'):
        shapes.localizer(method=method).fit(shapes.samples, shapes.y)


def test_eight_threads_map_as_one_does(texts):
    """With gradients, hooks, modes and draws: all that threads share of a model and of torch."""
    named, few = [m for m in METHODS if m != "calm"], texts.samples[:3]
    fitted = {m: texts.fitted(method=m, n_masks=60) for m in named}
    expected = {m: fitted[m].transform(few).flat() for m in named}

    def same(method):
        return np.array_equal(fitted[method].transform(few).flat(), expected[method])

    model = texts.embedder.model[0]
    before = [(p.requires_grad, m.training) for m in model.modules() for p in m.parameters()]
    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(same, named * 3))
    after = [(p.requires_grad, m.training) for m in model.modules() for p in m.parameters()]
    assert after == before
    assert not any(m._forward_hooks.keys() & _hooks._OURS.keys() for m in model.modules())


def test_a_search_in_threads_finds_what_one_without_finds(texts):
    def search():
        walk, masks = IntegratedGradients(n_steps=5), LIME(n_masks=40)
        grid = {"method": [walk, "full_grad", masks, "direct"]}
        localizer = texts.localizer().set_params(target="global")
        search = GridSearchCV(localizer, grid, cv=2, refit=False, error_score="raise", n_jobs=4)
        return search.fit(texts.samples, texts.y, token_labels=texts.labels).cv_results_

    with sklearn.config_context(enable_metadata_routing=True):
        with joblib.parallel_config("threading"):
            threaded = search()
        with joblib.parallel_config("sequential"):
            alone = search()
    assert np.ptp(alone["mean_test_score"]) > 0
    for name in ("split0_test_score", "split1_test_score"):
        assert threaded[name].tolist() == alone[name].tolist()


def test_of_several_classes_each_is_a_concept(texts):
    y = np.array(["animal", "mood", "thing", "animal", "mood", "thing"])
    tokens = texts.embedder.transform(texts.samples)
    concepts = MeanPrototype().fit(tokens, y)
    detector = SuperActivator(0.5).fit(concepts.transform(tokens), y)
    localizer = ConceptLocalizer(texts.embedder, concepts, detector, method="direct")
    indicator = (y[:, None] == np.unique(y)).astype(int)
    expected = clone(localizer).set_params(target="global", random_state=0)
    expected.fit(texts.samples, indicator)
    found = clone(localizer).set_params(target="global", random_state=0).fit(texts.samples, y)
    assert found.classes_.tolist() == found.concept_names_.tolist() == sorted(set(y))
    np.testing.assert_array_equal(found.thresholds_, expected.thresholds_)
    assert found.score(texts.samples, y) == expected.score(texts.samples, indicator)
    # A part need not hold every class.
    assert 0 <= found.score(texts.samples[:2], y[:2]) <= 1
