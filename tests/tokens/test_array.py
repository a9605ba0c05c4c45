"""TokenArray, how it is made and given new columns, against a plain list of 2-D arrays."""

import copy
import pickle
from functools import partial

import cloudpickle
import joblib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import config_context
from sklearn.base import clone

from skact import (
    LayerStack,
    MeanPrototype,
    PCAConcepts,
    SelectLayer,
    Source,
    SuperActivator,
    TokenArray,
    TokenScaler,
)
from skact.rows import FileRows, Mapped
from tests.tokens.samples import VALUES, WORKING_MEMORY, assert_same, draw_key, problems, quick


@pytest.mark.parametrize("working_memory", WORKING_MEMORY)
@quick
@given(problem=problems(), data=st.data())
def test_new_columns_equal_a_loop_over_samples(problem, data, working_memory):
    tokens, samples = problem
    key, positions = draw_key(data, len(samples))
    view, kept = tokens[key], [samples[p] for p in positions]
    if not kept:
        return
    width = samples[0].shape[1]
    columns = data.draw(st.lists(st.integers(-width, width - 1), min_size=1, max_size=4))
    names = [f"f{c}" for c in range(width)]

    def double(values):
        return np.hstack([values.astype(np.float32) * 2, np.ones((len(values), 1), np.float32)])

    with config_context(working_memory=working_memory):
        named = view.with_values(view.flat(), names, Source(model="m"))
        picked = named.columns(columns)
        assert picked.feature_names == tuple(names[c] for c in columns)
        assert picked.source == Source(model="m")
        assert_same(picked, [s[:, columns] for s in kept])

        mapped = view.map(double, feature_names=["x"] * (width + 1), source=Source(block=3))
        assert mapped.feature_names == ("x",) * (width + 1)
        assert mapped.source == Source(block=3)
        assert_same(mapped, [double(s) for s in kept])

        for old in (named, view):
            renewed = old.with_values(double(old.flat()))
            assert_same(renewed, [double(s) for s in kept])
            assert renewed.feature_names is None
            assert renewed.source is None


@quick
@given(problem=problems(), data=st.data())
def test_values_are_put_in_per_token_shown_or_per_token_stored(problem, data):
    tokens, samples = problem
    key, positions = draw_key(data, len(samples))
    view, kept = tokens[key], [samples[p] for p in positions]
    options = {"feature_names": ["x"], "source": Source(block=3)}

    shown = view.with_values(view.flat()[:, :1], **options)
    stored = view.with_stored_values(np.ascontiguousarray(tokens.values[:, :1]), **options)
    for renewed in (shown, stored):
        assert_same(renewed, [s[:, :1] for s in kept])
        assert renewed.feature_names == ("x",)
        assert renewed.source == Source(block=3)
    assert len(shown.values) == view.n_tokens
    assert shown.index.tolist() == list(range(len(kept)))
    assert len(stored.values) == len(tokens.values)
    assert stored.index.tolist() == positions
    if view.n_tokens != len(tokens.values):
        # Each refuses what the other takes.
        for put in (view.with_values, view.with_stored_values):
            other = view.flat() if put == view.with_stored_values else tokens.values
            with pytest.raises(ValueError, match=f"offsets end .* are {len(other)} tokens"):
                put(other)


@quick
@given(problem=problems(), data=st.data())
def test_compact_from_list_concatenate_and_pickle_round_trips(problem, data):
    tokens, samples = problem
    keys = [draw_key(data, len(samples)) for _ in range(2)]
    views = [tokens[key] for key, _ in keys]
    kept = [[samples[p] for p in positions] for _, positions in keys]

    joined = TokenArray.concatenate(views)
    assert_same(joined, kept[0] + kept[1])
    assert not np.shares_memory(joined.values, tokens.values)
    for view, part in zip(views, kept, strict=True):
        compact = view.compact()
        assert_same(compact, part)
        assert not np.shares_memory(compact.values, tokens.values)
        assert len(compact.values) == compact.n_tokens
        assert_same(pickle.loads(pickle.dumps(view)), part)
        if part:
            again = TokenArray.from_list(view.to_list())
            assert_same(again, part)
            assert not np.shares_memory(again.values, tokens.values)


