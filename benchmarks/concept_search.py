"""ConceptSearchCV for all concepts against one GridSearchCV for a single concept, in one run.

    python benchmarks/concept_search.py --data FOLDER --model FOLDER_OR_NAME [--samples N] [--out F]

Both search all layers of the model x 12 deltas with 3 folds, mean prototypes, the same embedded
samples and the same folds. One GridSearchCV gives the winner of one concept; a concept more costs
another one. The script runs it for one concept, checks that both agree there, and reports the ratio
for one concept and, times the number of concepts, for all.
"""

import argparse
import time

import numpy as np
import sklearn
from common import load, short, write_json
from sklearn.metrics import f1_score, make_scorer
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import Pipeline

from skact import (
    DELTA_GRID,
    ConceptSearchCV,
    MeanPrototype,
    SelectLayer,
    SuperActivator,
    TokenScaler,
    TransformerEmbedder,
)

CONCEPT = 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder with samples.jsonl or index.jsonl")
    parser.add_argument("--model", required=True, help="folder or hub name of the model")
    parser.add_argument("--samples", type=int, default=None, help="use the first N samples")
    parser.add_argument("--out", help="write the result as JSON to this file")
    args = parser.parse_args()
    problem = load(args.data, args.model, list(range(TransformerEmbedder(args.model).n_blocks)))
    rows = np.arange(len(problem.y))[: args.samples]
    X, y, labels = problem.tokens[rows], problem.y[rows], problem.labels[rows]
    pipe = Pipeline(
        [
            ("layer", SelectLayer()),
            ("scale", TokenScaler()),
            ("concepts", MeanPrototype()),
            ("detect", SuperActivator()),
        ]
    )
    grid = {"layer__layer": X.layers, "detect__delta": list(DELTA_GRID)}
    folds = KFold(3, shuffle=True, random_state=0)
    start = time.perf_counter()
    ours = ConceptSearchCV(pipe, grid, cv=folds).fit(X, y, token_labels=labels)
    middle = time.perf_counter()
    scorer = make_scorer(lambda t, p: f1_score(t[:, CONCEPT], p[:, CONCEPT], zero_division=0))
    with sklearn.config_context(enable_metadata_routing=True):
        alone = GridSearchCV(pipe, grid, cv=folds, scoring=scorer, error_score="raise")
        alone.fit(X, y, token_labels=labels)
    end = time.perf_counter()
    name = problem.names[CONCEPT]
    assert ours.best_params_[name] == alone.best_params_
    assert np.isclose(ours.best_score_[CONCEPT], alone.best_score_)
    ratio = (end - middle) / (middle - start)
    result = {
        "samples": len(rows),
        "concepts": len(problem.names),
        "candidates": len(ours.cv_results_["params"]),
        "ConceptSearchCV, all concepts, seconds": round(middle - start, 1),
        "GridSearchCV, one concept, seconds": round(end - middle, 1),
        "ratio for one concept": round(ratio, 1),
        "ratio for all concepts": round(ratio * len(problem.names), 1),
    }
    print(result)
    if args.out:
        options = f" --samples {args.samples}" if args.samples else ""
        command = "python benchmarks/concept_search.py --data {} --model {}{}"
        command = command.format(short(args.data), short(args.model), options)
        write_json(args.out, {"command": command, **result})


if __name__ == "__main__":
    main()
