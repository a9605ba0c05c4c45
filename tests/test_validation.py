"""Every input that is taken means the same tokens, and every bad one ends in one clear error."""

import re

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skact import (
    CrossFitTransformer,
    LayerStack,
    LinearSeparator,
    MaxToken,
    MeanPrototype,
    SelectLayer,
    Source,
    SuperActivator,
    TokenArray,
    TokenScaler,
    check_tokens,
)
from skact.rows import Mapped
from skact.validation import like_input

ESTIMATORS = [TokenScaler(), MeanPrototype(), LinearSeparator(), SuperActivator(), MaxToken()]


def names(estimators):
    return pytest.mark.parametrize("estimator", estimators, ids=lambda e: type(e).__name__)


@pytest.fixture
def samples(rng):
    return [rng.normal(size=(n, 3)) for n in (2, 1, 4, 3, 2, 5)]


@pytest.fixture
def y():
    return np.array([0, 1, 0, 1, 1, 0])


def assert_same(tokens, samples, dtype=None):
    assert isinstance(tokens, TokenArray)
    assert tokens.lengths.tolist() == [len(s) for s in samples]
    for token, sample in zip(tokens, samples, strict=True):
        np.testing.assert_array_equal(token, sample)
    assert dtype is None or tokens.dtype == dtype


def ragged_forms(samples):
    torch = pytest.importorskip("torch")
    objects = np.empty(len(samples), object)
    objects[:] = samples
    tensors = [torch.tensor(s, requires_grad=True) for s in samples]
    return {
        "tokens": TokenArray.from_list(samples),
        "view": TokenArray.from_list(samples[::-1])[::-1],
        "list": list(samples),
        "tuple": tuple(samples),
        "objects": objects,
        "tensors": tensors,
    }


@pytest.mark.parametrize("form", ["tokens", "view", "list", "tuple", "objects", "tensors"])
def test_all_ragged_forms_are_the_same_tokens(samples, form):
    X = ragged_forms(samples)[form]
    estimator = MeanPrototype()
    tokens = check_tokens(estimator, X)
    assert_same(tokens, samples, np.float64)
    assert estimator.n_features_in_ == 3
    assert like_input(X, tokens) is tokens


@pytest.mark.parametrize("form", ["array", "tensor", "list"])
def test_a_cube_is_samples_of_equal_length(rng, form):
    torch = pytest.importorskip("torch")
    cube = rng.normal(size=(4, 5, 3)).astype(np.float32)
    X = {"array": cube, "tensor": torch.tensor(cube), "list": list(cube)}[form]
    tokens = check_tokens(MeanPrototype(), X)
    assert_same(tokens, list(cube), np.float32)
    assert like_input(X, tokens) is tokens


@pytest.mark.parametrize("form", ["array", "fortran", "tensor", "list", "frame", "ragged"])
def test_a_matrix_is_one_token_per_sample(rng, form):
    torch = pytest.importorskip("torch")
    matrix = rng.normal(size=(4, 3))
    X = {
        "array": matrix,
        "fortran": np.asfortranarray(matrix),
        "tensor": torch.tensor(matrix),
        "list": matrix.tolist(),
        "frame": pd.DataFrame(matrix, columns=list("abc")),
        "ragged": [row[None] for row in matrix],
    }[form]
    estimator = MeanPrototype()
    tokens = check_tokens(estimator, X)
    assert_same(tokens, [row[None] for row in matrix], np.float64)
    assert tokens.values.flags.c_contiguous
    assert (like_input(X, tokens) is tokens) == (form == "ragged")
    assert hasattr(estimator, "feature_names_in_") == (form == "frame")


@pytest.mark.parametrize("ndim", [2, 3])
def test_bfloat16_becomes_float32(ndim):
    torch = pytest.importorskip("torch")
    X = torch.tensor([[0.5, 3.0], [1.0, -2.0]], dtype=torch.bfloat16)
    tokens = check_tokens(MeanPrototype(), X if ndim == 2 else X[None])
    assert tokens.dtype == np.float32
    np.testing.assert_array_equal(tokens.flat(), [[0.5, 3], [1, -2]])


def test_storage_precisions_stay_and_integers_become_floats():
    for dtype in (np.float16, np.float32, np.float64):
        assert check_tokens(MeanPrototype(), np.ones((2, 3), dtype)).dtype == dtype
        assert check_tokens(MeanPrototype(), [np.ones((2, 3), dtype)]).dtype == dtype
    assert check_tokens(MeanPrototype(), np.ones((2, 3), int)).dtype == np.float64
    assert check_tokens(MeanPrototype(), [np.ones((2, 3), int)]).dtype == np.float32
    marks = TokenArray(np.ones((2, 1), bool), [0, 2])
    assert check_tokens(SuperActivator(), marks) is marks


def stored(tmp_path, tokens):
    """The same tokens in a file."""
    tokens.values.tofile(tmp_path / "values")
    values = np.memmap(tmp_path / "values", tokens.dtype, "r").reshape(-1, tokens.n_features)
    return TokenArray(values, tokens.offsets, tokens.index)