def test_integers_become_float32_and_strided_values_are_copied_once():
    tokens = TokenArray(np.arange(6).reshape(3, 2), [0, 1, 3])
    assert tokens.dtype == np.float32
    strided = np.arange(12.0).reshape(3, 4)[:, ::2]
    kept = TokenArray(strided, [0, 1, 3])
    assert kept.values.flags.c_contiguous
    np.testing.assert_array_equal(kept.values, strided)


def test_tensors_of_any_precision_are_taken():
    torch = pytest.importorskip("torch")
    samples = [torch.ones(2, 3, dtype=torch.bfloat16), torch.zeros(1, 3, dtype=torch.bfloat16)]
    tokens = TokenArray.from_list(samples)
    assert tokens.dtype == np.float32
    assert tokens.max().tolist() == [[1, 1, 1], [0, 0, 0]]
    assert TokenArray.from_list([torch.ones(2, 3, requires_grad=True)]).sum().tolist() == [[2] * 3]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((np.zeros(4), [0, 4]), {}, ValueError, r"2-D array .*got \(4,\)"),
        ((np.zeros((1, 4, 2)), [0, 1]), {}, ValueError, r"2-D array .*got \(1, 4, 2\)"),
        (([[0.0]], [0, 1]), {}, ValueError, "2-D array .*got list"),
        ((VALUES.astype(complex), [0, 4]), {}, TypeError, "dtypes .*got complex128"),
        ((VALUES.astype(object), [0, 4]), {}, TypeError, "dtypes .*got object"),
        ((VALUES.astype(str), [0, 4]), {}, TypeError, "dtypes .*got <U"),
        ((VALUES, [1, 4]), {}, ValueError, "start with 0"),
        ((VALUES, []), {}, ValueError, "start with 0"),
        ((VALUES, [[0, 4]]), {}, ValueError, "1-D"),
        ((VALUES, [0, 2]), {}, ValueError, "offsets end at 2, but there are 4 tokens"),
        ((VALUES, [0, 9]), {}, ValueError, "offsets end at 9, but there are 4 tokens"),
        ((VALUES, [0, 2, 2, 4]), {}, ValueError, "sample 1 has no tokens"),
        ((VALUES, [0, 3, 2, 4]), {}, ValueError, "sample 1 has no tokens"),
        ((VALUES, [0, 4, 4]), {}, ValueError, "sample 1 has no tokens"),
        ((VALUES, [0, 2, 4], [0, 2]), {}, IndexError, r"index must lie in \[0, 2\)"),
        ((VALUES, [0, 2, 4], [-1]), {}, IndexError, r"index must lie in \[0, 2\)"),
        ((VALUES, [0, 2.5, 4]), {}, (TypeError, ValueError), "offsets"),
        ((VALUES, [0, 2, 4], [[0, 1]]), {}, (IndexError, ValueError), "index"),
        ((VALUES, [0, 2, 4], [0.5]), {}, (IndexError, ValueError, TypeError), "index"),
        # Read as positions 1 and 0, a mask would show both samples in the wrong order.
        ((VALUES, [0, 2, 4], [True, False]), {}, (IndexError, ValueError, TypeError), "index"),
        (
            (VALUES, [0, 4]),
            {"feature_names": ["a", "b", "c"]},
            ValueError,
            "feature_names has 3 names for 2 features",
        ),
    ],
)
def test_bad_arguments(arguments, options, error, message):
    with pytest.raises(error, match=message):
        TokenArray(*arguments, **options)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "no samples"),
        ([VALUES, VALUES[0]], r"sample 1 must be 2-D .*got shape \(2,\)"),
        ([VALUES, VALUES, VALUES[:, :1]], "sample 2 has 1 features, sample 0 has 2"),
        ([VALUES, VALUES[:0]], "sample 1 has no tokens"),
    ],
)
def test_bad_lists(samples, message):
    with pytest.raises(ValueError, match=message):
        TokenArray.from_list(samples)


def test_bad_parts_and_values():
    tokens = TokenArray(VALUES, [0, 1, 4])
    with pytest.raises(ValueError, match="nothing to concatenate"):
        TokenArray.concatenate([])
    with pytest.raises(ValueError, match=r"differ in n_features: \[2, 3\]"):
        TokenArray.concatenate([tokens, TokenArray(np.zeros((1, 3)), [0, 1])])
    with pytest.raises(ValueError, match="offsets end at 4, but there are 3 tokens"):
        tokens.with_values(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="no samples"):
        tokens[:0].map(np.negative)


