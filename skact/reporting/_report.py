"""One page that shows a person what a detector finds, where it errs, and how good it is."""

from __future__ import annotations

import os
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from skact.arguments import PATH, Number, Such, checked
from skact.base import SEARCHES, unwrapped
from skact.files import check_folder
from skact.inspection import Reading, escaped, is_of_one, lines_of, read_concepts
from skact.metrics import Interval
from skact.models import Patch
from skact.reporting._charts import histogram, interval_bar, number, percent
from skact.reporting._figures import OUTCOMES, Figures, figures, outcomes, worst_first
from skact.reporting._labels import presence
from skact.reporting._maps import Pictures, Scale, legend, sample_map
from skact.reporting._page import about_model, definition_list, filter_form, link_of, page, table
from skact.rows import Array
from skact.samples import as_list

__all__ = ["report"]

_COUNT = Number(Integral, 1, None, closed="left")
_95 = "[95\N{NO-BREAK SPACE}%]"
_FIGURES = ("", f"F1 {_95}", "Floor", f"Gain {_95}", f"AUROC {_95}", f"Avg. precision {_95}")
_HEADS = (*_FIGURES, "TPR at 1\N{NO-BREAK SPACE}% FPR", "Precision", "Recall", "With concept")


@checked(
    estimator=[Such("a fitted object", lambda value: not isinstance(value, type))],
    path=[PATH, None],
    title=[str, None],
    n_examples=[_COUNT],
    n_resamples=[_COUNT],
    random_state=["random_state"],
)
def report(
    estimator: Any,
    samples: Any,
    path: str | os.PathLike[str] | None = None,
    y: Any = None,
    *,
    title: str | None = None,
    n_examples: int = 5,
    n_resamples: int = 1000,
    random_state: Any = 0,
) -> str:
    """Write one page on what a detector finds in samples, for a person to look at.

    For each concept: its figures with 95 % intervals and the floor, F1 of saying yes to everything;
    where its scores lie with the concept and without it, and the threshold; the layer, concept
    method and detector that were chosen; and the samples that say most, as heat maps: the surest
    hits and the worst errors. The page can be filtered by concept and outcome, by keyboard and with
    a screen reader too, in light and dark. It loads nothing, and all text of samples is escaped.

    Parameters
    ----------
    estimator : ConceptDetector, ConceptSearchCV, Pipeline or search
        Fitted, from raw samples to decisions.
    samples : sequence of n_samples texts, chats or images
        As in :class:`TransformerEmbedder`; best such that were not in ``fit``.
    path : str or path-like, default=None
        Also write the page there, in one step.
    y : array-like of shape (n_samples,) or (n_samples, n_concepts), default=None
        Labels as in ``fit``; where one is missing the sample does not count in the figures. Without
        any the page shows what was found, and of a ConceptDetector the figures of its ``fit``.
    title : str, default=None
        Of the page.
    n_examples : int, default=5
        Samples shown of each concept and outcome.
    n_resamples : int, default=1000
        Resamples of the samples for the intervals.
    random_state : int, RandomState instance or None, default=0
        Draws them.

    Returns
    -------
    html : str
        A whole document.

    Raises
    ------
    ValueError
        If y does not fit the samples or what the estimator was fitted on.
    TypeError
        If the estimator does not go from raw samples to decisions.
    FileNotFoundError, IsADirectoryError
        If there is no folder for ``path``, or it is one.

    Examples
    --------
    >>> import skact
    >>> shapes = skact.make_shapes(40, random_state=0)
    >>> detector = skact.ConceptDetector(skact.shapes_model_path(), layer=-1, cv=2, random_state=0)
    >>> detector = detector.fit(shapes.data, masks=shapes.masks)
    >>> html = skact.report(detector, shapes.data[:10], y=shapes.target[:10])
    >>> html.count('class="part"') == len(detector.concept_names_)
    True
    """
    lines = lines_of(estimator)
    raw = as_list(samples)
    present = presence(estimator, next(iter(lines.values()))[-1], list(lines), y, len(raw))
    if path is not None:
        check_folder(path)
    seed = int(check_random_state(random_state).randint(2**31 - 1))
    readings = read_concepts(estimator, raw)
    pictures, parts, rows = Pictures(), [], []
    shown: dict[str, str] = {}
    for k, (reading, truth) in enumerate(zip(readings, present.T, strict=True)):
        known = np.isfinite(truth)
        judged = None
        if known.any():
            judged = figures(
                truth[known] == 1,
                reading.found[known],
                reading.pooled[known],
                seed=seed,
                n_resamples=n_resamples,
            )
        fitted = _of_fit(estimator, reading.concept)
        named = outcomes(truth, reading.found)
        shown |= {key: words for key, (words, _) in OUTCOMES.items() if key in named}
        examples = _examples(reading, raw, named, n_examples, pictures)
        parts.append(_part(k, reading, truth, judged, fitted, examples))
        rows.append(_row(k, reading, judged, fitted))
    shown = {key: shown[key] for key in OUTCOMES if key in shown}
    names = [reading.concept for reading in readings]
    about = _about(readings, raw, present, is_of_one(estimator))
    body = (
        pictures.definitions()
        + filter_form("Concept", "concepts", names, shown)
        + f'<main id="main" tabindex="-1">{_overview(rows)}{"".join(parts)}</main>'
    )
    return page(title or "What the detector finds", about, body, path)