@pytest.mark.parametrize("working_memory", [0, 1024])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, bool])
def test_a_check_changes_tokens_on_disk_no_more_than_those_in_memory(
    samples, y, tmp_path, working_memory, dtype
):
    held = TokenArray.from_list([(s > 0).astype(dtype) for s in samples])[::-1]
    tokens = stored(tmp_path, held)
    with config_context(working_memory=working_memory):
        checked = check_tokens(MeanPrototype(), tokens)
        assert isinstance(checked.values, Mapped) == (working_memory == 0)
        assert checked.index is tokens.index
        for one, other in zip(checked, check_tokens(MeanPrototype(), held), strict=True):
            np.testing.assert_array_equal(one, other, strict=True)
            assert one.dtype == dtype
        # Half precision and marks are computed with in single precision all the same.
        scaled, expected = TokenScaler().fit_transform(tokens), TokenScaler().fit_transform(held)
        assert scaled.dtype == (np.float64 if dtype == np.float64 else np.float32)
        np.testing.assert_array_equal(scaled.flat(), expected.flat())


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(("value", "what"), [(np.nan, "NaN"), (-np.inf, "infinity")])
def test_a_bad_token_on_disk_is_named_when_it_is_read(samples, tmp_path, dtype, value, what):
    samples = [s.astype(dtype) for s in samples]
    samples[3][1, 2] = value
    tokens = stored(tmp_path, TokenArray.from_list(samples))[[5, 3]]
    with config_context(working_memory=0):
        checked = check_tokens(MeanPrototype(), tokens)
        for read in (checked.flat, checked.max, lambda: checked[1]):
            with pytest.raises(
                ValueError, match=f"{what}, first at sample 1, token 1, feature 2; MeanPrototype"
            ):
                read()
        np.testing.assert_array_equal(checked[0], samples[5], strict=True)
        # A token that is not shown may be anything, even where it is read with those beside it.
        rest = check_tokens(MeanPrototype(), tokens[:1])
        np.testing.assert_array_equal(rest.values[:], np.concatenate(samples))


@pytest.mark.parametrize("working_memory", [0, 1024])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(("value", "what"), [(np.nan, "NaN"), (np.inf, "inf"), (-np.inf, "inf")])
@pytest.mark.parametrize("position", [(0, 0, 0), (2, 3, 1), (5, 4, 2), (3, 0, 2)])
def test_the_first_bad_token_is_named(samples, working_memory, dtype, value, what, position):
    samples = [s.astype(dtype) for s in samples]
    sample, token, feature = position
    samples[sample][token, feature] = value
    samples[5][4, 2] = value  # a later one, which must not be named
    samples[5][3, 2] = 7
    message = rf"contains {what}\w*, first at sample {sample}, token {token}, feature {feature};"
    with config_context(working_memory=working_memory):
        for X in (samples, TokenArray.from_list(samples)):
            with pytest.raises(ValueError, match=message):
                check_tokens(MeanPrototype(), X)
        # In a view, samples are counted as shown.
        shown = TokenArray.from_list(samples)[[sample, sample]]
        with pytest.raises(ValueError, match=f"first at sample 0, token {token},"):
            check_tokens(MeanPrototype(), shown)
        rest = TokenArray.from_list(samples)[[i for i in range(6) if i not in (sample, 5)]]
        check_tokens(MeanPrototype(), rest)


def test_opposite_infinities_and_large_numbers_are_told_apart():
    with pytest.raises(ValueError, match="infinity, first at sample 1, token 0, feature 0"):
        check_tokens(MeanPrototype(), np.array([[1.0, 1.0], [np.inf, -np.inf]]))
    for dtype in (np.float16, np.float32, np.float64):
        largest = np.full((9, 2), np.finfo(dtype).max)
        assert check_tokens(MeanPrototype(), largest.astype(dtype)).shape == (9, 2)


TOKENS = TokenArray(np.ones((4, 3)), [0, 2, 4])


