"""Tokens of texts: which there are, what they cover, and which of them a span labels."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers, processors

from skact.embedding import TransformerEmbedder
from skact.models._text import Token, check_spans, encode, label_tokens, locate
from tests import tiny_models


def embedder(kind="bert", tokenizer=None, **params):
    model, own = tiny_models.text_pair(kind)
    return TransformerEmbedder((model, tokenizer or own), **params)


@pytest.mark.parametrize("kind", tiny_models.TEXT)
def test_tokens_cover_their_characters(kind, texts):
    found = embedder(kind)
    tokens = found.tokens_of(texts)
    assert [len(row) for row in tokens] == found.transform(texts).lengths.tolist()
    for text, row in zip(texts, tokens, strict=True):
        assert all(token.text == text[token.start : token.end] for token in row)
        covered = {c for token in row for c in range(token.start, token.end)}
        assert covered >= {c for c, character in enumerate(text) if not character.isspace()}


def test_special_tokens_cover_nothing():
    row = embedder(special_tokens=True).tokens_of(["The cat"])[0]
    assert row == [
        Token("[CLS]", 0, 0),
        Token("The", 0, 3),
        Token("cat", 4, 7),
        Token("[SEP]", 0, 0),
    ]


def test_truncation():
    texts = ["the cat sat " * 40, "the cat"]
    assert embedder().transform(texts).lengths.tolist() == [62, 2]  # 64 positions
    assert embedder("llama").transform(texts).lengths.tolist() == [127, 4]  # 128 positions
    cut = embedder(max_length=5).transform(texts)
    assert cut.lengths.tolist() == [3, 2]
    short = embedder().transform(["the cat sat"])
    np.testing.assert_allclose(cut[0], short[0], atol=1e-5)
    tokenizer = tiny_models.wordpiece_tokenizer(model_max_length=10)
    assert embedder(tokenizer=tokenizer).transform(texts).lengths.tolist() == [8, 2]
    longer = embedder(tokenizer=tokenizer, max_length=20)
    assert longer.transform(texts).lengths.tolist() == [18, 2]


def test_positions_behind_the_padding_index_count_for_the_limit():
    import transformers

    tokenizer = tiny_models.wordpiece_tokenizer()
    config = transformers.RobertaConfig(
        **tiny_models._COMMON, vocab_size=len(tokenizer), max_position_embeddings=20, pad_token_id=1
    )
    model = transformers.RobertaModel(config).eval()
    found = TransformerEmbedder((model, tokenizer)).transform(["the cat " * 30])
    assert found.lengths.tolist() == [16]
    with pytest.raises(ValueError, match="18 positions"):
        TransformerEmbedder((model, tokenizer), max_length=19).transform(["the cat"])


def test_the_users_tokenizer_is_left_alone(texts):
    tokenizer = tiny_models.wordpiece_tokenizer()
    tokenizer(["a", "the cat sat"], padding=True, truncation=True, max_length=7)
    backend = tokenizer.backend_tokenizer
    before = copy.deepcopy((backend.truncation, backend.padding))
    assert None not in before
    found = embedder(tokenizer=tokenizer, max_length=4)
    found.transform(texts)
    found.tokens_of(texts)
    assert (backend.truncation, backend.padding) == before


class WrongOffsets:
    """A tokenizer whose answers about characters can be spoilt."""

    is_fast = True
    all_special_ids = (2, 3)

    def __init__(self, spoil):
        self.spoil, self.inner = spoil, tiny_models.wordpiece_tokenizer()
        self.model_max_length, self.pad_token_id = 512, 0

    def __call__(self, texts, **options):
        got = self.inner(texts, **options)
        if "offset_mapping" in got:
            got["offset_mapping"] = [self.spoil(list(row)) for row in got["offset_mapping"]]
        return got

    def __getattr__(self, name):
        if name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda row: [(start, start) for start, _ in row],
        lambda row: [row[0], *row[-2:0:-1], row[-1]],
        lambda row: [(start, end + 50) for start, end in row],
    ],
)
def test_wrong_offsets_are_refused(spoil):
    good = embedder(tokenizer=WrongOffsets(lambda row: row))
    good.align_spans(["the cat sat"], [[(0, 3, "a")]])
    wrong = embedder(tokenizer=WrongOffsets(spoil))
    assert wrong.transform(["the cat sat"]).lengths.tolist() == [3]
    with pytest.raises(
        ValueError, match="WrongOffsets gives wrong character offsets for sample 0, 'the"
    ):
        wrong.align_spans(["the cat sat"], [[(0, 3, "a")]])


def located(text, tokenizer, special_tokens=False, max_length=None):
    encoded = encode(
        [text], tokenizer, max_length=max_length, special_tokens=special_tokens, with_spans=True
    )
    return locate(encoded, [text], tokenizer, special_tokens)[0].tolist()


RIGHT, WRONG = tiny_models.llama3_tokenizer(), tiny_models.llama3_tokenizer(wrong=True)


@pytest.mark.parametrize(
    "text",
    [
        "the cat sat.",
        " the cat",
        "  the\n\ncat \t",
        "今天 the 今 天天",
        "😀 😀the😀x 😀xx",
        "é e\u0301 \ufffd the\x00",
        "<|begin_of_text|> the cat",
        "the cat<|begin_of_text|><|begin_of_text|> sat",
    ],
)
@pytest.mark.parametrize("special_tokens", [False, True])
def test_wrong_offsets_of_llama_3_are_repaired(text, special_tokens):
    right, wrong = (
        t([text], add_special_tokens=special_tokens, return_offsets_mapping=True)
        for t in (RIGHT, WRONG)
    )
    assert right["input_ids"] == wrong["input_ids"]
    assert right["offset_mapping"] != wrong["offset_mapping"]
    assert located(text, WRONG, special_tokens) == located(text, RIGHT, special_tokens)


@given(st.text(min_size=1) | st.text("the cat.今天😀x\n", min_size=1), st.data())
@settings(max_examples=200, deadline=None)
def test_repaired_offsets_are_the_right_ones(text, data):
    special_tokens = data.draw(st.booleans())
    max_length = data.draw(st.none() | st.integers(2, 12))
    side = data.draw(st.sampled_from(["left", "right"]))
    right, wrong = (copy.deepcopy(t) for t in (RIGHT, WRONG))
    right.truncation_side = wrong.truncation_side = side
    expected = located(text, right, special_tokens, max_length)
    found = located(text, wrong, special_tokens, max_length)
    cut = {"truncation": max_length is not None, "max_length": max_length}
    said = wrong([text], return_offsets_mapping=True, **cut)["offset_mapping"][0]
    # A text in which only blanks end where they start is left so: they hold no text.
    blank = [not text[start:end].strip() for start, end in expected]
    if any(tuple(e) not in said and not b for e, b in zip(expected, blank, strict=True)):
        assert found == expected
    assert all(f == e or b for f, e, b in zip(found, expected, blank, strict=True))


def test_labels_do_not_see_that_the_offsets_were_wrong():
    model, _ = tiny_models.text_pair("llama")
    model = copy.deepcopy(model)
    model.resize_token_embeddings(len(RIGHT))
    texts = ["the cat 😀 sat.", "今天 the cat sat on the thing"]
    spans = [[(8, 9, "smile"), (4, 7, "cat")], [(1, 6, "cat")]]
    right, wrong = (TransformerEmbedder((model, t), special_tokens=True) for t in (RIGHT, WRONG))
    labels = wrong.align_spans(texts, spans)
    assert labels.max().all(axis=0).tolist() == [True, False]
    np.testing.assert_array_equal(labels.flat(), right.align_spans(texts, spans).flat())
    tokens = wrong.tokens_of(texts)
    assert tokens == right.tokens_of(texts)
    assert tokens[0][:3] == [
        Token("<|begin_of_text|>", 0, 0),
        Token("the", 0, 3),
        Token("cat", 4, 7),
    ]


def lower_casing():
    tokenizer = tiny_models.llama3_tokenizer(wrong=True)
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    return tokenizer


def sentence_pieces():
    tokenizer = tiny_models.llama3_tokenizer(wrong=True)
    words = {"<|begin_of_text|>": 0, "▁the": 1, "▁cat": 2}
    tokenizer.backend_tokenizer.model = models.WordLevel(words, unk_token="▁the")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


@pytest.mark.parametrize("make", [lower_casing, sentence_pieces])
def test_tokens_that_do_not_spell_the_text_are_not_guessed(make):
    with pytest.raises(ValueError, match="wrong character offsets for sample 0, 'The cat'"):
        located("The cat", make())


def test_characters_that_were_not_asked_for():
    encoded = encode(["The cat"], RIGHT, max_length=None, special_tokens=False)
    with pytest.raises(ValueError, match="with_spans=True"):
        locate(encoded, ["The cat"], RIGHT, False)


def test_a_slow_tokenizer_embeds_but_does_not_locate():
    slow = WrongOffsets(lambda row: row)
    slow.is_fast, slow.save_vocabulary = False, lambda folder: ()
    assert embedder(tokenizer=slow).transform(["the cat"]).shape == (1, tiny_models.WIDTH)
    with pytest.raises(ValueError, match="WrongOffsets is a slow tokenizer"):
        embedder(tokenizer=slow).align_spans(["the cat"], [[(0, 3, "a")]])


def slow_labels(tokens, spans, concepts):
    """Character by character."""
    rows = []
    for row, labelled in zip(tokens, spans, strict=True):
        for token in row:
            characters = set(range(token.start, token.end))
            rows.append(
                [
                    any(label == c and characters & set(range(s, e)) for s, e, label in labelled)
                    for c in concepts
                ]
            )
    return np.array(rows)


@st.composite
def labelled_texts(draw):
    texts = draw(
        st.lists(
            st.text("the caé😀. \n", min_size=1, max_size=30).filter(str.strip),
            min_size=1,
            max_size=4,
        )
    )
    spans = []
    for text in texts:
        row = []
        for _ in range(draw(st.integers(0, 3))):
            start = draw(st.integers(0, len(text) - 1))
            row.append(
                (start, draw(st.integers(start + 1, len(text))), draw(st.sampled_from("ab")))
            )
        spans.append(row)
    return texts, spans


@given(labelled_texts(), st.sampled_from(["bert", "llama"]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_spans_equal_a_slow_replica(sample, kind, special_tokens):
    texts, spans = sample
    found = embedder(kind, special_tokens=special_tokens)
    labels = found.align_spans(texts, spans, concepts=["b", "a"])
    tokens = found.tokens_of(texts)
    assert labels.dtype == bool
    assert labels.feature_names == ("b", "a")
    assert labels.lengths.tolist() == [len(row) for row in tokens]
    np.testing.assert_array_equal(labels.flat(), slow_labels(tokens, spans, ["b", "a"]))


def test_spans_of_one_text():
    texts = ["The cat sat.", "not happy"]
    spans = [[(4, 7, "animal"), (5, 9, "verb")], []]
    labels = embedder().align_spans(texts, spans)
    assert labels.feature_names == ("animal", "verb")
    # the | cat | sat | .
    assert labels[0].tolist() == [[False, False], [True, True], [False, True], [False, False]]
    assert not labels[1].any()
    assert labels.lengths.tolist() == embedder().transform(texts).lengths.tolist()
    assert embedder(pooling="mean").align_spans(texts, spans).lengths.tolist() == [4, 2]


def test_chosen_concepts_pass_over_other_labels():
    labels = embedder().align_spans(["the cat"], [[(0, 3, "a"), (4, 7, "b")]], concepts=["b", "c"])
    assert labels[0].tolist() == [[False, False], [True, False]]


def test_a_span_lost_to_truncation_labels_nothing():
    labels = embedder(max_length=4).align_spans(["the cat sat"], [[(8, 11, "a"), (4, 7, "b")]])
    assert labels[0].tolist() == [[False, False], [False, True]]


def test_a_span_of_blanks_labels_nothing():
    assert not embedder().align_spans(["the  cat"], [[(3, 5, "a")]]).flat().any()


@pytest.mark.parametrize(
    ("texts", "spans", "concepts", "message"),
    [
        (["abc"], [], None, "one entry per text: got 0 for 1"),
        (["abc", "abc"], [[], [(0, 1, "a"), (1, 4, "a")]], None, r"spans\[1\]\[1\].*3.*\(1, 4\)"),
        (["abc"], [[(2, 2, "a")]], None, r"spans\[0\]\[0\].*\(2, 2\)"),
        (["abc"], [[(-1, 2, "a")]], None, r"spans\[0\]\[0\].*\(-1, 2\)"),
        (["abc"], [[(0, 2)]], None, r"spans\[0\]\[0\] must be \(start, end, label\)"),
        (["abc"], [[5]], None, r"spans\[0\]\[0\] must be \(start, end, label\)"),
        (["abc"], [5], None, r"spans\[0\] must be a list of spans, got 5"),
        (
            ["abc"],
            [[(0.9, 2, "a")]],
            None,
            r"spans\[0\]\[0\] must have an int as its start, got 0.9",
        ),
        (["abc"], [[(0, 2.5, "a")]], None, "an int as its end, got 2.5"),
        (["abc"], [[(True, 2, "a")]], None, "an int as its start, got True"),
        (["abc"], [[(0, np.True_, "a")]], None, "an int as its end, got (np.)?True"),
        (["abc"], [[("0", 2, "a")]], None, "an int as its start, got '0'"),
        (
            ["abc"],
            [[(0, 2, None)]],
            None,
            r"spans\[0\]\[0\] must have a name as its label, got None",
        ),
        (["abc"], [[(0, 2, np.nan)]], None, "a name as its label, got nan"),
        (["abc"], [[(0, 2, "")]], ["a"], "a name as its label, got ''"),
        (["abc"], [[(0, 2, ["a"])]], ["a"], r"a name as its label, got \['a'\]"),
        (["abc"], 3, None, "spans must have one entry per text, got 3"),
        (["abc"], [[]], None, "no concept"),
        (["abc"], [[(0, 2, "a")]], [], "at least one name"),
    ],
)
def test_bad_spans_are_named(texts, spans, concepts, message):
    with pytest.raises((ValueError, TypeError), match=message):
        embedder().align_spans(texts, spans, concepts)


def test_integers_of_numpy_are_places_and_numbers_are_labels():
    plain = embedder().align_spans(["the cat"], [[(0, 3, 1)]])
    assert plain.flat().tolist() == [[True], [False]]
    spans = [[(np.int64(0), np.uint8(3), 1)]]
    assert (embedder().align_spans(["the cat"], spans).flat() == plain.flat()).all()


def test_spans_need_a_text_model(images):
    pair = tiny_models.image_pair("vit")
    with pytest.raises(ValueError, match="spans belong to texts"):
        TransformerEmbedder(pair).align_spans(images, [[]] * len(images), ["a"])


def test_a_token_without_characters_has_no_label():
    located = [np.array([[0, 2], [2, 2], [2, 4]])]
    labels = label_tokens(*check_spans(["abcd"], [[(1, 4, "a")]], None), located)
    assert labels.tolist() == [[True], [False], [True]]


def test_a_cls_token_that_is_not_put_first_is_no_cls_position():
    tokenizer = tiny_models.wordpiece_tokenizer()
    assert embedder(tokenizer=tokenizer, pooling="cls").transform(["a"]).shape == (1, 32)
    without = tiny_models.wordpiece_tokenizer()
    without.backend_tokenizer.post_processor = processors.Sequence([])
    assert without.cls_token_id is not None
    with pytest.raises(ValueError, match="needs a CLS position"):
        embedder(tokenizer=without, pooling="cls").transform(["a"])


@pytest.mark.parametrize("kind", tiny_models.TEXT)
def test_no_token_counts_the_white_space_before_its_word(kind):
    texts = ["the cat  sat", "\tI am\n happy", "not  "]
    for text, row in zip(texts, embedder(kind).tokens_of(texts), strict=True):
        for token in row:
            said = text[token.start : token.end]
            assert not said[:1].isspace() or said.isspace()


@pytest.mark.parametrize("kind", tiny_models.TEXT)
def test_a_span_that_ends_in_a_blank_does_not_label_the_next_word(kind):
    text = "the cat sat"
    found = embedder(kind)
    for span in ((4, 8), (4, 7)):
        labels = found.align_spans([text], [[(*span, "a")]])[0][:, 0]
        named = {
            t.text for t, label in zip(found.tokens_of([text])[0], labels, strict=True) if label
        }
        assert "".join(sorted(named, key=text.find)).strip() == "cat"


def test_spans_may_be_dicts():
    spans = [[{"start": 4, "end": 7, "label": "a", "score": 0.5}]]
    labels = embedder().align_spans(["the cat"], spans)
    assert (labels.flat() == embedder().align_spans(["the cat"], [[(4, 7, "a")]]).flat()).all()
    with pytest.raises(
        ValueError, match=r"spans\[0\]\[0\] must be \(start, end, label\), or a dict"
    ):
        embedder().align_spans(["the cat"], [[{"begin": 4, "end": 7}]])


@pytest.mark.parametrize("text", ["a\ud83d", "\udc00", "cat \udfff cat"])
def test_half_of_a_surrogate_pair_is_named(text):
    with pytest.raises(
        ValueError, match=r"sample 1 holds .* at character .*half of a surrogate pair"
    ):
        embedder().transform(["cat", text])
    whole = "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")
    assert embedder().transform([f"cat {whole}"]).n_tokens


@pytest.mark.parametrize("max_length", [1, 2])
def test_a_length_without_room_for_a_token_is_refused(max_length):
    with pytest.raises(ValueError, match=f"max_length={max_length} leaves no token of a text"):
        embedder(max_length=max_length).transform(["the cat"])
    assert embedder(max_length=3).transform(["the cat"]).n_tokens == 1
