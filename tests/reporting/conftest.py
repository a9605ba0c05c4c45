import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline

import skact
from tests import browser, tiny_models

# Words, and what must stay text.
EVIL = [
    "<script>document.title='owned'</script>",
    '"><img src=x onerror=alert(1)>',
    "</mark></p></section><style>*{display:none}</style>",
    "&lt;b&gt; &amp; \u2028 \u202e <svg/onload=alert(1)>",
]
TEXTS = [f"the {'happy' if i % 2 else 'angry'} cat {EVIL[i % 4]}" for i in range(12)]
NAMES = ["happy </option><script>alert(1)</script>", 'angry" onfocus="alert(1)']


def words_in(texts):
    return np.array([["happy" in text, "angry" in text] for text in texts], int)


@pytest.fixture(scope="session")
def line():
    """Texts with markup in, decisions on two concepts out; and the labels of half of the texts."""
    embedder = skact.TransformerEmbedder(tiny_models.text_pair("bert"), layer=1)
    spans = [[(4, 9, text[4:9])] for text in TEXTS]
    marks = embedder.align_spans(TEXTS, spans, ["happy", "angry"])
    marks = marks.with_values(marks.flat(), NAMES)
    tokens, y = embedder.transform(TEXTS), words_in(TEXTS)
    concepts = skact.MeanPrototype().fit(tokens, y, marks)
    detector = skact.SuperActivator(0.5).fit(concepts.transform(tokens), y, marks)
    return make_pipeline(embedder, FrozenEstimator(concepts), FrozenEstimator(detector))


@pytest.fixture(scope="session")
def labels():
    y = words_in(TEXTS).astype(float)
    y[0] = 1 - y[0]  # so that there are errors
    return y


@pytest.fixture(scope="session")
def shapes():
    return skact.make_shapes(50, random_state=0)


@pytest.fixture(scope="session")
def shapes_detector(shapes):
    detector = skact.ConceptDetector(
        skact.shapes_model_path(), layer=[0.5, -1], cv=2, random_state=0
    )
    return detector.fit(shapes.data[:30], shapes.target[:30])


@pytest.fixture(scope="module")
def chrome():
    """A headless browser."""
    if browser.find() is None:
        pytest.skip(
            "no browser is installed; apt-get install chromium-headless-shell, or name one by "
            "SKACT_BROWSER"
        )
    with browser.Browser() as page:
        yield page
