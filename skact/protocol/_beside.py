r"""What prompting, localization and analyses take beside detection: counted, and timed on a part.

A pass is a sample that goes through the model, or a changed copy of one. Localization is counted as
if every sample with a concept had a SuperActivator of it, every sample that is mapped a target for
every concept, and no two copies of a sample were equal; where this is so, the passes are those of
the run, and else about as many. With the samples :math:`i` of test, of which each holds :math:`p_i`
of the :math:`C` concepts and is read at :math:`k_i` steps of a curve, a method takes for each
target

.. math:: n_{cal} + n_{test} + (n_{cal} + n_{test})\, b
          + T \sum_i \big(2 + 2 p_i (k_i - 1)\big)

passes, with :math:`T` targets and a budget :math:`b` of masks, or of :math:`1 + C n_{steps}` points
of gradient paths; and two by which a method of gradients tries the model.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from skact.prompting import PromptDetector
from skact.protocol._config import Configuration, Setup
from skact.protocol._data import model_path
from skact.protocol._detection import Problem
from skact.protocol._localization import MAPPERS, MapJudge, drawn_rows, players_of
from skact.protocol._prompting import asked_rows
from skact.protocol._setups import LOCALIZERS, Localization
from skact.protocol._steps import analyst_of, judge_of
from skact.rows import Array

__all__ = [
    "count_map_passes",
    "count_questions",
    "judged_rows",
    "time_analyses",
    "time_localization",
    "time_question",
]

Clock = Callable[[], float]

# A pass forward and the one back for gradients, in passes forward.
_WITH_GRADIENTS = 3
_COPIES = 32
_FEWEST = 2  # samples of a concept in a split of the calibration run


def count_questions(
    setup: Setup, data: Bunch, distinct: Callable[[list[Any]], Array], seed: int
) -> dict[str, int]:
    """Count questions to a generative model, equal ones once.

    Parameters
    ----------
    setup : Setup
        With ``prompting``.
    data : Bunch
        All of it.
    distinct : callable
        Takes samples, gives the numbers of those that are the first of their content.
    seed : int
        Of the samples.

    Returns
    -------
    counts : dict of str to int
        For each of ``scores``: answers are asked for on test, log-odds on cal too.
    """
    assert setup.prompting is not None
    cal, test = asked_rows(data.split, setup.prompting.texts, seed)
    asked = {"answer": test, "logits": np.r_[cal, test]}
    n_concepts = len(data.target_names)
    return {
        scores: n_concepts * len(distinct([data.data[i] for i in asked[scores]]))
        for scores in setup.prompting.scores
    }


def judged_rows(
    settings: Localization, data: Bunch, lengths: Array, shapes: Array | None, seed: int
) -> tuple[Array, Array]:
    """Draw the samples of cal and test that maps are judged on, by what samples hold."""
    short_enough = 2 * players_of(lengths, shapes, settings) <= settings.masks
    held = np.asarray(data.target, bool) & short_enough[:, None]
    each = [held & (np.asarray(data.split) == split)[:, None] for split in ("cal", "test")]
    cal, test = (drawn_rows(pairs, settings.per_concept, seed) for pairs in each)
    return cal, test


def count_map_passes(
    settings: Localization, n_cal: int, lengths: Array, pairs: Array
) -> dict[str, int]:
    """Count passes of localization, see the formula of the module.

    Parameters
    ----------
    settings : Localization
        Methods, targets and budgets.
    n_cal : int
        Samples that thresholds are set on.
    lengths : ndarray of shape (n_test,)
        Tokens of the samples that maps are judged on.
    pairs : ndarray of shape (n_test, n_concepts), dtype bool
        Concepts that each of them holds.

    Returns
    -------
    counts : dict of str to int
        By method; ``about``, what an order at random comes to.
    """
    n_test, n_targets = len(lengths), len(settings.targets)
    steps = np.minimum(settings.points, lengths)
    ends = 2 * pairs.any(axis=1)
    random = int((ends + ends * (steps - 1)).sum())
    curves = int((ends + 2 * pairs.sum(axis=1) * (steps - 1)).sum())
    counts = {"about": n_targets * (n_test + random)}
    for name in settings.methods:
        probes = 2 * MAPPERS[name].needs_gradients
        maps = 1 + _budget(name, settings, pairs.shape[1])
        counts[name] = n_targets * ((n_cal + n_test) * maps + probes + n_targets * curves)
    return counts


def _budget(name: str, settings: Localization, n_concepts: int) -> int:
    """Count passes of one map, beside that which embeds the sample."""
    if LOCALIZERS[name] == ("masks",):
        return settings.masks
    if not MAPPERS[name].needs_gradients:
        return 0
    return 1 + (n_concepts * settings.steps if LOCALIZERS[name] else 0)


def time_question(setup: Setup, part: Bunch, scores: str, clock: Clock) -> float:
    """Seconds of a question, from two samples and all concepts.

    Parameters
    ----------
    setup : Setup
        With ``prompting``.
    part : Bunch
        At least two samples.
    scores : {"answer", "logits"}
        What is asked for.
    clock : callable
        Gives seconds.

    Returns
    -------
    seconds : float
        Without those for loading the model.
    """
    settings = setup.prompting
    assert settings is not None
    names = [str(name) for name in part.target_names]
    own: dict[str, Any] = {"prompt": settings.prompt} if settings.prompt else {}
    model = settings.model or model_path(setup)
    detector = PromptDetector(model, concepts=names, scores=scores, **own)
    samples = [part.data[0], part.data[1]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of answers that nobody reads
        # Only the time counts, so any labels do.
        detector.fit(samples, np.outer([1, 0], np.ones(len(names), int)))
        detector.answers(samples[:1])
        start = clock()
        detector.answers(samples)
    return (clock() - start) / (2 * len(names))


def time_localization(
    setup: Setup,
    part: Bunch,
    n_samples: int,
    n_rows: tuple[int, int],
    configuration: Configuration,
    folder: Path,
    clock: Clock,
) -> float:
    """Seconds of localization, from one sample of each concept.

    Parameters
    ----------
    setup : Setup
        With ``localization``.
    part : Bunch
        Samples of the calibration run.
    n_samples : int
        Samples that there are in all.
    n_rows : tuple of two int
        Samples that the run judges maps on, in cal and in test.
    configuration : Configuration
        Of the run.
    folder : Path
        With the store.
    clock : callable
        Gives seconds.

    Returns
    -------
    seconds : float
        NaN where the part has no SuperActivator to judge maps by.
    """
    settings = setup.localization
    assert settings is not None
    start = clock()
    try:
        brief = replace(settings, per_concept=1)
        own = configuration.seed, configuration.resamples
        judge = judge_of(setup, brief, Bunch(**part), *own, folder)
        preparing = (clock() - start) * n_samples / len(part.data)
        start = clock()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pairs without a target
            judge.about()
            of_about = clock() - start
            judge.judge("direct")
    except ValueError:
        return float("nan")
    of_direct = clock() - start - of_about
    of_pass = _time_pass(judge, clock)
    share = n_rows[1] / len(judge.test)
    n_maps = sum(n_rows) * len(settings.targets)
    seconds = preparing + share * (of_about + of_direct * len(settings.methods))
    for name in settings.methods:
        slow = _WITH_GRADIENTS if MAPPERS[name].needs_gradients else 1
        budget = _budget(name, settings, len(part.target_names))
        seconds += n_maps * budget * slow * of_pass
    return seconds


def _time_pass(judge: MapJudge, clock: Clock) -> float:
    """Seconds of a changed copy of a sample."""
    game = next(iter(judge.games.values()))[0]
    masks = np.random.default_rng(0).random((_COPIES, game.n_players)) < 0.5
    game(masks)
    start = clock()
    game(masks)
    return (clock() - start) / _COPIES


def time_analyses(
    setup: Setup, problem: Problem, configuration: Configuration, clock: Clock
) -> float:
    """Seconds of the analyses of a setup, of a part of its samples."""
    assert setup.analyses is not None
    fewest = min(setup.analyses.fewest, _FEWEST)
    start = clock()
    analyst = analyst_of(setup.name, problem, fewest, configuration)
    for name in setup.analyses.names:
        analyst.analyse(name)
    return clock() - start
