import re

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from skact.datasets import make_paragraphs


@pytest.fixture(scope="module")
def paragraphs():
    return make_paragraphs(400, random_state=0)


def pieces(paragraphs):
    """Return the labelled sentences and their labels."""
    return zip(
        *[
            (text[span.start : span.end], span.label)
            for text, spans in zip(paragraphs.data, paragraphs.spans, strict=True)
            for span in spans
        ],
        strict=True,
    )


def plain_text(paragraphs):
    """Return every text with its labelled sentence cut out."""
    return [
        text[: spans[0].start] + text[spans[0].end :] if spans else text
        for text, spans in zip(paragraphs.data, paragraphs.spans, strict=True)
    ]


def test_half_of_the_texts_carry_one_concept(paragraphs):
    assert paragraphs.target_names == ["joy", "anger", "food", "travel"]
    assert paragraphs.target.dtype == np.int64
    np.testing.assert_array_equal(paragraphs.target.sum(axis=0), [50] * 4)
    for row, spans in zip(paragraphs.target, paragraphs.spans, strict=True):
        assert [span.label for span in spans] == [
            name for name, own in zip(paragraphs.target_names, row, strict=True) if own
        ]


def test_a_span_is_exactly_one_sentence(paragraphs):
    for text, spans in zip(paragraphs.data, paragraphs.spans, strict=True):
        assert "  " not in text
        assert "{" not in text
        assert text == text.strip()
        for span in spans:
            piece = text[span.start : span.end]
            assert re.fullmatch(r"[A-Z][^.!]*[.!]", piece)
            assert text[: span.start] == "" or text[: span.start].endswith(". ")
            assert text[span.end :] == "" or text[span.end :].startswith(" ")


def test_spans_stand_first_within_and_last(paragraphs):
    places = [
        (span.start == 0, span.end == len(text))
        for text, spans in zip(paragraphs.data, paragraphs.spans, strict=True)
        for span in spans
    ]
    counts = np.array([places.count(p) for p in [(True, False), (False, False), (False, True)]])
    assert counts.sum() == 200
    assert (counts > 20).all()


def test_length_does_not_tell_the_label(paragraphs):
    n_sentences = np.array([len(re.findall(r"(?<!Mr)(?<!Ms)[.!]", t)) for t in paragraphs.data])
    assert set(n_sentences) == {4, 5, 6, 7}
    carries = paragraphs.target.any(axis=1)
    assert abs(n_sentences[carries].mean() - n_sentences[~carries].mean()) < 0.4


def test_sentences_are_varied(paragraphs):
    sentences, _ = pieces(paragraphs)
    assert len(set(sentences)) > 0.95 * len(sentences)
    plain = [s for text in plain_text(paragraphs) for s in re.split(r"(?<!Mr)(?<!Ms)\. ?", text)]
    plain = [sentence for sentence in plain if sentence.strip()]
    assert len(set(plain)) > 0.8 * len(plain)


def test_words_of_a_concept_occur_in_its_sentence_only(paragraphs):
    sentences, labels = pieces(paragraphs)
    model = make_pipeline(CountVectorizer(), LogisticRegression(C=10, max_iter=1000))
    assert cross_val_score(model, sentences, labels, cv=4).mean() > 0.97
    shuffled = np.random.RandomState(0).permutation(labels)
    assert cross_val_score(model, sentences, shuffled, cv=4).mean() < 0.4

    # The rest of a text does not know whether a labelled sentence was there.
    carries = paragraphs.target.any(axis=1)
    assert cross_val_score(model, paragraphs.data, carries, cv=4).mean() > 0.9
    assert cross_val_score(model, plain_text(paragraphs), carries, cv=4).mean() < 0.7


def test_the_seed_decides():
    first, same, other = (make_paragraphs(20, random_state=seed) for seed in (3, 3, 4))
    assert first.data == same.data
    assert first.spans == same.spans
    assert not set(first.data) & set(other.data)
    assert make_paragraphs(20, random_state=np.random.RandomState(3)).data == first.data


@pytest.mark.parametrize("n_samples", [1, 7, 8, 19])
def test_any_number_of_samples(n_samples):
    paragraphs = make_paragraphs(n_samples, random_state=0)
    assert len(paragraphs.data) == len(paragraphs.spans) == len(paragraphs.target) == n_samples
    if n_samples >= 8:
        assert (paragraphs.target.sum(axis=0) >= 1).all()


@pytest.mark.parametrize(
    ("n_samples", "error", "message"),
    [
        (0, ValueError, "'n_samples' .* Got 0"),
        (2.0, TypeError, "'n_samples' .* an int"),
        (True, TypeError, "'n_samples' .* an int"),
    ],
)
def test_bad_arguments_are_refused(n_samples, error, message):
    with pytest.raises(error, match=message):
        make_paragraphs(n_samples)