@pytest.mark.parametrize("working_memory", WORKING_MEMORY)
def test_map_refuses_a_function_that_does_not_work_row_by_row(working_memory):
    tokens = TokenArray(np.ones((6, 2)), [0, 2, 6])
    with config_context(working_memory=working_memory):
        for wrong in (
            lambda values: values[:-1],
            lambda values: values.mean(axis=0, keepdims=True),
        ):
            with pytest.raises(ValueError, match=r"row|token"):
                tokens.map(wrong)


def test_columns_reads_a_mask_as_a_mask_or_refuses_it():
    tokens = TokenArray(np.arange(6.0).reshape(2, 3), [0, 1, 2])
    mask = np.array([False, True, True])
    try:
        picked = tokens.columns(mask)
    except (TypeError, ValueError, IndexError):
        return
    np.testing.assert_array_equal(picked.values, tokens.values[:, mask])


def test_names_and_source_travel_with_views():
    source = Source(model="m", block=2)
    tokens = TokenArray(VALUES, [0, 1, 4], feature_names=["a", "b"], source=source)
    for same in (tokens[[1, 1]], tokens[:1], tokens.compact(), pickle.loads(pickle.dumps(tokens))):
        assert same.feature_names == ("a", "b")
        assert same.source == source
    moved = tokens.with_source(None)
    assert moved.source is None
    assert moved.values is tokens.values
    assert tokens.source == source

    joined = TokenArray.concatenate([tokens, tokens[:1]])
    assert (joined.feature_names, joined.source) == (("a", "b"), source)
    other = TokenArray(VALUES, [0, 4], feature_names=["a", "c"], source=source)
    joined = TokenArray.concatenate([tokens, other, tokens])
    assert (joined.feature_names, joined.source) == (None, source)
    joined = TokenArray.concatenate([tokens, tokens.with_source(Source(model="m", block=3))])
    assert (joined.feature_names, joined.source) == (("a", "b"), Source(model="m"))
    assert repr(tokens) == (
        "TokenArray(2 samples, 4 tokens, 2 features, float32, source: model m, block 2)"
    )


class Shift:
    """An estimator in the small: its method reads what a fit sets anew."""

    def __init__(self, by):
        self.by = by

    def shifted(self, values, factor=1):
        return factor * values + self.by


@pytest.fixture
def stack(rng, tmp_path):
    """Two layers of 20 samples in a file."""
    rng.normal(size=(2, 60, 4)).astype(np.float32).tofile(tmp_path / "layers")
    layers = np.memmap(tmp_path / "layers", np.float32, "r", shape=(2, 60, 4))
    return LayerStack({b: TokenArray(layers[b], np.arange(0, 61, 3)) for b in range(2)})


@pytest.mark.parametrize("detached", [True, False])
@pytest.mark.parametrize("bind", [lambda s: s.shifted, lambda s: partial(s.shifted, factor=2)])
def test_what_is_computed_lazily_does_not_follow_its_object(stack, monkeypatch, bind, detached):
    if not detached:  # control: bound to the live object, it does
        monkeypatch.setattr("skact.tokens._array._detached", lambda function: function)
    X, shift = stack.layer(0), Shift(1)
    with config_context(working_memory=0):
        lazy = X.map(bind(shift))
        assert isinstance(lazy.values, Mapped)
        expected, sent = bind(Shift(1))(X.flat()), pickle.dumps(lazy)
        np.testing.assert_array_equal(lazy.flat(), expected)
        shift.by = 5
        assert np.array_equal(lazy.flat(), expected) == detached
        np.testing.assert_array_equal(pickle.loads(sent).flat(), expected)


def test_a_closure_cannot_be_sent(stack):
    with config_context(working_memory=0):
        lazy = stack.layer(0).map(lambda values: 2 * values)
        with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
            pickle.dumps(lazy)


