"""What the pieces of concept algebra for maps and for shared vectors say of photographs.

- isolated: whether the score of a thing tells its most frequent partner where the thing is not;
  against vectors as they are, and isolated from as many vectors of random labels.
- segmenter: IoU of patches marked by units; against separators, masks of other photographs and
  marking every patch.
- maps: average precision of maps of things before and after they are cleaned; against a median, a
  Gaussian, and the interference of another photograph.
"""

import numpy as np
from algebra_data import mean_of, resampled, scaled, separators
from common import SEED
from scipy.ndimage import gaussian_filter, median_filter
from sklearn.metrics import average_precision_score, roc_auc_score

from skact import (
    ConceptSegmenter,
    DifferenceInMeans,
    IsolatedConcepts,
    LinearSeparator,
    MeanPrototype,
    concept_iou,
    rank_gaussian_filter,
    remove_interference,
)

BLOCK = 8
VECTORS = {
    "differences in means": DifferenceInMeans(),
    "separators": LinearSeparator(random_state=SEED),
}


def isolated(photos, **_):
    """Tell whether a score stops speaking of the thing that its own is mostly seen with."""
    X, train, test = scaled(photos, BLOCK), photos["train"], photos["test"]
    partner = partners(train.y)
    rows, about = {}, {"things": train.names}
    about["partners"] = {train.names[c]: train.names[p] for c, p in enumerate(partner)}
    for kind, plain in VECTORS.items():
        for name, rho in {"as they are": 0.0, "rho = 0.9": 0.9, "rho = 1": 1.0}.items():
            method = IsolatedConcepts(plain, rho=rho).fit(X["train"], train.y)
            scores = method.transform(X["test"]).max()
            rows[f"{kind}, {name}"] = leaks(scores, test.y, partner)
        about[f"{kind}, energy along the others"] = float(np.mean(method.shared_))
        scores = from_random(plain, X, train.y)
        rows[f"{kind}, rho = 1, others of random labels"] = leaks(scores, test.y, partner)
    return {"about": about, "rows": rows}


def partners(y):
    """For each concept the one that it goes with most often, by correlation."""
    together = np.corrcoef(y.T)
    np.fill_diagonal(together, -1)
    return together.argmax(axis=1)


def from_random(plain, X, y):
    """Scores of each concept, isolated from vectors of as many concepts with random labels."""
    rng = np.random.default_rng(SEED)
    columns = []
    for c in range(y.shape[1]):
        others = np.column_stack([y[:, c], rng.permutation(np.delete(y, c, axis=1))])
        method = IsolatedConcepts(plain, rho=1.0).fit(X["train"], others)
        columns.append(method.transform(X["test"]).max()[:, 0])
    return np.column_stack(columns)


def leaks(scores, y, partner):
    """AUROC of each concept, and of its partner among samples without the concept."""

    def mean_auroc(rows, of_partner):
        found = []
        for c, p in enumerate(partner):
            kept = rows[y[rows, c] == 0] if of_partner else rows
            truth = y[kept, p if of_partner else c]
            if 0 < truth.sum() < len(truth):
                found.append(roc_auc_score(truth, scores[kept, c]))
        return np.mean(found)

    return {
        "AUROC of the thing": resampled(lambda r: mean_auroc(r, False), len(y), 100),
        "of its partner, where it is not": resampled(lambda r: mean_auroc(r, True), len(y), 100),
    }


def segmenter(photos, **_):
    """Mark patches by units, against separators, random masks and marking everything."""
    X, train, test = scaled(photos, BLOCK), photos["train"], photos["test"]
    masks = {}
    for share in (0.005, 0.05):
        for units in ("best", "weighted"):
            method = ConceptSegmenter(share, units=units)
            method.fit(X["train"], train.y, token_labels=train.labels)
            masks[f"{units} units, share {share}"] = method.predict(X["test"])
    order = np.random.default_rng(SEED).permutation(len(train.y))
    method = ConceptSegmenter(0.05).fit(
        X["train"], train.y[order], token_labels=moved(train.labels, order)
    )
    masks["weighted units, share 0.05, masks of other photographs"] = method.predict(X["test"])
    masks["linear separators, cut that is best in training"] = cut(X, train)
    masks["every patch"] = test.labels.map(np.ones_like)
    n = len(test.y)
    rows = {
        name: {
            "set IoU, mean over concepts": resampled(
                lambda r, m=marks: concept_iou(test.labels[r], m[r]).mean(), n
            )
        }
        for name, marks in masks.items()
    }
    return {"about": {"concepts": test.names, "photographs": [len(train.y), n]}, "rows": rows}


