r"""How well edits steer, at which cost, against random directions and against asking.

For a grid of strengths, each cell is judged by

- the concept score c, the mean probability that judges on other models give the concept (1 - c
  where less of it is wanted);
- the relative perplexity of what was written, by the model as it is, :math:`r = \exp(\bar\ell -
  \bar\ell_0)` with the mean loss :math:`\bar\ell` of a token behind its prompt, and
  :math:`\bar\ell_0` that of what the model writes without an edit; fluency is :math:`f = \min(1,
  1 / r)`;
- the harmonic mean :math:`2 / (1 / c + 1 / f)`;
- distinct-2, the share of pairs of neighbouring tokens of a text that are distinct [1]_;
- the divergence :math:`KL(p_0 \,\|\, p)` of the next token on neutral texts.

The control moves each token exactly as far as the edit does, along a random direction.

.. [1] Li et al., "A Diversity-Promoting Objective Function for Neural Conversation Models", 2016.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions

from skact import models
from skact.arguments import (
    PATH,
    SEQUENCE,
    Number,
    Such,
    check_characters,
    checked,
    float_array,
    is_name,
)
from skact.extras import need
from skact.journal import append_record, open_journal
from skact.progress import token_bar
from skact.rows import Array
from skact.steering._edit import CONCEPT, UNITS, BaseEdit, Unit
from skact.steering._judges import judged, named_judges
from skact.steering._live import blocks_of, open_model, raw_map, source_of, steer
from skact.steering._map import EditMap, digest
from skact.tokens import Site

__all__ = ["NEUTRAL", "Along", "steering_report"]

#: What a model is to go on reading as before.
NEUTRAL = (
    "The train to the coast leaves at nine and takes two hours.",
    "Water is made of hydrogen and oxygen.",
    "The library is on the second floor, next to the lifts.",
    "Cut the paper along the dotted line and fold it twice.",
    "The committee meets on the first Monday of each month.",
    "Rivers carry sand and stones from the mountains to the sea.",
)
_POSITIONS = StrOptions({"all", "last", "generated"})
_TEXTS = Such(
    "a list of texts or chats",
    lambda v: SEQUENCE.is_satisfied_by(v) and len(v) and all(isinstance(i, str | list) for i in v),
)
_SETTINGS: dict[str, Any] = {
    "prompts": [_TEXTS],
    "concept": [*CONCEPT, None],
    "goal": [StrOptions({"more", "less"})],
    "strengths": ["array-like", dict],
    "unit": [UNITS, None],
    "positions": [_POSITIONS],
    "site": [StrOptions(set(get_args(Site))), None],
    "prompting": [str, dict, None],
    "neutral": [_TEXTS],
    "n_random": [Number(Integral, 0, None, closed="left")],
    "max_new_tokens": [Number(Integral, 2, None, closed="left")],
    "temperature": [Number(Real, 0, None, closed="left")],
    "batch_size": [Number(Integral, 1, None, closed="left")],
    "journal": [PATH, None],
    "n_resamples": [Number(Integral, 1, None, closed="left")],
    "confidence_level": [Number(Real, 0, 1, closed="neither")],
    "random_state": [Number(Integral, 0, None, closed="left")],
    "progress": ["boolean"],
}


@dataclass(frozen=True)
class Along(EditMap):
    """Moves each token as far as an edit does, along one direction.

    Parameters
    ----------
    along : ndarray of shape (n_features,)
        Of length 1.
    """

    along: Any = None

    def change(self, values: Any) -> Any:
        """Say what is added to tokens."""
        change = super().change(values)
        return (change * change).sum(-1)[..., None] ** 0.5 * self.along


class _Cell(NamedTuple):
    """One way to steer."""

    kind: str
    name: str = ""
    strength: float = np.nan
    draw: int = -1
    edit: EditMap | None = None
    layer: Any = None
    site: str | None = None
    before: str = ""

    @property
    def key(self) -> str:
        """All that decides what comes out, beside the configuration."""
        return digest(self.before, self.site, str(self.layer), self.edit)


@checked(
    model="no_validation",
    edits="no_validation",
    judges="no_validation",
    layer="no_validation",
    **_SETTINGS,
)
def steering_report(
    model: Any,
    edits: Any,
    prompts: Sequence[Any],
    judges: Any,
    *,
    concept: int | str | None = None,
    goal: Literal["more", "less"] = "more",
    strengths: Any = (0.1, 0.2, 0.4),
    layer: Any = None,
    unit: Unit | None = None,
    positions: str = "all",
    site: str | None = None,
    prompting: Any = None,
    neutral: Sequence[Any] = NEUTRAL,
    n_random: int = 10,
    max_new_tokens: int = 24,
    temperature: float = 1.0,
    batch_size: int = 16,
    journal: Any = None,
    n_resamples: int = 1000,
    confidence_level: float = 0.95,
    random_state: int = 0,
    progress: bool = False,
) -> Bunch:
    """Compare edits of a language model at several strengths with random directions and asking.

    The model goes on with each prompt without an edit, under each edit at each strength, under
    random directions of equal norm, and where a text asks it for the concept. What it writes is
    judged by detectors on other models, and by the model as it is. One seed per prompt draws the
    tokens of all of these, so that they are compared in pairs.

    Parameters
    ----------
    model : pair (model, tokenizer)
        A language model with its head.
    edits : edit or Pipeline, or dict of str to those
        Fitted; of a dict, by name.
    prompts : sequence of n_prompts str or chats
        What is gone on with; chats, lists of {"role": str, "content": str}, are answered.
    judges : estimator or callable, or dict of str to those
        What gives texts the probability of the concept: fitted estimators with ``predict_proba``
        on raw texts, such as a :class:`~skact.ConceptDetector`, on other models than this one, or
        functions of a list of texts to (n_texts,) numbers from 0 to 1. Their mean counts.
    concept : int or str, default=None
        Number or name of the concept or class of judges that know several.
    goal : {"more", "less"}, default="more"
        Whether the edits are to bring the concept, or to keep it out.
    strengths : array-like of shape (n_strengths,), or dict of str to those, default=(.1, .2, .4)
        Strengths of all edits, or of each by its name.
    layer, unit : as in :func:`steer`
        For all edits.
    positions : {"all", "last", "generated"}, default="all"
        As in :func:`steer`.
    site : as in :func:`steer`
        For all edits.
    prompting : str, or dict of str to str, default=None
        What asks for the concept: stands before each prompt, in the system message of a chat.
    neutral : sequence of n_neutral str, default=NEUTRAL
        Texts that should be read as before. The edit acts on all of their positions.
    n_random : int, default=10
        Random directions of each edit.
    max_new_tokens : int, default=24
        Tokens of each continuation; none ends before.
    temperature : float, default=1.0
        Of the draws; 0 takes the most probable token.
    batch_size : int, default=16
        Prompts of a pass.
    journal : path-like, default=None
        File of JSON lines that each cell is written to as soon as it is done. A report with the
        same file goes on where the last one ended; new edits and strengths may be added, and other
        judges read what was written.
    n_resamples : int, default=1000
        Resamples of the prompts and of the neutral texts.
    confidence_level : float, default=0.95
        Share of resamples inside the interval.
    random_state : int, default=0
        Draws directions, seeds and resamples.
    progress : bool, default=False
        Whether to show a bar that counts cells.

    Returns
    -------
    result : Bunch
        ``frame``, a pandas DataFrame with a row per cell: ``kind`` ("none", "edit", "random" or
        "prompting"), ``name``, ``strength``, ``draw`` of random directions; ``concept``,
        ``relative_perplexity``, ``harmonic_mean``, ``distinct_2`` and ``kl``, each with ``_low``
        and ``_high``, and a column per judge. ``generations``, one with a row per text: kind, name,
        strength, draw, ``prompt`` number, ``seed``, ``text``, ``loss``, ``distinct_2`` and a column
        per judge. ``goal``.

    Raises
    ------
    ValueError, TypeError
        Before anything runs: if edits, judges and model do not fit each other, a judge reads the
        model that is steered, prompts leave no room, or the journal is of another configuration.
    ImportError
        Without pandas.

    Examples
    --------
    ::

        result = skact.steering_report((model, tokenizer), {"joy": joy}, prompts, judge)
        skact.SteeringDisplay(result).plot()
    """
    need("pandas", "steering_report")
    if not isinstance(model, tuple):
        raise TypeError(f"model must be a pair (model, tokenizer), got {type(model).__name__}.")
    speaker = models.Speaker(open_model(model), batch_size)
    known = named_judges(judges, speaker.model.loaded)
    asked = {"prompting": prompting} if isinstance(prompting, str) else prompting or {}
    cells = [_Cell("none")]
    cells += [_Cell("prompting", name, before=_asking(text)) for name, text in asked.items()]
    cells += _edit_cells(speaker, edits, strengths, (layer, unit, site), n_random, random_state)
    seeds = np.random.default_rng(random_state).integers(2**31, size=len(prompts)).tolist()
    run = _Run(model, speaker, prompts, neutral, positions, seeds, max_new_tokens, temperature)
    records = run.all(cells, journal, progress)
    texts = [text for record in records for text in record["texts"]]
    scores = {name: judged(name, judge, texts, concept) for name, judge in known.items()}
    sizes = len(prompts), len(neutral)
    drawn = _Resampling(*sizes, n_resamples, confidence_level, random_state)
    return _Measured.of(records, scores).result(cells, seeds, texts, goal, drawn)


def _asking(text: Any) -> str:
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"prompting must ask for the concept in words, got {text!r}.")
    return text


def _edit_cells(
    speaker: models.Speaker, edits: Any, strengths: Any, where: Any, n_random: int, seed: int
) -> Iterator[_Cell]:
    """List the edits and their controls, and refuse what does not fit the model."""
    several = edits if isinstance(edits, Mapping) else {"edit": edits}
    if not several:
        raise ValueError("edits must hold at least one edit, got none.")
    loaded = speaker.model.loaded
    for name, edit in several.items():
        if not (isinstance(name, str) and is_name(name)):
            raise TypeError(f"edits must be named by texts, got {name!r}.")
        check_characters(name, f"edits: the name {name!r}")
        if not isinstance(edit, BaseEdit | Pipeline):
            raise TypeError(
                f"edits must be fitted edits, or Pipelines that end in one; that of {name!r} is "
                f"{type(edit).__name__}. Addition(direction).fit(tokens) makes one of a direction."
            )
        layer, unit, site = where
        source = source_of(edit)
        there = models.at_site(loaded, site or (source and source.site) or "residual")
        blocks = blocks_of(layer, edit, source, there)
        at = "all" if len(blocks) == len(loaded.places) > 1 else blocks[0]
        rng = np.random.default_rng([seed, len(name), *name.encode()])
        draws = rng.normal(size=(n_random, loaded.width))
        for strength in _doses(strengths, name):
            made = raw_map(edit, strength, unit, there.width)
            here: dict[str, Any] = {
                "name": str(name),
                "strength": strength,
                "layer": at,
                "site": there.site,
            }
            yield _Cell("edit", edit=made, **here)
            for draw, direction in enumerate(draws):
                yield _Cell("random", draw=draw, edit=_along(made, direction), **here)


def _along(made: EditMap, direction: Array) -> Along:
    held = {one.name: getattr(made, one.name) for one in fields(made)}
    return Along(**held, along=direction / np.linalg.norm(direction))


def _doses(strengths: Any, name: str) -> list[float]:
    if isinstance(strengths, Mapping):
        if name not in strengths:
            raise ValueError(f"strengths has no entry for the edit {name!r}.")
        strengths = strengths[name]
    values = float_array(strengths, "strengths")
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"strengths must be a list of finite numbers, got {strengths!r}.")
    return list(dict.fromkeys(values.tolist()))


@dataclass(frozen=True)
class _Run:
    """What is done alike in all cells."""

    pair: Any
    speaker: models.Speaker
    prompts: Sequence[Any]
    neutral: Sequence[Any]
    positions: str
    seeds: list[int]
    n_new: int
    temperature: float

    def all(self, cells: Sequence[_Cell], journal: Any, progress: bool) -> list[dict[str, Any]]:
        """Measure what the journal does not hold."""
        self.check(cells)
        records: dict[str, dict[str, Any]] = {}
        if journal is not None:
            records = open_journal(journal, "a steering report", self.configuration())
        with token_bar(progress, len(cells), unit="cell") as bar:
            for cell in cells:
                if cell.key not in records:
                    records[cell.key] = self(cell)
                    if journal is not None:
                        append_record(journal, cell.key, records[cell.key])
                bar.update(1)
        return [records[cell.key] for cell in cells]

    def check(self, cells: Sequence[_Cell]) -> None:
        for before in dict.fromkeys(cell.before for cell in cells):
            for what, n_new in (("prompts", self.n_new), ("neutral", 0)):
                rows = self.speaker.read(getattr(self, what), before)
                self.speaker.check_room(rows, n_new, what)

    def configuration(self) -> dict[str, Any]:
        loaded = self.speaker.model.loaded
        return {
            "model": loaded.revision,
            "dtype": str(loaded.dtype),
            "prompts": list(self.prompts),
            "neutral": list(self.neutral),
            "positions": self.positions,
            "seeds": self.seeds,
            "max_new_tokens": int(self.n_new),
            "temperature": float(self.temperature),
        }

    def __call__(self, cell: _Cell) -> dict[str, Any]:
        """Measure a cell: tokens and losses (n_prompts, n_new), divergences (n_neutral,)."""
        speaker = self.speaker
        plain, rows = (speaker.read(self.prompts, before) for before in ("", cell.before))
        with _steered(self.pair, cell, self.positions):
            tokens = speaker.go_on(rows, self.seeds, self.n_new, self.temperature)
        # By the model as it is, and as if it had not been asked.
        losses = speaker.losses(plain, tokens).mean(axis=1)
        return {
            "kind": cell.kind,
            "name": cell.name,
            "strength": None if np.isnan(cell.strength) else cell.strength,
            "draw": cell.draw,
            "texts": speaker.texts(tokens),
            "tokens": tokens.tolist(),
            "losses": losses.tolist(),
            "kl": self._divergences(cell),
        }

    @cached_property
    def _plain(self) -> tuple[list[int], list[Any]]:
        """Positions of the neutral texts, and what the model as it is predicts behind them."""
        rows = self.speaker.read(self.neutral)
        # The token before the text is none of its positions.
        n_last = [max(len(row) - 1, 1) for row in rows]
        return n_last, self.speaker.log_probabilities(rows, n_last)

    def _divergences(self, cell: _Cell) -> list[float]:
        if cell.kind == "none":
            return [0.0] * len(self.neutral)
        n_last, before = self._plain
        with _steered(self.pair, cell, "all"):
            rows = self.speaker.read(self.neutral, cell.before)
            after = self.speaker.log_probabilities(rows, n_last)
        pairs = zip(before, after, strict=True)
        return [float((p.exp() * (p - q)).sum(-1).mean()) for p, q in pairs]


def _steered(pair: Any, cell: _Cell, positions: str) -> Any:
    if cell.edit is None:
        return nullcontext()
    return steer(pair, cell.edit, cell.layer, positions=positions, site=cell.site)


def _distinct_2(tokens: Sequence[int]) -> float:
    pairs = list(pairwise(tokens))
    return len(set(pairs)) / len(pairs)


class _Resampling:
    """Percentile intervals over prompts and over neutral texts."""

    def __init__(
        self, n_prompts: int, n_neutral: int, n_resamples: int, level: float, seed: int
    ) -> None:
        rng = np.random.default_rng(seed)
        self.level = level
        self.shares = {
            n: np.concatenate(
                [np.full((1, n), 1 / n), rng.multinomial(n, np.full(n, 1 / n), n_resamples) / n]
            )
            for n in (n_prompts, n_neutral)
        }

    def means(self, values: Array) -> Array:
        """Mean of the values, then of each resample."""
        found: Array = self.shares[len(values)] @ values
        return found

    def ends(self, name: str, drawn: Array) -> dict[str, float]:
        low, high = np.quantile(drawn[1:], [(1 - self.level) / 2, (1 + self.level) / 2])
        return {name: float(drawn[0]), f"{name}_low": float(low), f"{name}_high": float(high)}


class _Measured(NamedTuple):
    """Values of all cells, (n_cells, n_prompts); ``kl`` (n_cells, n_neutral)."""

    losses: Array
    distinct: Array
    kl: Array
    scores: dict[str, Array]

    @classmethod
    def of(cls, records: Sequence[Any], scores: Mapping[str, Array]) -> _Measured:
        shape = len(records), -1
        return cls(
            np.array([record["losses"] for record in records]),
            np.array([[_distinct_2(row) for row in record["tokens"]] for record in records]),
            np.array([record["kl"] for record in records]),
            {name: values.reshape(shape) for name, values in scores.items()},
        )

    def result(self, cells: Any, seeds: Any, texts: Any, goal: str, drawn: _Resampling) -> Bunch:
        """Make data frames."""
        pandas = need("pandas", "steering_report")
        return Bunch(
            frame=pandas.DataFrame(self.rows(cells, goal, drawn)),
            generations=pandas.DataFrame(self.generations(cells, seeds, texts)),
            goal=goal,
        )

    def rows(self, cells: Sequence[_Cell], goal: str, drawn: _Resampling) -> Iterator[Any]:
        """Rows of the frame; the first cell is the model as it is."""
        concept = np.mean(list(self.scores.values()), axis=0)
        for i, cell in enumerate(cells):
            level = drawn.means(concept[i])
            worse = np.exp(drawn.means(self.losses[i] - self.losses[0]))
            wanted = level if goal == "more" else 1 - level
            # 2 / (1 / a + 1 / b), also where a is 0
            fluency = np.minimum(1, 1 / worse)
            both = 2 * wanted * fluency / (wanted + fluency)
            yield {
                **_about(cell),
                **drawn.ends("concept", level),
                **drawn.ends("relative_perplexity", worse),
                **drawn.ends("harmonic_mean", both),
                **drawn.ends("distinct_2", drawn.means(self.distinct[i])),
                **drawn.ends("kl", drawn.means(self.kl[i])),
                **{f"judge_{name}": float(s[i].mean()) for name, s in self.scores.items()},
            }

    def generations(
        self, cells: Sequence[_Cell], seeds: Sequence[int], texts: Sequence[str]
    ) -> Iterator[Any]:
        """Rows of the texts."""
        for k, text in enumerate(texts):
            i, prompt = divmod(k, len(seeds))
            yield {
                **_about(cells[i]),
                "prompt": prompt,
                "seed": seeds[prompt],
                "text": text,
                "loss": float(self.losses[i, prompt]),
                "distinct_2": float(self.distinct[i, prompt]),
                **{f"judge_{name}": float(s[i, prompt]) for name, s in self.scores.items()},
            }


def _about(cell: _Cell) -> dict[str, Any]:
    return {
        "kind": cell.kind,
        "name": cell.name,
        "strength": cell.strength,
        "draw": cell.draw,
    }
