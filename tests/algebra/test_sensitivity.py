"""Sensitivities are derivatives of the head; shares are compared with those of random labels."""

import warnings
from copy import deepcopy

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.utils import Bunch

from skact import (
    DifferenceInMeans,
    IsolatedConcepts,
    Source,
    TokenArray,
    TransformerEmbedder,
    concept_sensitivity,
    layer_consistency,
)
from skact.algebra._sensitivity import _labels_of, welch, wilson
from tests import tiny_models
from tests.tiny_models import WIDTH

TEXTS = ["the happy cat", "not happy at all", "the angry thing sat", "angry cat", "a cat", "sat"]
CLASSES = ["even", "odd"] * 3


def reader(kind="gpt2", head=True, **settings):
    settings = {"layer": 1} | settings
    return TransformerEmbedder(tiny_models.text_pair(kind, head=head), **settings)


def some(rng, n=24, d=WIDTH):
    return rng.normal(size=(n, d)), np.c_[np.arange(n) % 2, np.arange(n) // 2 % 2]


def moved(model, tokenizer, text, block, vector):
    """Logits behind the last token where all tokens are moved by a vector."""

    def add(module, args, output):
        state = output[0] if isinstance(output, tuple) else output
        new = state.clone()
        new += torch.as_tensor(vector)
        return (new, *output[1:]) if isinstance(output, tuple) else new

    handle = model.transformer.h[block].register_forward_hook(add)
    try:
        with torch.no_grad():
            return model(torch.tensor([tokenizer(text)["input_ids"]])).logits[0, -1].numpy()
    finally:
        handle.remove()


def test_it_is_the_derivative_along_the_vector():
    model, tokenizer = tiny_models.text_pair("gpt2", head=True)
    model = deepcopy(model).double()
    embedder = TransformerEmbedder((model, tokenizer), layer=[0, 1], sink=None, batch_size=2)
    stack = embedder.transform(TEXTS)
    words = [tokenizer.decode([i]) for i in (5, 9)]
    heads = dict(zip(("even", "odd"), words, strict=True))
    labels = np.c_[[1, 1, 0, 0, 1, 0], [0, 1, 1, 0, 0, 1]]
    result = concept_sensitivity(
        embedder,
        TEXTS,
        CLASSES,
        DifferenceInMeans(),
        stack,
        labels,
        heads=heads,
        n_splits=2,
        random_state=0,
    )
    assert (result.layers, result.classes) == ([0, 1], ["even", "odd"])
    assert result.share.shape == result.low.shape == result.p_value.shape == (2, 2, 2)
    for block in (0, 1):
        vectors = DifferenceInMeans().fit(stack.layer(block), labels).concept_vectors_
        for i, text in enumerate(TEXTS):
            k = tokenizer.encode(heads[CLASSES[i]], add_special_tokens=False)[0]
            for c, v in enumerate(vectors):
                step = 1e-5 * v / np.linalg.norm(v)
                up, down = (
                    moved(model, tokenizer, text, block, sign * step)[k] for sign in (1, -1)
                )
                slope = (up - down) / 2e-5 * np.linalg.norm(v)
                np.testing.assert_allclose(result.sensitivity[block, i, c], slope, rtol=1e-4)
    for k, name in enumerate(result.classes):
        own = result.sensitivity[:, [c == name for c in CLASSES]]
        np.testing.assert_allclose(result.share[:, k], (own > 0).mean(axis=1))


def test_a_linear_head_is_known_in_closed_form(rng):
    embedder = reader("bert", head=False, layer=-1)
    X, y = some(rng)
    w = torch.as_tensor(rng.normal(size=WIDTH), dtype=torch.float32)
    head = {"all": lambda output: output.last_hidden_state.mean(dim=1) @ w}
    method = IsolatedConcepts(DifferenceInMeans())
    result = concept_sensitivity(embedder, TEXTS, ["all"] * 6, method, X, y, heads=head, n_splits=3)
    lengths = embedder.transform(TEXTS).lengths
    vectors = method.fit(X, y).concept_vectors_
    # The CLS and SEP positions count in the mean and are not moved.
    expected = (lengths / (lengths + 2))[:, None] * (vectors @ w.numpy())
    np.testing.assert_allclose(result.sensitivity[0], expected, rtol=1e-4)
    every = reader("bert", head=False, layer=-1, special_tokens=True)
    result = concept_sensitivity(every, TEXTS, ["all"] * 6, method, X, y, heads=head, n_splits=3)
    np.testing.assert_allclose(result.sensitivity[0], [vectors @ w.numpy()] * 6, rtol=1e-4)


def test_a_concept_that_the_head_reads_is_told_from_one_that_it_does_not(rng):
    embedder = reader("bert", head=False, layer=-1)
    y = rng.integers(2, size=(400, 2))
    w, other = np.linalg.qr(rng.normal(size=(WIDTH, 2)))[0].T
    X = rng.normal(size=(400, WIDTH)) + 2 * np.outer(y[:, 0], w) + 2 * np.outer(y[:, 1], other)
    there = torch.as_tensor(w, dtype=torch.float32)
    # Which way the gradient goes depends on the sample, but for the part along w.
    noise = torch.as_tensor(rng.normal(size=(WIDTH, WIDTH)), dtype=torch.float32)
    noise = 0.1 * (noise - torch.outer(there, there @ noise))

    def head(output):
        state = output.last_hidden_state.mean(dim=1)
        return state @ there + torch.sin(state @ noise).sum(dim=1)

    result = concept_sensitivity(
        embedder,
        [f"{a} {b}" for a in TEXTS for b in TEXTS[:3]],
        [0] * 18,
        DifferenceInMeans(),
        X,
        y,
        heads={0: head},
        n_splits=20,
        random_state=0,
    )
    assert result.share[0, 0, 0] > 0.9
    assert result.p_corrected[0, 0, 0] < 0.01
    assert result.random_shares[0, 0].mean() == pytest.approx(0.5, abs=0.2)
    np.testing.assert_array_equal(result.p_corrected, np.minimum(2 * result.p_value, 1))


def labelled(rng, n=120):
    """Tokens of which a third hold each concept; tokens of a sample differ."""
    lengths = rng.integers(3, 7, size=n)
    labels = TokenArray.from_list([rng.random((m, 2)) < 0.3 for m in lengths])
    w = np.linalg.qr(rng.normal(size=(WIDTH, 2)))[0].T
    values = rng.normal(size=(labels.n_tokens, WIDTH)) + 3 * labels.flat() @ w
    return labels.with_values(values), labels.max().astype(int), labels, w


def test_vectors_are_those_of_labelled_tokens(rng):
    embedder = reader("bert", head=False, layer=-1)
    X, y, labels, w = labelled(rng)
    there = torch.as_tensor(w[0], dtype=torch.float32)
    given = embedder, TEXTS, [0] * 6, DifferenceInMeans(), X, y
    settings = {"heads": {0: lambda out: out.last_hidden_state.mean(dim=1) @ there}}
    settings |= {"n_splits": 20, "random_state": 0}
    result = concept_sensitivity(*given, token_labels=labels, **settings)
    vectors = DifferenceInMeans().fit(X, y, token_labels=labels).concept_vectors_
    lengths = embedder.transform(TEXTS).lengths
    expected = (lengths / (lengths + 2))[:, None] * (vectors @ w[0])
    np.testing.assert_allclose(result.sensitivity[0], expected, rtol=1e-4)
    assert result.p_corrected[0, 0, 0] < 0.01
    # Random labels mark as many tokens, but no others than chance has it.
    assert 0.2 < result.random_shares[0, 0].mean() < 0.8
    assert (result.split_shares[0, 0, 0] == 1).all()
    weak = concept_sensitivity(*given, **settings)
    assert not np.allclose(weak.sensitivity, result.sensitivity)
    as_samples = concept_sensitivity(*given[:4], X.flat(), labels.flat().astype(int), **settings)
    np.testing.assert_allclose(as_samples.sensitivity, result.sensitivity, rtol=1e-9)


def test_random_labels_of_tokens_are_those_of_the_same_samples_in_another_order(rng):
    _, y, labels, _ = labelled(rng, 12)
    rows = np.array([7, 2, 9, 4])
    of = rows[[2, 0, 3, 1]]
    made, laid = _labels_of(y, labels, rows, of)
    assert laid.lengths.tolist() == labels.lengths[rows].tolist()
    np.testing.assert_array_equal(laid.flat(), np.concatenate([labels[i] for i in of]))
    np.testing.assert_array_equal(made, [np.asarray(one).any(axis=0) for one in laid.to_list()])
    same, own = _labels_of(y, labels, rows, rows)
    np.testing.assert_array_equal(same, y[rows])
    np.testing.assert_array_equal(own.flat(), labels[rows].flat())


def test_token_labels_that_do_not_fit_are_refused(rng):
    X, y, labels, _ = labelled(rng, 12)
    cases = {
        "token_labels has 1 concepts, y has 2": labels.columns([0]),
        "token_labels": labels[:5],
        "but y says that the sample does not hold it": labels.with_values(~labels.flat()),
    }
    for message, wrong in cases.items():
        with pytest.raises(ValueError, match=message):
            concept_sensitivity(
                reader("bert", head=False, layer=-1),
                TEXTS,
                [0] * 6,
                DifferenceInMeans(),
                X,
                y,
                token_labels=wrong,
                heads={0: lambda out: out.last_hidden_state.sum(dim=(1, 2))},
            )


def test_labels_that_mean_nothing_are_not_significant(rng):
    embedder = reader("bert", head=False, layer=-1)
    w = torch.as_tensor(rng.normal(size=(WIDTH, WIDTH)), dtype=torch.float32)
    head = {0: lambda output: torch.sin(output.last_hidden_state.mean(dim=1) @ w).sum(dim=1)}
    found = []
    for seed in range(12):
        X, y = rng.normal(size=(200, WIDTH)), rng.integers(2, size=200)
        found.append(
            concept_sensitivity(
                *(embedder, TEXTS, [0] * 6, DifferenceInMeans(), X, y),
                heads=head,
                n_splits=2,
                random_state=seed,
            ).p_value.item()
        )
    assert np.median(found) > 0.1


def test_classifiers_name_their_classes(rng):
    model, processor = tiny_models.image_pair("vit", head=True)
    images = rng.integers(256, size=(6, 28, 28, 3)).astype(np.uint8)
    embedder = TransformerEmbedder((model, processor), layer=0)
    X, y = some(rng)
    given = (embedder, images, [0, 1, 2] * 2, DifferenceInMeans(), X, y)
    before = [p.requires_grad for p in model.parameters()]
    result = concept_sensitivity(*given, n_splits=2, random_state=0)
    by_hand = {k: (lambda output, k=k: output.logits[:, k]) for k in range(3)}
    for heads in ({0: 0, 1: 1, 2: 2}, by_hand):
        again = concept_sensitivity(*given, heads=heads, n_splits=2, random_state=0)
        np.testing.assert_allclose(again.sensitivity, result.sensitivity, rtol=1e-5)
        np.testing.assert_array_equal(again.random_shares, result.random_shares)
    wrong = concept_sensitivity(*given, heads={0: 1, 1: 2, 2: 0}, n_splits=2, random_state=0)
    assert not np.allclose(wrong.sensitivity, result.sensitivity)
    named = [model.config.id2label[k] for k in given[2]]
    by_name = concept_sensitivity(embedder, images, named, *given[3:], n_splits=2, random_state=0)
    np.testing.assert_array_equal(by_name.sensitivity, result.sensitivity)
    assert [p.requires_grad for p in model.parameters()] == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_the_order_and_the_batches_do_not_matter(rng):
    X, y = some(rng)
    found = []
    for size in (1, 4):
        embedder = reader(batch_size=size)
        for order in (np.arange(6), rng.permutation(6)):
            result = concept_sensitivity(
                embedder,
                [TEXTS[i] for i in order],
                [CLASSES[i] for i in order],
                *(DifferenceInMeans(), X, y),
                heads={"even": "a", "odd": "b"},
                n_splits=2,
                random_state=1,
            )
            found.append(result.sensitivity[0][np.argsort(order)])
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-3, atol=1e-6)


