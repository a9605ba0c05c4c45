"""The baseline that asks a generative model, on the samples of a setup."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.utils import Bunch

from skact.metrics import all_positive_f1_score, bootstrap_interval, weighted_f1_score
from skact.prompting import PromptDetector
from skact.protocol._setups import Prompting
from skact.rows import Array

__all__ = ["asked_rows", "ask_about", "prompt_gain"]


def asked_rows(split: Any, n_samples: int, seed: int) -> tuple[Array, Array]:
    """Draw samples of cal, and as many of test."""
    order = np.random.default_rng(seed).permutation(len(split))
    shuffled = np.asarray(split)[order]
    return order[shuffled == "cal"][:n_samples], order[shuffled == "test"][:n_samples]


def ask_about(
    data: Bunch,
    model: Any,
    scores: str,
    settings: Prompting,
    seed: int,
    n_resamples: int = 1000,
    log: Path | None = None,
) -> dict[str, Any]:
    """Ask about each concept; the cut of log-odds is that of the best F1 on cal.

    Parameters
    ----------
    data : Bunch
        With ``data``, ``target``, ``target_names`` and ``split``.
    model : object
        As :class:`skact.PromptDetector` takes it.
    scores : {"answer", "logits"}
        What it is asked for.
    settings : Prompting
        How many samples, and the question.
    seed, n_resamples : int
        Of the samples, and of the interval.
    log : Path, default=None
        File of answers, by which a run that was stopped asks nothing twice.

    Returns
    -------
    result : dict
        F1 with its interval, the share of Yes, and the decisions; and what else there is to say.
    """
    cal, test = asked_rows(data.split, settings.texts, seed)
    names = [str(name) for name in data.target_names]
    own: dict[str, Any] = {"prompt": settings.prompt} if settings.prompt else {}
    detector = PromptDetector(model, concepts=names, scores=scores, log=log, **own)
    y = np.asarray(data.target)
    detector.fit([data.data[i] for i in cal], y[cal])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*are neither Yes nor No")  # counted below
        answers = detector.answers([data.data[i] for i in test])
    said = answers.parsed == 1
    more: dict[str, Any] = {"neither": int(answers.n_unparsed)}
    if scores == "logits":
        at_zero, said = said, answers.odds >= detector.thresholds_
        more = {
            "f1_of_cut_at_0": round(weighted_f1_score(y[test], at_zero.astype(int)), 4),
            "auroc": _auroc(y[test], answers.odds),
            "cuts": dict(zip(names, np.round(detector.thresholds_, 2).tolist(), strict=True)),
            "probability_of_yes_or_no": round(float(answers.share.mean()), 4),
        }
    said = said.astype(np.int64)
    f1 = bootstrap_interval(y[test], said, n_resamples=n_resamples, random_state=seed)
    return {
        "scores": scores,
        "samples": {"cal": len(cal), "test": len(test)},
        "floor": round(all_positive_f1_score(y[test]), 4),
        "f1": [round(float(x), 4) for x in f1],
        "yes": round(float(said.mean()), 4),
        **more,
        "predicted": said.tolist(),
    }


def prompt_gain(
    data: Bunch,
    predicted: Any,
    baseline: Any,
    settings: Prompting,
    seed: int,
    n_resamples: int = 1000,
) -> list[float]:
    """Paired gain in F1 of decisions over others on the samples of test that were asked about."""
    _, test = asked_rows(data.split, settings.texts, seed)
    gain = bootstrap_interval(
        np.asarray(data.target)[test],
        np.asarray(predicted),
        baseline=np.asarray(baseline),
        n_resamples=n_resamples,
        random_state=seed,
    )
    return [round(float(x), 4) for x in gain]


def _auroc(y: Array, odds: Array) -> float | None:
    """Area under the curve, weighted by positives; one class alone has none."""
    known = (y.min(axis=0) < y.max(axis=0)).nonzero()[0]
    if not len(known):
        return None
    areas = [roc_auc_score(y[:, c], odds[:, c]) for c in known]
    return round(float(np.average(areas, weights=y[:, known].sum(axis=0))), 4)
