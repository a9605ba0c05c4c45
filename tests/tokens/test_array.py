"""TokenArray and LayerStack against a slow replica: a plain list of 2-D arrays."""

import pickle
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import config_context

from skact import LayerStack, Source, TokenArray
from skact.tokens import rescaled

DTYPES = ["float16", "float32", "float64", "bool"]
# Zero bytes of working memory force blocks of one sample.
WORKING_MEMORY = [0, 1024]

quick = settings(max_examples=60, deadline=None)


def make_list(seed, n_samples, n_features, dtype):
    """Random samples whose entries are quarters, so that sums are exact in any order."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 6, n_samples)
    return [(rng.integers(-16, 17, (n, n_features)) / 4).astype(dtype) for n in lengths]


def on_disk(values):
    """Put an array into a memory-mapped file."""
    with tempfile.TemporaryFile() as file:
        mapped = np.memmap(file, values.dtype, mode="w+", shape=values.shape)
    mapped[:] = values
    return mapped


def make_tokens(samples, *, mapped=False):
    values = np.concatenate(samples)
    offsets = np.cumsum([0, *map(len, samples)])
    return TokenArray(on_disk(values) if mapped else values, offsets)


def assert_same(tokens, samples):
    assert len(tokens) == len(samples)
    for i, sample in enumerate(samples):
        np.testing.assert_array_equal(tokens[i], sample, strict=True)


@st.composite
def problems(draw, min_samples=1):
    samples = make_list(
        draw(st.integers(0, 2**31)),
        draw(st.integers(min_samples, 6)),
        draw(st.integers(1, 3)),
        draw(st.sampled_from(DTYPES)),
    )
    return make_tokens(samples, mapped=draw(st.booleans())), samples


def draw_key(data, n):
    """Draw a key along n samples, and the positions that it means."""
    everything = list(range(n))
    kind = data.draw(st.sampled_from(["slice", "ints", "list", "mask", "mask list", "empty"]))
    if kind == "slice":
        key = data.draw(st.slices(n))
        positions = everything[key]
    elif kind == "empty" or n == 0:
        key, positions = [], []
    elif kind.startswith("mask"):
        key = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
        positions = [i for i in everything if key[i]]
        key = key if kind == "mask list" else np.array(key)
    else:
        key = data.draw(st.lists(st.integers(-n, n - 1), min_size=1, max_size=n + 3))
        positions = [everything[k] for k in key]
        key = key if kind == "list" else np.array(key)
    wrap = data.draw(st.sampled_from([None, Ellipsis, slice(None)]))
    return (key if wrap is None else (key, wrap)), positions


@quick
@given(problem=problems(), data=st.data())
def test_a_view_of_a_view_is_the_list_of_its_samples(problem, data):
    tokens, samples = problem
    view, kept = tokens, samples
    for _ in range(data.draw(st.integers(0, 3))):
        key, positions = draw_key(data, len(kept))
        view, kept = view[key], [kept[p] for p in positions]
    n, n_features = len(kept), samples[0].shape[1]

    assert view.shape == (n, n_features)
    assert len(view) == n
    assert view.dtype == samples[0].dtype
    assert view.lengths.tolist() == [len(s) for s in kept]
    assert view.n_tokens == sum(map(len, kept))
    assert_same(view, kept)
    for i in range(-n, n):
        np.testing.assert_array_equal(view[i], kept[i], strict=True)
    for given_back in (view.to_list(), list(view)):
        assert len(given_back) == n
        for a, b in zip(given_back, kept, strict=True):
            np.testing.assert_array_equal(a, b, strict=True)
    flat = np.concatenate([*kept, samples[0][:0]])
    np.testing.assert_array_equal(view.flat(), flat, strict=True)
    # Not one token was copied, by however many views.
    assert view.values is tokens.values
    for i in (-n - 1, n):
        with pytest.raises(IndexError, match=f"sample {i} is out of range"):
            view[i]


@pytest.mark.parametrize("working_memory", WORKING_MEMORY)
@quick
@given(problem=problems(), data=st.data())
def test_reductions_equal_a_loop_over_samples(problem, data, working_memory):
    tokens, samples = problem
    key, positions = draw_key(data, len(samples))
    view, kept = tokens[key], [samples[p] for p in positions]
    is_bool = view.dtype == bool
    at = [data.draw(st.integers(0, len(s) - 1)) for s in kept]

    def loop(function, dtype):
        return np.array([function(s) for s in kept], dtype).reshape(view.shape)

    with config_context(working_memory=working_memory):
        results = {
            "max": (view.max(), loop(lambda s: s.max(axis=0), view.dtype)),
            "sum": (
                view.sum(),
                loop(lambda s: s.astype(float).sum(axis=0), np.int64 if is_bool else np.float64),
            ),
            "mean": (view.mean(), loop(lambda s: s.astype(float).mean(axis=0), np.float64)),
            "last": (view.last(), loop(lambda s: s[-1], view.dtype)),
            "tokens_at": (
                view.tokens_at(np.array(at, dtype=int)),
                np.array([s[j] for s, j in zip(kept, at, strict=True)], view.dtype).reshape(
                    view.shape
                ),
            ),
        }
    for result, expected in results.values():
        np.testing.assert_array_equal(result, expected, strict=True)


def test_half_precision_is_summed_in_double():
    ones = np.ones((5000, 1), np.float16)
    tokens = TokenArray(ones, [0, 5000])
    assert tokens.sum() == 5000
    assert tokens.mean() == 1
    assert ones.cumsum(dtype=np.float16)[-1] == 2048  # what half precision would have made of it


@pytest.mark.parametrize("working_memory", WORKING_MEMORY)
@quick
@given(problem=problems(), data=st.data())
def test_blocks_go_through_all_samples_in_order(problem, data, working_memory):
    tokens, samples = problem
    key, positions = draw_key(data, len(samples))
    kept = [samples[p] for p in positions]
    with config_context(working_memory=working_memory):
        blocks = list(tokens[key].blocks())
    assert [i for s, _ in blocks for i in range(s.start, s.stop)] == list(range(len(kept)))
    for piece, values in blocks:
        np.testing.assert_array_equal(values, np.concatenate(kept[piece]), strict=True)
    if working_memory == 0:
        assert len(blocks) == len(kept)
    else:
        assert len(blocks) == bool(kept)


def test_a_block_keeps_to_the_working_memory():
    tokens = TokenArray(np.zeros((1000, 256), np.float32), np.arange(0, 1001, 10))
    with config_context(working_memory=6.4):  # MiB, of which a 64th: 102 tokens of 1 KiB
        sizes = [len(values) for _, values in tokens.blocks()]
    assert sizes == [100] * 10


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


def test_views_share_memory_and_copies_do_not():
    values = np.arange(24, dtype=np.float32).reshape(12, 2)
    tokens = TokenArray(values, [0, 3, 4, 9, 12])
    assert np.shares_memory(tokens.values, values)
    for view in (tokens[1:3], tokens[::-1], tokens[[3, 3, 0]], tokens[np.array([0, 1, 0, 1]) > 0]):
        assert view.values is tokens.values
        assert all(np.shares_memory(sample, values) for sample in view)
    # The tokens of adjacent samples are one slice, those of others must be gathered.
    assert np.shares_memory(tokens[1:3].flat(), values)
    assert not np.shares_memory(tokens[[0, 2]].flat(), values)
    assert not np.shares_memory(tokens[1:3].compact().values, values)
    values[0] = 7
    assert tokens[0][0].tolist() == [7, 7]


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


def test_it_cannot_become_one_array():
    tokens = TokenArray(np.zeros((3, 2)), [0, 1, 3])
    for container in (tokens, LayerStack({0: tokens})):
        for convert in (np.asarray, np.array, lambda t: np.asarray(t, dtype=float), np.exp):
            with pytest.raises(TypeError, match=r"ragged.*[Pp]ool it first.*X\.flat\(\)"):
                convert(container)


def test_numpy_take_and_array_namespace():
    samples = make_list(0, 5, 2, "float32")
    tokens = make_tokens(samples)
    assert tokens.device == "cpu"
    assert tokens.ndim == 2
    for namespace in (np, tokens.__array_namespace__()):
        taken = namespace.take(tokens, np.array([3, 1]), axis=0)
        assert_same(taken, [samples[3], samples[1]])


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ((0, 1), "indexed by samples alone"),
        ((slice(None), [0]), "indexed by samples alone"),
        ((), "indexed by samples alone"),
        (5, "sample 5 is out of range for 3 samples"),
        (-4, "sample -4 is out of range"),
        ([0, 3], "out of bounds"),
        ([True, False], "mask has 2 entries for 3 samples"),
        (np.array([True] * 4), "mask has 4 entries for 3 samples"),
        ([0.0, 1.0], "1-D array of integers or bools, got 1-D of dtype float64"),
        (["a"], "1-D array of integers or bools"),
        ([[0, 1]], "got 2-D"),
        (True, "got 0-D of dtype bool"),
        (None, "1-D array of integers or bools"),
    ],
)
def test_bad_keys(key, message):
    tokens = TokenArray(np.zeros((4, 2)), [0, 1, 3, 4])
    for container in (tokens, LayerStack({0: tokens})):
        with pytest.raises(IndexError, match=message):
            container[key]


def test_only_samples_can_be_taken():
    tokens = TokenArray(np.zeros((3, 2)), [0, 1, 3])
    for options in ({"axis": 1}, {"out": np.empty(1)}, {"mode": "clip"}):
        with pytest.raises(ValueError, match="only samples"):
            tokens.take([0], **options)


VALUES = np.zeros((4, 2), np.float32)


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


def test_bad_parts_values_and_positions():
    tokens = TokenArray(VALUES, [0, 1, 4])
    with pytest.raises(ValueError, match="nothing to concatenate"):
        TokenArray.concatenate([])
    with pytest.raises(ValueError, match=r"differ in n_features: \[2, 3\]"):
        TokenArray.concatenate([tokens, TokenArray(np.zeros((1, 3)), [0, 1])])
    with pytest.raises(ValueError, match="offsets end at 4, but there are 3 tokens"):
        tokens.with_values(np.zeros((3, 2)))
    for positions in ([1, 0], [0, 3], [-1, 0]):
        with pytest.raises(IndexError, match="within their samples"):
            tokens.tokens_at(np.array(positions))
    assert tokens.tokens_at(np.array([0, 2])).shape == (2, 2)
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
    joined = TokenArray.concatenate([tokens, tokens.with_source(Source(block=3))])
    assert (joined.feature_names, joined.source) == (("a", "b"), None)
    assert repr(tokens) == (
        "TokenArray(2 samples, 4 tokens, 2 features, float32, source: model m, block 2)"
    )


@pytest.mark.parametrize(
    ("first", "second", "field"),
    [
        (Source(), Source(model="a", revision="r", block=1, convention="c", scaling="s"), None),
        (Source(model="a"), Source(block=1), None),
        (Source(model="a"), Source(model="a"), None),
        (Source(model="a"), Source(model="b"), "model"),
        (Source(revision="r"), Source(revision="s"), "revision"),
        (Source(block=0), Source(block=1), "block"),
        (Source(block=0), Source(block=0), None),
        (Source(convention="residual"), Source(convention="mlp"), "convention"),
        (Source(scaling="x"), Source(scaling="y"), "scaling"),
        # A folder may have moved: the weights decide.
        (Source(model="a", revision="r"), Source(model="b", revision="r"), None),
        (Source(model="a", revision="r"), Source(model="b", revision="s"), "model"),
        (Source(model="a", revision="r"), Source(model="b"), "model"),
        (
            Source(model="a", revision="r", block=1),
            Source(model="b", revision="r", block=2),
            "block",
        ),
        (Source(columns="concepts"), Source(columns="units"), None),
    ],
)
def test_sources_conflict_only_where_both_know(first, second, field):
    assert first.conflict(second) == field
    assert second.conflict(first) == field


def test_source_says_what_it_knows():
    assert str(Source()) == "unknown"
    assert str(Source(columns="units")) == "unknown"
    assert str(Source(model="m", block=0, columns="units")) == "model m, block 0"
    assert rescaled(None, "one") == Source(scaling="one")
    twice = rescaled(rescaled(Source(model="m"), "one"), "two")
    assert twice == Source(model="m", scaling="one, two")


def make_stack(seed=0, n_samples=6):
    samples = make_list(seed, n_samples, 3, "float32")
    layers = {block: [s + block for s in samples] for block in (4, 0, 7)}
    return LayerStack({b: make_tokens(layer) for b, layer in layers.items()}), layers


@quick
@given(seed=st.integers(0, 99), data=st.data())
def test_a_stack_is_sliced_as_one(seed, data):
    stack, layers = make_stack(seed)
    view, kept = stack, list(range(6))
    for _ in range(data.draw(st.integers(0, 2))):
        key, positions = draw_key(data, len(kept))
        view, kept = view[key], [kept[p] for p in positions]
    assert view.shape == (len(kept), 3)
    assert len(view) == len(kept)
    assert view.layers == [0, 4, 7]
    assert view.lengths.tolist() == [len(layers[0][i]) for i in kept]
    restored = pickle.loads(pickle.dumps(view))
    for block in (0, 4, 7):
        assert view.layer(block).values is stack.layer(block).values
        for one in (view, restored):
            assert_same(one.layer(block), [layers[block][i] for i in kept])
    for i, sample in enumerate(view):
        assert sorted(sample) == [0, 4, 7]
        for block in sample:
            np.testing.assert_array_equal(sample[block], layers[block][kept[i]])
    joined = LayerStack.concatenate([view, stack])
    for block in (0, 4, 7):
        assert_same(joined.layer(block), [layers[block][i] for i in [*kept, *range(6)]])


def test_a_stack_counts_negative_layers_from_its_last():
    stack, layers = make_stack()
    for negative, block in ((-1, 7), (-2, 4), (-3, 0)):
        assert_same(stack.layer(negative), layers[block])
    assert stack.dtype == np.float32
    assert repr(stack) == "LayerStack(layers [0, 4, 7], 6 samples, 3 features)"


@pytest.mark.parametrize("block", [1, 8, -4, "0", 0.5, None])
def test_a_stack_names_its_layers_when_asked_for_another(block):
    stack, _ = make_stack()
    with pytest.raises(ValueError, match=r"layer must be one of \[0, 4, 7\].*got"):
        stack.layer(block)


def test_a_stack_holds_views():
    tokens = make_tokens(make_list(0, 5, 2, "float32"))
    stack = LayerStack({0: tokens[[3, 1]], 1: tokens[[3, 1]].compact()})
    np.testing.assert_array_equal(stack.layer(0).flat(), stack.layer(1).flat())
    assert_same(stack[[1]].layer(0), [tokens[1]])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({}, ValueError, "at least one TokenArray"),
        ({0: np.zeros((3, 2))}, TypeError, "layer 0 must be a TokenArray, got ndarray"),
        (
            {0: TokenArray(VALUES, [0, 1, 4]), 5: TokenArray(VALUES, [0, 2, 4])},
            None,
            "same samples: layer 5",
        ),
        (
            {0: TokenArray(VALUES, [0, 1, 4]), 5: TokenArray(VALUES, [0, 1, 2, 4])},
            None,
            "same samples: layer 5",
        ),
        (
            {0: TokenArray(VALUES, [0, 1, 4]), 5: TokenArray(VALUES[:, :1], [0, 1, 4])},
            None,
            "same samples: layer 5",
        ),
    ],
    ids=["nothing", "array", "lengths", "samples", "width"],
)
def test_a_stack_needs_the_same_samples(change, error, message):
    if error is None:
        # Lengths, number of samples or width differ; equal ones are taken.
        LayerStack({0: change[0], 5: change[0]})
    with pytest.raises(error or ValueError, match=message):
        LayerStack(change)


def test_stacks_of_other_layers_are_not_joined():
    stack, _ = make_stack()
    fewer = LayerStack({0: stack.layer(0)})
    with pytest.raises(ValueError, match=r"layers \[0, 4, 7\] and \[0\]"):
        LayerStack.concatenate([stack, fewer])
    with pytest.raises(ValueError, match="nothing to concatenate"):
        LayerStack.concatenate([])