def test_a_head_that_reads_no_token_is_warned_of(rng):
    X, y = some(rng)
    head = {0: lambda output: output.last_hidden_state[:, 0].sum(dim=1)}
    given = (TEXTS, [0] * 6, DifferenceInMeans(), X, y)
    with pytest.warns(UserWarning, match="does not depend on the tokens of its 6"):
        result = concept_sensitivity(
            reader("bert", head=False, layer=-1), *given, heads=head, n_splits=2
        )
    assert not result.share.any()
    assert (result.p_value == 1).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        concept_sensitivity(reader("bert", head=False, layer=1), *given, heads=head, n_splits=2)


def test_the_test_is_that_of_the_library(rng):
    a, b = rng.normal(size=(3, 9)), rng.normal(1, 2, size=(3, 7))
    np.testing.assert_allclose(welch(a, b), stats.ttest_ind(a, b, axis=1, equal_var=False).pvalue)
    ones = np.ones((2, 4))
    np.testing.assert_array_equal(welch(ones, ones * [[1], [0.5]]), [1, 0])
    for hits in (0, 3, 10):
        low, high = wilson(np.array(hits / 10), 10, 0.9)
        expected = stats.binomtest(hits, 10).proportion_ci(0.9, method="wilson")
        np.testing.assert_allclose([low, high], expected, atol=1e-12)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"classes": ["even"] * 5}, "classes must have one entry per sample"),
        ({"classes": np.ones((6, 2))}, "classes must be a vector"),
        ({"classes": [0.5] * 6}, "classes must be a vector"),
        ({"heads": {"even": "a"}}, "heads must have an entry for each of the classes"),
        ({"heads": {"even": "a", "odd": "b", "c": "c"}}, "heads must have an entry"),
        ({"heads": None}, "heads must say what speaks for the classes"),
        ({"heads": {"even": "abcd", "odd": "b"}}, "heads must name words of one token"),
        ({"heads": {"even": 0, "odd": 1}}, "heads asks for column 0 of the logits"),
        ({"heads": {"even": -1, "odd": 1}}, "heads must be columns"),
        ({"heads": {"even": True, "odd": 1}}, "heads must be columns"),
        ({"heads": {"even": lambda o: o.logits, "odd": 1}}, "heads must give one number"),
        ({"heads": {"even": lambda o: 1.0, "odd": 1}}, "heads must give one number"),
        (
            {"heads": {"even": lambda o: o.logits[:, 0, 0].detach(), "odd": 1}},
            "heads gave numbers without a gradient",
        ),
        ({"method": DifferenceInMeans}, "'method' parameter"),
        ({"n_splits": 1}, "'n_splits' parameter"),
        ({"confidence_level": 1}, "'confidence_level' parameter"),
        ({"embedder": "gpt2"}, "'embedder' parameter"),
        ({"embedder": reader(pooling="mean")}, "embedder must not pool"),
        ({"embedder": reader(layer=[0, 1])}, "X must be a LayerStack of the layers"),
        ({"X": np.ones((24, 3))}, "X must have the 32 features"),
        ({"X": reader(layer=[0, 1]).transform(TEXTS)}, "X holds the layers"),
        ({"X": reader(layer=0).transform(TEXTS), "y": [0, 1] * 3}, "X comes from another block"),
        ({"y": [0, 1]}, "y"),
        ({"y": [1] + [0] * 23}, "y must have samples with and without"),
        ({"samples": []}, "X"),
    ],
)
def test_bad_input(changed, message, rng):
    X, y = some(rng)
    right = {
        "embedder": reader(),
        "samples": TEXTS,
        "classes": CLASSES,
        "method": DifferenceInMeans(),
        "X": X,
        "y": y,
        "heads": {"even": "a", "odd": "b"},
        "n_splits": 2,
    }
    with pytest.raises((ValueError, TypeError), match=message):
        concept_sensitivity(**{**right, **changed})