def _about(readings: list[Reading], samples: list[Any], present: Array, of_one: bool) -> list[str]:
    n_known = int(np.isfinite(present).any(axis=1).sum())
    labels = f"{n_known} with labels" if n_known else "without labels"
    rule = (
        "Each sample has one class: the most probable one is found in it, whichever thresholds its "
        "scores reach, and probabilities sum to 1."
    )
    return [
        f"{about_model(readings[0].line[0], len(samples))}, {labels}.",
        "The floor is the F1 of saying yes to everything: an F1 near it means nothing. Figures of "
        "samples that the detector was fitted on are too good.",
        *([rule] if of_one else []),
    ]


def _of_fit(estimator: Any, concept: str) -> dict[str, Any]:
    """Look up what was known of a concept when the estimator was fitted."""
    inner = unwrapped(estimator, SEARCHES)
    results = getattr(inner, "results_", None)
    if results is not None:
        at = results["concept"].tolist().index(concept)
        return {key: values[at] for key, values in results.items()}
    if hasattr(inner, "best_score_") and np.ndim(inner.best_score_) == 1:
        at = [str(name) for name in inner.concept_names_].index(concept)
        return {"f1": inner.best_score_[at]}
    return {}


def _overview(rows: list[list[str]]) -> str:
    heads = ("Concept", "F1 and floor from 0 to 1", *_HEADS[1:5], "With concept", "Found", "Layer")
    return (
        '<section aria-labelledby="overview"><h2 id="overview">Overview</h2>'
        f"{table('All concepts', heads, rows)}"
        '<p class="quiet">In the picture the dot is F1, the line its interval, the tick the floor.'
        "</p></section>"
    )


def _row(k: int, reading: Reading, judged: Figures | None, fitted: dict[str, Any]) -> list[str]:
    name = f'<a href="#{link_of(k)}">{escaped(reading.concept)}</a>'
    found = f"{int(reading.found.sum())}"
    layer = "several" if reading.block is None else str(reading.block)
    if judged is None:
        f1 = Interval(fitted.get("f1", np.nan), np.nan, np.nan)
        bar = interval_bar(f1, fitted["floor"]) if "floor" in fitted else ""
        cells = _fit_cells(fitted)
        return [name, bar, *cells[:4], cells[-1], found, layer]
    cells = _cells(judged)
    return [name, interval_bar(judged.f1, judged.floor), *cells[:4], cells[-1], found, layer]


def _interval(value: Interval) -> str:
    if not np.isfinite(value.estimate):
        return "–"
    reach = f" [{value.low:.2f}, {value.high:.2f}]" if np.isfinite(value.low) else ""
    return f"{value.estimate:.2f}{reach}"


