"""What the pieces of concept algebra that tell classes by concepts say of requests.

- bottleneck: intents told by slots alone; against slots with random labels, and all features.
- embedding: the nearest request in cosines with slots; against other spaces of as many dimensions.
- rules: intents derived from detected slots by RULES; against the same rules with the names of
  slots dealt anew. They were written by hand after a look at which slots go with which intent.
"""

import numpy as np
from algebra_data import mean_of, scaled, separators
from common import SEED
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skact

BLOCK = 3
RULES = {
    "AddToPlaylist": [
        ["playlist", "playlist_owner"],
        ["playlist", "music_item"],
        ["playlist", "entity_name"],
        ["playlist", "artist"],
    ],
    "BookRestaurant": [["restaurant_type"], ["restaurant_name"], ["party_size_number"]],
    "GetWeather": [
        ["condition_temperature"],
        ["condition_description"],
        ["timeRange", "city"],
        ["timeRange", "state"],
        ["timeRange", "country"],
    ],
    "PlayMusic": [["service"], ["artist", "year"], ["artist", "sort"], ["music_item", "year"]],
    "RateBook": [["rating_value"], ["rating_unit"]],
    "SearchCreativeWork": [["object_name", "object_type"]],
    "SearchScreeningEvent": [
        ["movie_name"],
        ["movie_type"],
        ["location_name"],
        ["object_location_type"],
    ],
}


def bottleneck(requests, **_):
    X, train, test = scaled(requests, BLOCK), requests["train"], requests["test"]
    rng = np.random.default_rng(SEED)
    rows = {}
    told = {"labels of tokens": (train.y, train.labels), "labels of requests": (train.y, None)}
    told["random labels"] = (train.y[rng.permutation(len(train.y))], None)
    for kind, (y, labels) in told.items():
        for C in (1.0, 0.03):
            method = skact.LinearSeparator(random_state=SEED)
            model = skact.ConceptBottleneckClassifier(method, C=C, random_state=SEED)
            model.fit(X["train"], train.kinds, concept_labels=y, token_labels=labels)
            right = model.predict(X["test"]) == test.kinds
            weights = float((model.coef_ != 0).sum(axis=1).mean())
            rows[f"{kind}, C = {C}"] = {"accuracy": mean_of(right), "weights a class": weights}
            if kind == "labels of tokens" and C < 1:
                read = strongest(model, train.names)
    line = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    line.fit(X["train"].mean(), train.kinds)
    right = line.predict(X["test"].mean()) == test.kinds
    rows["no concepts, mean of tokens"] = {
        "accuracy": mean_of(right),
        "weights a class": float(X["train"].n_features),
    }
    kinds, counts = np.unique(train.kinds, return_counts=True)
    always = mean_of(test.kinds == kinds[counts.argmax()])
    rows["the most frequent class"] = {"accuracy": always, "weights a class": 0.0}
    about = {"requests": [len(train.y), len(test.y)], "slots": train.names, "told by": read}
    return {"about": about, "rows": rows}


def strongest(model, names):
    """Slots of the largest positive weights of each class, largest first."""
    found = {}
    for kind, weights in zip(model.classes_, model.coef_, strict=True):
        best = [c for c in np.argsort(-weights)[:3] if weights[c] > 0]
        found[str(kind)] = {names[c]: round(float(weights[c]), 2) for c in best}
    return found


def embedding(requests, **_):
    X, train, test = scaled(requests, BLOCK), requests["train"], requests["test"]
    rng = np.random.default_rng(SEED)
    n, width = len(train.names), X["train"].n_features
    method = skact.DifferenceInMeans()
    named = method.fit(X["train"], train.y, token_labels=train.labels).concept_vectors_
    mixed = train.y[rng.permutation(len(train.y))]
    blind = skact.DifferenceInMeans().fit(X["train"], mixed).concept_vectors_
    spaces = {
        f"cosines with {n} slots": skact.ConceptualEmbedding(named),
        f"with {n} vectors of random labels": skact.ConceptualEmbedding(blind),
        f"with {n} random directions": skact.ConceptualEmbedding(rng.normal(size=(n, width))),
        f"all {width} features": skact.ConceptualEmbedding(),
    }
    seen = {
        name: [space.fit(X["train"]).transform(X[s]) for s in ("train", "test")]
        for name, space in spaces.items()
    }
    pca = PCA(n, random_state=SEED).fit(X["train"].mean())
    seen[f"{n} principal components"] = [pca.transform(X[s].mean()) for s in ("train", "test")]
    rows = {}
    for name, (known, asked) in seen.items():
        nearest = KNeighborsClassifier(1).fit(known, train.kinds).predict(asked)
        rows[name] = {"same intent as the nearest": mean_of(nearest == test.kinds)}
    return {"about": {"requests": [len(train.y), len(test.y)]}, "rows": rows}


def rules(requests, **_):
    X, cal, test = scaled(requests, BLOCK), requests["cal"], requests["test"]
    method = separators(X["train"], requests["train"])
    scores = {split: method.transform(X[split]) for split in ("cal", "test")}
    slots = best_detector(scores["cal"], cal).predict(scores["test"])
    truth = np.column_stack([test.kinds == kind for kind in RULES]).astype(int)
    rng = np.random.default_rng(SEED)
    rows = {}
    for kind, held in {"detected slots": slots, "true slots": test.y}.items():
        rows[f"rules on {kind}"] = f1_of(truth, derived(held, test.names))
        drawn = [derived(held, list(rng.permutation(test.names))) for _ in range(20)]
        rows[f"names dealt anew, {kind}, mean of 20"] = {
            "weighted F1": float(np.mean([skact.weighted_f1_score(truth, d) for d in drawn]))
        }
    train = requests["train"]
    plain = skact.LinearSeparator(random_state=SEED)
    plain.fit(X["train"], np.column_stack([train.kinds == kind for kind in RULES]).astype(int))
    asked = np.column_stack([cal.kinds == kind for kind in RULES]).astype(int)
    detector = best_detector(plain.transform(X["cal"]), cal, asked)
    said = detector.predict(plain.transform(X["test"]))
    rows["intents learnt, without rules"] = f1_of(truth, said)
    rows["yes to everything"] = {"weighted F1": skact.all_positive_f1_score(truth)}
    found = skact.weighted_f1_score(test.y, slots)
    return {"about": {"F1 of slots": found, "rules": RULES}, "rows": rows}


def best_detector(scores, part, y=None):
    """Fit detectors at all deltas, and take the one with the best F1 where they are fitted."""
    labels = part.labels if y is None else None
    y = part.y if y is None else y
    fitted = [
        skact.SuperActivator(delta=delta).fit(scores, y, token_labels=labels)
        for delta in skact.DELTA_GRID
    ]
    return max(fitted, key=lambda one: skact.weighted_f1_score(y, one.predict(scores)))


def derived(held, names):
    """Decide the intents from decisions on slots that have these names."""
    step = skact.ConceptRules(RULES, concepts=names)
    return np.asarray(step.fit_transform(np.asarray(held, float)))[:, -len(RULES) :].astype(int)


def f1_of(truth, said):
    found = skact.bootstrap_interval(truth, said, random_state=SEED)
    return {"weighted F1": [float(x) for x in (found.estimate, found.low, found.high)]}