@pytest.mark.parametrize(
    ("estimator", "use"),
    [
        (MeanPrototype(), "transform"),
        (SuperActivator(), "superactivators"),
        (PCAConcepts(4), "inverse_transform"),
        (TokenScaler(), "transform"),
        (TokenScaler(), "inverse_transform"),
        (SelectLayer(layer=0), "transform"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_estimators_make_of_tokens_on_disk_stays_after_another_fit(stack, estimator, use):
    """Scores, marks, inverses and scaled tokens; they can be sent to other processes as well."""
    takes_stack, y = isinstance(estimator, SelectLayer), np.arange(20) % 2
    given = stack if takes_stack else stack.layer(0)
    fitted = clone(estimator).fit(given, y)
    expected = getattr(fitted, use)(given).flat()
    with config_context(working_memory=0):
        lazy = getattr(fitted, use)(given)
        assert isinstance(lazy.values, Mapped)
        sent = pickle.dumps(lazy)
        if takes_stack:
            fitted.set_params(layer=1).fit(stack)
        else:
            fitted.fit(stack.layer(1), 1 - y)
        for kept in (lazy, pickle.loads(sent)):
            np.testing.assert_allclose(kept.flat(), expected, atol=1e-6)
        # Control: the estimator itself is another one now.
        assert not np.allclose(getattr(fitted, use)(given).flat(), expected, atol=1e-2)


COPIES = {
    "pickle": lambda X: pickle.loads(pickle.dumps(X)),
    "deepcopy": copy.deepcopy,
    "cloudpickle": lambda X: pickle.loads(cloudpickle.dumps(X)),
}
KEYS = [slice(2), slice(3, 9, 2), [5], [7, 2, 2], np.arange(9, -1, -1), np.zeros(10, bool)]


def ten_samples():
    samples = [np.full((50, 20), i, np.float32) for i in range(10)]
    tokens = TokenArray.from_list(
        samples, feature_names=map(str, range(20)), source=Source(model="m", block=1)
    )
    return tokens, samples


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("key", KEYS, ids=str)
def test_a_view_travels_as_what_it_shows(way, key):
    tokens, samples = ten_samples()
    view = tokens[key]
    back = COPIES[way](view)
    assert_same(back, [samples[i] for i in np.arange(10)[key]])
    assert (back.feature_names, back.source) == (tokens.feature_names, tokens.source)
    assert len(back.values) == view.n_tokens
    assert not np.shares_memory(back.values, tokens.values)
    assert joblib.hash(view) == joblib.hash(view.compact())
    assert view.values is tokens.values  # it stays a view
    assert len(COPIES[way](tokens).values) == 500


def test_a_view_that_repeats_samples_does_not_grow():
    tokens, samples = ten_samples()
    repeated = tokens[[3] * 200]
    sent = pickle.dumps(repeated)
    assert len(sent) < len(pickle.dumps(tokens)) + 3000
    assert_same(pickle.loads(sent), [samples[3]] * 200)


def test_hashes_of_views_differ_where_their_samples_do():
    tokens, _ = ten_samples()
    hashes = [joblib.hash(tokens[key]) for key in ([0, 1], [1, 0], [0], [2, 3])]
    assert len(set(hashes)) == 4
    assert joblib.hash(tokens) == joblib.hash(tokens[:]) == joblib.hash(tokens.compact())


def test_a_view_of_a_file_travels_as_the_name_of_the_file(tmp_path):
    tokens, samples = ten_samples()
    np.save(tmp_path / "a.npy", tokens.values)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    for values in (FileRows.of(mapped), Mapped(FileRows.of(mapped), np.abs)):
        view = TokenArray(values, tokens.offsets)[[4, 2]]
        sent = pickle.dumps(view)
        assert len(sent) < 2000
        back = pickle.loads(sent)
        assert len(back.values) == 500
        assert_same(back, [samples[4], samples[2]])


def rows_behind(tokens):
    return len(tokens.values), tokens.flat().sum()


def test_processes_of_joblib_map_the_rows_of_all_tasks_from_one_file(monkeypatch):
    """A copy for each task would be dumped once a task."""
    tokens, _ = ten_samples()
    copied = []
    compact = TokenArray.compact
    monkeypatch.setattr(TokenArray, "compact", lambda self: copied.append(1) or compact(self))
    view = tokens[[4, 2]]
    found = joblib.Parallel(n_jobs=2)(joblib.delayed(rows_behind)(view) for _ in range(4))
    assert found == [(500, 6000)] * 4
    assert not copied