def test_scaled_tokens_are_refused(rng):
    X, y = some(rng)
    tokens = TokenArray(X.astype(np.float32), np.arange(25), source=Source(scaling="standard"))
    with pytest.raises(ValueError, match="X must be raw tokens"):
        concept_sensitivity(
            *(reader(), TEXTS, [0] * 6, DifferenceInMeans(), tokens, y), heads={0: "a"}
        )


def test_consistency_is_the_variance_over_layers(rng):
    scores = rng.random((4, 3, 2))
    found = layer_consistency(scores)
    for k in range(3):
        for c in range(2):
            mean = sum(scores[:, k, c]) / 4
            expected = sum((s - mean) ** 2 for s in scores[:, k, c]) / 4
            assert found[k, c] == pytest.approx(expected)
    np.testing.assert_allclose(layer_consistency(scores[rng.permutation(4)]), found)
    np.testing.assert_allclose(layer_consistency(scores + np.array([[[1, 2]]])), found)
    assert not np.allclose(layer_consistency(2 * scores), found)
    assert not layer_consistency(np.ones((3, 2))).any()
    assert layer_consistency([0.0, 1.0]) == 0.25


def test_consistency_reads_shares_of_several_layers():
    embedder = reader(layer=[0, 2])
    result = concept_sensitivity(
        *(embedder, TEXTS, CLASSES, DifferenceInMeans(), embedder.transform(TEXTS)),
        [0, 1, 1, 0, 0, 1],
        heads={"even": "a", "odd": "b"},
        n_splits=2,
    )
    np.testing.assert_allclose(layer_consistency(result), np.diff(result.share, axis=0)[0] ** 2 / 4)


@pytest.mark.parametrize(
    "scores", [[[0.1, 0.2]], 1.0, [], [[0.1], [np.nan]], "text", None, [["a"], ["b"]], Bunch(a=1)]
)
def test_consistency_needs_numbers_of_layers(scores):
    with pytest.raises(ValueError, match="scores must be"):
        layer_consistency(scores)