def moved(labels, order):
    """Give each photograph the masks of another one; all are of one grid."""
    return [labels[i] for i in order]


def cut(X, train):
    """Mark patches by linear separators, each cut where its IoU in training is largest."""
    method = separators(X["train"], train)
    scores, truth = method.transform(X["train"]).flat(), train.labels.flat()
    levels = np.quantile(scores, np.linspace(0.5, 0.995, 40), axis=0)
    iou = np.stack(
        [(truth & (scores > q)).sum(axis=0) / (truth | (scores > q)).sum(axis=0) for q in levels]
    )
    best = levels[iou.argmax(axis=0), np.arange(levels.shape[1])]
    return method.transform(X["test"]).map(lambda values: values > best)


def maps(photos, **_):
    """Judge maps of things that are there before and after they are cleaned."""
    X, train, test = scaled(photos, BLOCK), photos["train"], photos["test"]
    side = int(np.sqrt(test.labels.lengths[0]))
    methods = {
        "prototypes": MeanPrototype().fit(X["train"], train.y, token_labels=train.labels),
        "separators": separators(X["train"], train),
    }
    rows = {}
    for kind, method in methods.items():
        scores = np.stack([np.asarray(s) for s in method.transform(X["test"]).to_list()])
        grids = scores.transpose(0, 2, 1).reshape(len(scores), -1, side, side)
        vectors = method.concept_vectors_
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        near = np.maximum(units @ units.T, 0)
        plain = judged(grids, test)
        for name, clean in CLEANED.items():
            precision, inside = judged(clean(grids, near), test)
            rows.setdefault(name, {}).update(cells(kind, precision, inside, plain))
    return {"about": {"things": test.names, "photographs": len(test.y)}, "rows": rows}


def cells(kind, precision, inside, plain):
    return {
        f"{kind}: AP": mean_of(precision),
        f"{kind}: gain in AP": mean_of(precision - plain[0]),
        f"{kind}: peak inside": mean_of(inside),
    }


def without_others(grids, near, order=slice(None)):
    """Take out of each map those of all other concepts of a photograph, the own or another."""
    others = grids[order]
    out = np.empty_like(grids, dtype=np.float64)
    for i, own in enumerate(grids):
        for c, target in enumerate(own):
            weights, more = np.delete(near[c], c), np.delete(others[i], c, axis=0)
            out[i, c] = remove_interference(target, np.maximum(more, 0), weights)
    return out


def filtered(grids, smooth):
    return np.stack([smooth(own) for own in grids])


CLEANED = {
    "as they are": lambda grids, near: grids,
    "cut off at 0": lambda grids, near: np.maximum(grids, 0),
    "rank-Gaussian, 3 x 3": lambda grids, near: filtered(grids, rank_gaussian_filter),
    "rank-Gaussian, 5 x 5": lambda grids, near: filtered(
        grids, lambda own: rank_gaussian_filter(own, 5)
    ),
    "median, 3 x 3": lambda grids, near: median_filter(np.maximum(grids, 0), (1, 1, 3, 3)),
    "Gaussian, 1 patch": lambda grids, near: gaussian_filter(np.maximum(grids, 0), (0, 0, 1, 1)),
    "others taken out": without_others,
    "others of another photograph taken out": lambda grids, near: without_others(
        grids, near, np.roll(np.arange(len(grids)), 1)
    ),
    "others taken out, then rank-Gaussian, 3 x 3": lambda grids, near: filtered(
        without_others(grids, near), rank_gaussian_filter
    ),
}


def judged(grids, test):
    """Average precision of patches, and whether the peak is inside; a mean per photograph."""
    precision, inside = [], []
    for own, labels in zip(grids, test.labels.to_list(), strict=True):
        there = [c for c in range(labels.shape[1]) if 0 < labels[:, c].sum() < len(labels)]
        if there:
            found = [average_precision_score(labels[:, c], own[c].ravel()) for c in there]
            precision.append(np.mean(found))
            inside.append(np.mean([labels[own[c].argmax(), c] for c in there]))
    return np.array(precision), np.array(inside)
