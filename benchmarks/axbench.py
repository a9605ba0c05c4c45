"""Concepts of autoencoders in answers of a language model, against a bag of words.

    python benchmarks/axbench.py --data FOLDER --model FOLDER_OR_NAME [--layers DEPTH ...]
        [--concepts N] [--only LINE ...] [--out RESULT.json]

FOLDER is a copy of AxBench's ConceptFD as ``samples.jsonl`` and ``concepts.jsonl``: for each
concept texts that show it, negatives of its genre, and on test hard negatives with its words in
another sense. Only sample labels are known. One model a concept is fitted on its positives and the
training negatives of its genre; the layer is the one with the best AUROC over five folds of train,
the cut that with the best F1 on them. The score of a text is that of its highest token, or the mean
of all. ConceptDetector is given all texts at once, and chooses for each concept from five folds of
its own what reads the tokens, at which of the same layers, and the cut.

Test figures are means over concepts, with 95 % percentile intervals over concepts: AUROC, AUROC
against hard negatives alone, TPR at 1 % FPR, F1, and the paired gain in AUROC over the bag of words
(logistic regression on tf-idf of words and pairs of words). F1 of saying yes to everything stands
beside. Nothing is chosen on test.

With ``--only`` the other lines of the file ``--out`` are kept, with the commit that it states.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from common import SEED, short, write_json
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, TunedThresholdClassifierCV
from sklearn.pipeline import make_pipeline

from skact import (
    ConceptDetector,
    DifferenceInMeans,
    LinearSeparator,
    MaxSeparator,
    MaxToken,
    MeanPrototype,
    MeanToken,
    SelectLayer,
    TokenScaler,
    TransformerEmbedder,
    all_positive_f1_score,
    tpr_at_fpr_score,
)

CV = StratifiedKFold(5, shuffle=True, random_state=SEED)
LINES = {
    "MeanPrototype / MaxToken": (MeanPrototype(), MaxToken()),
    "DifferenceInMeans / MaxToken": (DifferenceInMeans(), MaxToken()),
    "LinearSeparator / MaxToken": (LinearSeparator(), MaxToken()),
    "LinearSeparator / MeanToken": (LinearSeparator(), MeanToken()),
    "MaxSeparator / MaxToken": (MaxSeparator(), MaxToken()),
}
WORDS = "bag of words"
CHOSEN = "ConceptDetector"


def read(folder):
    """Rows of samples.jsonl, and the genre of each concept."""
    lines = (Path(folder) / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    concepts = (Path(folder) / "concepts.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines], [json.loads(line) for line in concepts]


def rows_of(samples, concept):
    """Positions of what a concept is fitted on, judged on, and of its hard negatives."""
    found = {"train": [], "test": [], "hard": []}
    for i, one in enumerate(samples):
        if one["version"] != concept["version"]:
            continue
        own = one["concept_id"] == concept["concept_id"]
        is_negative = one["concept_id"] == -1 and one["genre"] == concept["genre"]
        if one["split"] == "train" and (own or is_negative):
            found["train"].append(i)
        elif one["split"] == "test" and own:
            found["hard" if one["label"] == "hard_negative" else "test"].append(i)
    return {name: np.array(rows, dtype=int) for name, rows in found.items()}


def figures(truth, scores, found, hard):
    """Test figures of one concept; ``hard`` are the scores of its hard negatives."""
    positive = scores[truth == 1]
    labels = np.repeat([1, 0], [len(positive), len(hard)])
    return {
        "auroc": roc_auc_score(truth, scores),
        "hard_auroc": roc_auc_score(labels, np.append(positive, hard)),
        "tpr_at_1_fpr": tpr_at_fpr_score(truth, scores),
        "f1": f1_score(truth, found),
        "floor": all_positive_f1_score(truth),
    }


def words():
    return make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(C=10, max_iter=1000),
    )


def best_layer(line, stack, y, rows):
    """Return a pipeline at the layer with the best AUROC over folds of train."""
    grid = {"selectlayer__layer": stack.layers}
    line = make_pipeline(SelectLayer(), TokenScaler(), *line)
    search = GridSearchCV(line, grid, scoring="roc_auc", cv=CV, refit=False)
    search.fit(stack[rows["train"]], y[rows["train"]])
    return line.set_params(**search.best_params_)


def evaluate(stack, texts, y, asked, lines):
    """Figures of each line and of the bag of words: one record a concept."""
    found = {name: [] for name in (*lines, WORDS)}
    for c, rows in enumerate(asked):
        train, test, hard = rows.values()
        for name, records in found.items():
            X = texts if name == WORDS else stack
            line = words() if name == WORDS else best_layer(LINES[name], stack, y[:, c], rows)
            tuned = TunedThresholdClassifierCV(line, scoring="f1", cv=CV)
            tuned.fit(X[train], y[train, c])
            scores = tuned.estimator_.decision_function
            records.append(
                figures(y[test, c], scores(X[test]), tuned.predict(X[test]), scores(X[hard]))
            )
    return found


def chosen(embedder, texts, y, asked):
    """Figures of one ConceptDetector of all concepts, each known of its own texts alone."""
    known = np.full(y.shape, np.nan)
    for c, rows in enumerate(asked):
        known[rows["train"], c] = y[rows["train"], c]
    learn = np.flatnonzero(np.isfinite(known).any(axis=1))
    detector = ConceptDetector(embedder, layer=embedder.layer, random_state=SEED)
    detector.fit(texts[learn], pd.DataFrame(known[learn]).add_prefix("concept"))
    decided = detector.decision_function(texts)
    return [
        figures(y[test, c], decided[test, c], decided[test, c] > 0, decided[hard, c])
        for c, (_, test, hard) in enumerate(rows.values() for rows in asked)
    ]


def summarize(found):
    """Means over concepts with percentile intervals over concepts, drawn once for all lines."""
    n = len(found[WORDS])
    draws = np.random.default_rng(SEED).integers(n, size=(2000, n))

    def mean(values):
        low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
        return {"mean": round(values.mean(), 4), "interval": [round(low, 4), round(high, 4)]}

    of = {
        name: {key: np.array([one[key] for one in records]) for key in records[0]}
        for name, records in found.items()
    }
    return [
        {
            "line": name,
            **{key: mean(values) for key, values in each.items()},
            "gain_in_auroc": mean(each["auroc"] - of[WORDS]["auroc"]),
        }
        for name, each in of.items()
    ]


def kept_lines(path, made):
    """Put lines into the table of a file, and say of which commit its other lines are."""
    before = json.loads(path.read_text(encoding="utf-8"))
    new = {row["line"]: row for row in made}
    old = [row["line"] for row in before["table"] if row["line"] not in new]
    of = {line: before.get("kept", {}).get(line, before["commit"]) for line in old}
    return {"table": [new.get(row["line"], row) for row in before["table"]], "kept": of}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder with the two files")
    parser.add_argument("--model", required=True, help="folder or hub name of the model")
    parser.add_argument("--layers", type=float, nargs="+", default=[0.25, 0.5, 0.75, 1.0])
    parser.add_argument("--concepts", type=int, help="only the first so many; default all")
    parser.add_argument("--only", nargs="+", choices=[*LINES, CHOSEN], metavar="LINE")
    parser.add_argument("--out", help="write the result as JSON to this file")
    args = parser.parse_args()
    start = time.perf_counter()
    samples, concepts = read(args.data)
    asked = concepts[: args.concepts]
    texts = np.array([one["text"] for one in samples], dtype=object)
    rows = [rows_of(samples, concept) for concept in asked]
    positive = np.array([one["label"] == "positive" for one in samples])
    own = [[one["concept_id"] == concept["concept_id"] for one in samples] for concept in asked]
    y = (positive & np.array(own)).T.astype(int)
    with tempfile.TemporaryDirectory() as store:
        embedder = TransformerEmbedder(args.model, layer=args.layers, store=store)
        stack, wanted = embedder.transform(list(texts)), args.only or [*LINES, CHOSEN]
        found = evaluate(stack, texts, y, rows, [name for name in LINES if name in wanted])
        if CHOSEN in wanted:
            found[CHOSEN] = chosen(embedder, texts, y, rows)
    table = summarize(found)
    for row in table:
        cells = (f"{key} {value['mean']:.3f}" for key, value in row.items() if key != "line")
        print(f"{row['line']:<34}", *cells)
    print(f"{time.perf_counter() - start:.0f} s")
    if args.out:
        names = {"data": short(args.data), "model": short(args.model), "layers": args.layers}
        n = {"concepts": len(asked), "texts": len(texts)}
        kept = kept_lines(Path(args.out), table) if args.only else {}
        write_json(args.out, {**names, **n, "table": table, **kept})


if __name__ == "__main__":
    main()
