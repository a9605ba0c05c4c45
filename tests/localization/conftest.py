import warnings

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from skact import LinearSeparator, MeanPrototype, SuperActivator, TokenScaler, TransformerEmbedder
from skact.datasets import make_shapes, shapes_model_path
from skact.localization import ConceptLocalizer
from skact.localization._methods import resolve_method
from tests import tiny_models


class Case:
    """Fitted parts on one data set, with the samples to map."""

    def __init__(self, embedder, concepts, detector, samples, y, labels):
        self.embedder, self.concepts, self.detector = embedder, concepts, detector
        self.samples, self.y, self.labels = samples, y, labels

    def localizer(self, method="direct", *, target="global", random_state=0, **settings):
        """With the settings that the method has, small where they are left out."""
        settings = {"n_masks": 100, "n_steps": 5, **settings}
        made = resolve_method(method)
        known = made.get_params()
        return ConceptLocalizer(
            self.embedder,
            self.concepts,
            self.detector,
            method=made.set_params(**{k: v for k, v in settings.items() if k in known}),
            target=target,
            random_state=random_state,
        )

    def fitted(self, method="direct", **params):
        """Ready to transform: only the cheap method is calibrated, and CALM, which must be."""
        localizer = self.localizer(method, **params)
        made = localizer.method
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*have no SuperActivator")
            localizer.set_params(method=made if made.needs_fit else "direct")
            localizer.fit(self.samples, self.y, token_labels=self.labels)
        return localizer.set_params(method=made)


@pytest.fixture(scope="session")
def shapes():
    """Coloured solids with the shipped model; maps are of images that nothing was fitted on."""
    train, test = make_shapes(36, random_state=0), make_shapes(9, random_state=1)
    embedder = TransformerEmbedder(shapes_model_path(), layer=3)
    names = train.target_names
    labels = embedder.align_masks(train.data, train.masks, names)
    tokens = embedder.transform(train.data)
    concepts = make_pipeline(TokenScaler(), LinearSeparator())
    concepts.fit(tokens, train.target, linearseparator__token_labels=labels)
    detector = SuperActivator().fit(concepts.transform(tokens), train.target, labels)
    truth = embedder.align_masks(test.data, test.masks, names)
    return Case(embedder, concepts, detector, test.data, test.target, truth)


@pytest.fixture(scope="session")
def texts():
    """Short texts and a tiny random model; the concept is a word."""
    samples = [
        "the cat sat on the happy cat",
        "not happy at all",
        "the angry thing sat",
        "angry cat",
        "happy happy cat sat",
        "not the thing at all, not at all",
    ]
    embedder = TransformerEmbedder(tiny_models.text_pair("bert"), layer=2, batch_size=7)
    words = ("happy", "cat")
    spans = [
        [(i, i + len(w), w) for w in words for i in range(len(t)) if t.startswith(w, i)]
        for t in samples
    ]
    labels = embedder.align_spans(samples, spans, words)
    y = labels.max().astype(int)
    tokens = embedder.transform(samples)
    concepts = MeanPrototype().fit(tokens, y, labels)
    detector = SuperActivator(delta=0.5).fit(concepts.transform(tokens), y, labels)
    return Case(embedder, concepts, detector, samples, y, labels)


@pytest.fixture
def ranks():
    """Share of pairs (labelled, other token) that a map orders rightly, for each map."""

    def auc(maps, labels):
        found = []
        for attributions, marks in zip(maps, labels, strict=True):
            for scores, positive in zip(attributions.T, marks.T, strict=True):
                if positive.any() and not positive.all() and not np.isnan(scores).any():
                    inside, outside = scores[positive][:, None], scores[~positive]
                    found.append(np.mean((inside > outside) + 0.5 * (inside == outside)))
        return np.array(found)

    return auc