@names(ESTIMATORS)
@pytest.mark.parametrize(
    ("X", "message"),
    [
        (LayerStack({2: TOKENS, 5: TOKENS}), r"LayerStack of blocks \[2, 5\].*NAME takes one"),
        ("a text", "X holds text, but NAME takes.*TransformerEmbedder"),
        (["a text", "another"], "X holds text, but NAME takes.*TransformerEmbedder"),
        (("a text",), "X holds text"),
        (np.array(["a text", "another"]), "X holds text"),
        (pd.Series(["a text", "another"]), "X holds text"),
        (np.ones(3), "Expected 2D array, got 1D array"),
        (np.float64(3), "Expected 2D array, got scalar array"),
        (np.ones((2, 2, 2, 2)), "dim 4|2-D|2D"),
        ([np.ones((2, 3)), np.ones((2, 4))], "sample 1 has 4 features, sample 0 has 3"),
        ([np.ones((2, 3)), np.ones(3)], r"sample 1 must be 2-D .*\(3,\)"),
        ([np.ones((2, 3)), np.ones((0, 3))], "sample 1 has no tokens"),
        (np.ones((2, 0, 3)), "sample 0 has no tokens"),
        (np.ones((0, 2, 3)), "no samples|0 sample"),
        (np.ones((0, 3)), "0 sample"),
        (np.ones((2, 0)), r"0 feature\(s\)"),
        (np.ones((2, 2, 0)), "0 feature|no features"),
        ([], "X has no samples"),
        (np.array([], object), "X has no samples"),
        (TOKENS[:0], "X has 0 samples, NAME needs at least one"),
        ([np.ones((2, 3), complex)], "dtypes .* got complex128"),
        (np.ones((2, 3), complex), "Complex data not supported"),
        ([np.full((2, 3), "a")], "dtypes .* got <U1"),
        (np.full((2, 3), "a"), "could not convert string to float|numeric"),
        (None, "NoneType|Expected 2D array"),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_bad_tokens(estimator, X, message):
    message = message.replace("NAME", type(estimator).__name__)
    with pytest.raises((ValueError, TypeError), match=message):
        clone(estimator).fit(X, [0, 1])
    fitted = clone(estimator).fit(TOKENS, [0, 1])
    use = fitted.transform if hasattr(fitted, "transform") else fitted.predict
    with pytest.raises((ValueError, TypeError), match=message):
        use(X)
    assert len(use(TOKENS)) == 2


@pytest.mark.parametrize(
    ("field", "fitted", "given"),
    [
        ("model", Source(model="clip", block=3), Source(model="llama", block=3)),
        ("block", Source(model="clip", block=3), Source(model="clip", block=4)),
        ("revision", Source(revision="abc"), Source(revision="def")),
        ("convention", Source(convention="residual"), Source(convention="mlp")),
        ("scaling", Source(scaling="one"), Source(scaling="two")),
    ],
)
@names(ESTIMATORS)
def test_activations_of_another_source_are_refused_by_both_names(
    estimator, field, fitted, given, samples, y
):
    X = TokenArray.from_list(samples, source=fitted)
    estimator = clone(estimator).fit(X, y)
    use = estimator.transform if hasattr(estimator, "transform") else estimator.predict
    message = f"another {field} than {type(estimator).__name__} was fitted on: fitted on "
    message = re.escape(f"{message}({fitted}), got ({given})")
    with pytest.raises(ValueError, match=message):
        use(X.with_source(given))
    # What is unknown is not in conflict.
    for other in (fitted, None, Source()):
        assert len(use(X.with_source(other))) == 6
    unknown = clone(estimator).fit(samples, y)
    use = unknown.transform if hasattr(unknown, "transform") else unknown.predict
    assert len(use(X)) == 6


ALL = [*ESTIMATORS, SelectLayer(), CrossFitTransformer(MeanPrototype(), cv=2)]


@names(ALL)
def test_use_before_fit(estimator, samples):
    methods = ["transform", "predict", "decision_function", "superactivators", "inverse_transform"]
    present = [m for m in methods if hasattr(estimator, m)]
    assert present
    for method in present:
        # Even with input that is wrong in itself.
        for X in (samples, None):
            with pytest.raises(NotFittedError, match=f"This {type(estimator).__name__} instance"):
                getattr(clone(estimator), method)(X)


def frozen_state(estimator):
    return {name: np.array(value, copy=True) for name, value in vars(estimator).items()}


@names(ESTIMATORS)
def test_a_failed_call_loses_nothing(estimator, samples, y):
    X = TokenArray.from_list(samples, source=Source(model="m"))
    fitted = clone(estimator).fit(X, y)
    use = fitted.transform if hasattr(fitted, "transform") else fitted.predict
    before, state = use(X), frozen_state(fitted)
    nan = [s.copy() for s in samples]
    nan[2][0, 0] = np.nan
    bad = [
        (nan, "NaN"),
        (np.ones((2, 5)), "5 features, but .* is expecting 3"),
        ([np.ones((2, 4))], "4 features, but .* is expecting 3"),
        (TokenArray.from_list(samples, source=Source(model="n")), "another model"),
        ([], "X has no samples"),
        (["text"], "text"),
    ]
    for wrong, message in bad:
        with pytest.raises((ValueError, TypeError), match=message):
            use(wrong)
    after = frozen_state(fitted)
    assert after.keys() == state.keys()
    for name, value in state.items():
        assert (after[name] == value).all(), name
    again = use(X)
    for a, b in zip(again, before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("form", ["tokens", "frame"])
@pytest.mark.parametrize("estimator", [MeanPrototype(), SuperActivator(match_columns=False)])
def test_columns_of_one_name_are_refused(form, estimator):
    y = np.eye(2, dtype=int)[[0, 1, 0, 1]]
    values = np.arange(8.0).reshape(4, 2)
    for names in (["joy", "food"], ["joy", "joy"]):
        if form == "tokens":
            X = TokenArray(values, np.arange(5), feature_names=names)
        else:
            X = pd.DataFrame(values, columns=names)
        if len(set(names)) == 2:
            estimator.fit(X, y)
        else:
            with pytest.raises(ValueError, match=r"'joy'( 2 times|.*name each once)"):
                estimator.fit(X, y)