def _share(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "–"


def _cells(f: Figures) -> list[str]:
    """Figures of the samples of the page, in the order of the heads."""
    return [
        _interval(f.f1),
        _share(f.floor),
        _interval(f.gain),
        _interval(f.auroc),
        _interval(f.average_precision),
        _share(f.tpr),
        _share(f.precision),
        _share(f.recall),
        f"{f.n_positive} of {f.n_known}",
    ]


def _fit_cells(fitted: dict[str, Any]) -> list[str]:
    """Figures of cross-validation, in the order of the heads."""

    def one(key: str) -> str:
        return _share(float(fitted.get(key, np.nan)))

    gain = Interval(*(float(fitted.get(k, np.nan)) for k in ("gain", "gain_low", "gain_high")))
    count = f"{fitted['n_positive']} of {fitted['n_known']}" if "n_positive" in fitted else "–"
    figures = [one("f1"), one("floor"), _interval(gain), one("auroc"), one("average_precision")]
    return [*figures, one("tpr_at_1_fpr"), "–", "–", count]


def _part(
    k: int,
    reading: Reading,
    truth: Array,
    judged: Figures | None,
    fitted: dict[str, Any],
    examples: str,
) -> str:
    rows = [] if judged is None else [["These samples", *_cells(judged)]]
    rows += [["Cross-validation in fit", *_fit_cells(fitted)]] if fitted else []
    shown = table(f"How good it is: {reading.concept}", _HEADS, rows) if rows else ""
    groups = [
        ("with the concept", reading.pooled[truth == 1]),
        ("without it", reading.pooled[truth == 0]),
    ]
    if judged is None:
        groups = [("all samples", reading.pooled)]
    return (
        f'<section class="part" id="{link_of(k)}" data-part="{k}" aria-labelledby="name-{k}">'
        f'<h2 id="name-{k}">{escaped(reading.concept)}</h2>{_choice(reading, fitted)}{shown}'
        f"<h3>Scores of samples</h3>{histogram(groups, reading.threshold, 'samples')}"
        f"{examples}</section>"
    )


def _choice(reading: Reading, fitted: dict[str, Any]) -> str:
    """Say what was chosen for a concept."""
    params = reading.detector.get_params(deep=False)
    method = reading.line[-2] if len(reading.line) > 2 else None
    said = {
        "Layer (block, from 0)": "several" if reading.block is None else reading.block,
        "Concept method": "–" if method is None else " ".join(repr(method).split()),
        "Detector": type(reading.detector).__name__,
        "Delta": params.get("delta"),
        "Pool": fitted.get("pool"),
        "Cut": params.get("cut"),
        "Threshold": number(reading.threshold),
    }
    if hasattr(reading.detector, "unsure_thresholds_"):
        low, high = reading.detector.unsure_thresholds_[reading.number]
        said["Unsure between"] = f"{number(low)} and {number(high)}"
    return definition_list(said.items())


def _examples(
    reading: Reading, samples: list[Any], named: Array, n_examples: int, pictures: Pictures
) -> str:
    """Show the samples of each outcome that say most."""
    chosen = {key: worst_first(named, key, reading.decision, n_examples) for key in OUTCOMES}
    rows = sorted({int(i) for some in chosen.values() for i in some})
    tokens = dict(zip(rows, reading.line[0].tokens_of([samples[i] for i in rows]), strict=True))
    is_image = isinstance(tokens[rows[0]][0], Patch)
    scale = Scale.of(reading.scores.flat()[:, 0])
    groups = []
    for key, some in chosen.items():
        if not len(some):
            continue
        items = "".join(
            _example(i, samples[i], tokens[i], reading, scale, pictures) for i in some.tolist()
        )
        n_all = int((named == key).sum())
        count = f"{n_all} sample{'' if n_all == 1 else 's'}"
        count += f", {len(some)} shown" if len(some) < n_all else ""
        kind = " images" if is_image else ""
        groups.append(
            f'<section data-outcome="{key}" class="outcome"><h3>{escaped(OUTCOMES[key][0])} '
            f'<span class="quiet">({count})</span></h3><ol class="samples{kind}">{items}</ol>'
            "</section>"
        )
    frame = "reaches the threshold by itself"
    return legend(scale, is_image, frame) + "".join(groups)


def _example(
    i: int, sample: Any, tokens: Any, reading: Reading, scale: Scale, pictures: Pictures
) -> str:
    scores, marks = reading.scores[i][:, 0], reading.marks[i][:, 0]
    away = reading.pooled[i] - reading.threshold
    side = "above" if reading.decision[i] > 0 else "below"
    return (
        f'<li class="sample"><p><strong>Sample {i}</strong> <span class="quiet">score '
        f"{number(reading.pooled[i])}, {number(abs(away), 2)} {side} the threshold; probability "
        f"{percent(reading.chance[i])}</span></p>"
        f"{sample_map(i, sample, tokens, scores, marks, scale, pictures)}</li>"
    )
