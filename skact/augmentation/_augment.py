"""Texts with a concept at a known place: originals in paragraphs, or paragraphs written new.

A model is asked for a draft of each text, and the draft is verified: an original must be found in
it again, a new paragraph must have one tagged sentence. What fails is asked for again, and what
never passes is made without the model, or left out.

Source: Goldberg, Kim, Stein, Wong, "The SuperActivator Mechanism: Transformers Concentrate Reliable
Concept Signals in the Tail", appendix on augmented texts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from skact.arguments import Number, check_entries, check_groups, checked, instance
from skact.augmentation._drafts import DraftWriter, Rejected, draft_until_passed
from skact.augmentation._match import STEPS, find_original
from skact.augmentation._prompts import EMBEDDING_PROMPTS, TOPICS, WRITING_PROMPTS, check_prompts
from skact.datasets import Span, parse_tags
from skact.extras import need
from skact.prompting import Prompt
from skact.samples import as_list

__all__ = ["embed_in_paragraphs", "write_paragraphs"]

_DESCR = """\
Augmented texts
---------------
Written by a model for `skact.augmentation`. `spans` holds the place of what carries a concept, as
it was verified; `report` says how many drafts passed at which step, `drafts` holds all of them.
"""


@checked(
    texts="no_validation",
    labels="no_validation",
    structures=[Mapping, None],
    contexts="no_validation",
    groups="no_validation",
    min_overlap=[Number(Real, 0, 1, closed="right")],
    writer=[instance("a DraftWriter(...)", DraftWriter)],
    prompts=[Mapping, None],
)
def embed_in_paragraphs(
    texts: Sequence[str],
    labels: Sequence[Any],
    writer: DraftWriter,
    *,
    prompts: Mapping[str, str] | None = None,
    structures: Mapping[str, float] | None = None,
    contexts: Sequence[str] | None = None,
    groups: Sequence[Any] | None = None,
    min_overlap: float = 0.8,
) -> Bunch:
    """Let a model write a paragraph around each text, and find the text again in it.

    A draft passes if the text stands in it once, as :func:`find_original` finds it, with words
    around it. A text without a draft that passes stands between `contexts` instead; without these
    it is left out.

    Parameters
    ----------
    texts : sequence of n_samples str
        The originals, each with a letter or a digit.
    labels : sequence of n_samples
        Concept of each text, a list of concepts, or None for a text that is embedded in the same
        way and carries none.
    writer : DraftWriter
        The model, and how it is asked.
    prompts : mapping of str to str or None, default=None
        What is asked, by structure; it holds ``{original}``, and may hold ``{concept}``. None takes
        ``EMBEDDING_PROMPTS``, with the structures "start", "middle" and "end".
    structures : mapping of str to float or None, default=None
        Weight of each structure among the prompts, in proportion to how often it is drawn. None
        draws all equally often.
    contexts : sequence of str or None, default=None
        Texts that carry no concept, for the fall-back: one, or two around it for a structure other
        than "start" and "end", drawn at random.
    groups : sequence of n_samples or None, default=None
        Which samples belong together; None makes each text a group, and equal texts one.
    min_overlap : float, default=0.8
        Share of its words that finds a text by words.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        With the attributes

        data : list of str
            The texts that were made.
        target : ndarray of shape (n_texts, n_concepts), dtype int64
            1 where a text carries the concept.
        target_names : list of str
            The concepts, sorted.
        spans : list of list of Span
            Place of the original, once for each of its concepts.
        groups : ndarray of shape (n_texts,)
            Group of each text.
        index : ndarray of shape (n_texts,), dtype int64
            Number of its original.
        structures : list of str
            Structure that was asked for.
        steps : list of str
            Step that found the original, or "fall-back".
        drafts : DataFrame
            Every draft: sample, round, draft, whether it passed, and at which step, or why not.
        report : DataFrame
            For each outcome: whether it is one of drafts that passed, how many, and their share,
            of drafts or, for "fall-back" and "left out", of texts.
        DESCR : str
            What the data are.

    Raises
    ------
    ValueError, TypeError, OSError
        If arguments do not fit each other or the model, or the journal is another run's; before
        anything is asked.
    ImportError
        Without pandas.

    Examples
    --------
    >>> from skact.augmentation import DraftWriter, embed_in_paragraphs
    >>> def write(prompts):
    ...     return [f"I had a look outside. {p.sample} Then I left." for p in prompts]
    >>> made = embed_in_paragraphs(["What lovely rain!"], ["sarcasm"], DraftWriter(write))
    >>> made.data, made.spans
    (['I had a look outside. What lovely rain! Then I left.'],
     [[Span(start=22, end=39, label='sarcasm')]])
    """
    pandas = need("pandas", "embed_in_paragraphs")
    texts = _check_texts(texts, "texts")
    concepts = _check_labels(labels, len(texts))
    if groups is not None:
        check_groups(groups, len(texts))
    prompts = dict(EMBEDDING_PROMPTS if prompts is None else prompts)
    check_prompts(prompts, {"original"}, {"concept"})
    rng = np.random.RandomState(writer.random_state)
    drawn = _draw_structures(prompts, structures, len(texts), rng)
    around = None if contexts is None else _check_texts(contexts, "contexts")
    names = sorted({name for own in concepts for name in own})
    asked = []
    for text, own, structure in zip(texts, concepts, drawn, strict=True):
        concept = " or ".join(own or names)
        question = prompts[structure].format(original=text, concept=concept)
        asked.append(Prompt(text, concept, question))

    def verify(i: int, draft: str) -> tuple[str, int, int, str] | Rejected:
        return _verify_embedded(texts[i], draft, min_overlap)

    passed, drafts = draft_until_passed(writer, asked, verify, {"min_overlap": min_overlap})
    if around is not None:
        for i in range(len(texts)):
            if i not in passed:
                passed[i] = _fall_back(texts[i], drawn[i], around, rng)
    together = np.unique(texts, return_inverse=True)[1] if groups is None else np.asarray(groups)
    made = _bunch(passed, concepts, names, together, drafts, pandas)
    made.structures = [drawn[i] for i in made.index]
    return made


def _check_texts(texts: Any, name: str) -> list[str]:
    try:
        texts = as_list(texts)
    except ValueError as error:
        raise ValueError(str(error).replace("X", name, 1)) from None
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not any(c.isalnum() for c in text):
            raise ValueError(f"{name}[{i}] must be a text with a letter or digit, got {text!r}.")
    return [text.strip() for text in texts]


def _check_labels(labels: Any, n_samples: int) -> list[list[str]]:
    check_entries("labels", labels, n_samples)
    lists = []
    for i, label in enumerate(labels):
        own = [] if label is None else [label] if isinstance(label, str) else label
        if not isinstance(own, list | tuple | set) or not all(
            isinstance(name, str) and name.strip() for name in own
        ):
            raise ValueError(
                f"labels[{i}] must be a concept, a list of them or None, got {label!r}."
            )
        lists.append(sorted(set(own)))
    if not any(lists):
        raise ValueError("labels must name at least one concept.")
    return lists


def _draw_structures(
    prompts: Mapping[str, str],
    structures: Mapping[str, float] | None,
    n_samples: int,
    rng: np.random.RandomState,
) -> list[str]:
    """Structure of each text."""
    weights = dict.fromkeys(prompts, 1.0) if structures is None else dict(structures)
    for name, weight in weights.items():
        if name not in prompts:
            raise ValueError(f"structures names {name!r}; the prompts are {', '.join(prompts)}.")
        if isinstance(weight, bool) or not isinstance(weight, Real) or not 0 <= weight < np.inf:
            raise ValueError(
                f"structures[{name!r}] must be a weight of at least 0, got {weight!r}."
            )
    share = np.array(list(weights.values()), dtype=np.float64)
    if not share.sum() > 0:
        raise ValueError("structures must give one structure a weight above 0.")
    drawn = rng.choice(len(share), size=n_samples, p=share / share.sum())
    return [list(weights)[k] for k in drawn]


def _verify_embedded(
    original: str, draft: str, min_overlap: float
) -> tuple[str, int, int, str] | Rejected:
    """Text, place of the original, and the step that found it; or why not."""
    if not draft:
        return Rejected("empty")
    match = find_original(original, draft, min_overlap=min_overlap)
    if match is None:
        return Rejected("not found")
    if match.n_found > 1:
        return Rejected("more than once")
    if not any(c.isalnum() for c in draft[: match.start] + draft[match.end :]):
        return Rejected("nothing around it")
    return draft, match.start, match.end, match.step


def _fall_back(
    original: str, structure: str, contexts: list[str], rng: np.random.RandomState
) -> tuple[str, int, int, str]:
    """Put an original between texts that carry no concept."""
    is_edge = structure in ("start", "end")
    some = [contexts[k] for k in rng.randint(len(contexts), size=1 if is_edge else 2)]
    before = [] if structure == "start" else [_closed(some.pop())]
    start = sum(len(text) + 1 for text in before)
    text = " ".join([*before, original if structure == "end" else _closed(original), *some])
    return text, start, start + len(original), "fall-back"


def _closed(text: str) -> str:
    return text if re.search(r"[.!?…][\"'”’)]*$", text) else f"{text}."


def _bunch(
    passed: Mapping[int, tuple[str, int, int, str]],
    concepts: Sequence[Sequence[str]],
    names: list[str],
    groups: Any,
    drafts: Sequence[tuple[int, int, str, Any]],
    pandas: Any,
) -> Bunch:
    """Put together what was made, in the order of the originals."""
    index = np.array(sorted(passed), dtype=np.int64)
    made = [passed[i] for i in index.tolist()]
    own = [concepts[i] for i in index]
    rows = [
        (i, turn, draft, not rejected, outcome.reason if rejected else outcome[3])
        for i, turn, draft, outcome in drafts
        for rejected in [isinstance(outcome, Rejected)]
    ]
    table = pandas.DataFrame(rows, columns=["sample", "round", "draft", "passed", "outcome"])
    return Bunch(
        data=[text for text, *_ in made],
        target=np.array([[int(n in has) for n in names] for has in own], np.int64).reshape(
            len(made), len(names)
        ),
        target_names=names,
        spans=[
            [Span(start, end, name) for name in has]
            for (_, start, end, _), has in zip(made, own, strict=True)
        ],
        groups=groups[index],
        index=index,
        steps=[step for *_, step in made],
        drafts=table,
        report=_report(table, [step for *_, step in made], len(concepts), pandas),
        DESCR=_DESCR,
    )


def _report(table: Any, steps: list[str], n_texts: int, pandas: Any) -> Any:
    """How many drafts passed at which step, how many were rejected why, what became of the rest."""
    counts = table.groupby(["passed", "outcome"]).size().to_dict()
    order = [(True, step) for step in STEPS] if set(steps) <= {*STEPS, "fall-back"} else []
    order += [key for key in sorted(counts, reverse=True) if key not in order]
    rows = [
        (outcome, passed, counts.get((passed, outcome), 0), len(table)) for passed, outcome in order
    ]
    rows += [
        ("fall-back", False, steps.count("fall-back"), n_texts),
        ("left out", False, n_texts - len(steps), n_texts),
    ]
    report = pandas.DataFrame(rows, columns=["outcome", "passed", "n", "of"])
    return report.assign(share=report["n"] / report["of"])


@checked(
    concept=[str],
    n_samples=[Number(Integral, 1, None, closed="left")],
    writer=[instance("a DraftWriter(...)", DraftWriter)],
    share=[Number(Real, 0, 1, closed="both")],
    prompts=[Mapping, None],
    topics="no_validation",
)
def write_paragraphs(
    concept: str,
    n_samples: int,
    writer: DraftWriter,
    *,
    share: float = 0.5,
    prompts: Mapping[str, str] | None = None,
    topics: Sequence[str] | None = None,
) -> Bunch:
    """Let a model write paragraphs with one tagged sentence that carries a concept, and without.

    A draft with the concept passes if it has one pair of its tags, with a text inside and words
    around it; one without passes if it has no tag. A text that was written before is rejected.
    There is no fall-back: what never passes is left out.

    Parameters
    ----------
    concept : str
        What one sentence shows, such as "sarcasm".
    n_samples : int
        Paragraphs to ask for.
    writer : DraftWriter
        The model, and how it is asked.
    share : float, default=0.5
        Probability that a paragraph is to carry the concept.
    prompts : mapping of str to str or None, default=None
        What is asked ``"with"`` and ``"without"`` the concept; both may hold ``{topic}``,
        ``{concept}`` and ``{tag}``. None takes ``WRITING_PROMPTS``.
    topics : sequence of str or None, default=None
        What paragraphs are about, drawn at random. None takes ``TOPICS``.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        As of :func:`embed_in_paragraphs`, with ``topics`` in place of ``structures``; steps are
        "tagged" and "untagged", and each paragraph is a group of its own.

    Raises
    ------
    ValueError, TypeError, OSError
        If arguments do not fit each other or the model, or the journal is another run's; before
        anything is asked.
    ImportError
        Without pandas.

    Examples
    --------
    >>> from skact.augmentation import DraftWriter, write_paragraphs
    >>> def write(prompts):
    ...     return ["It rains. <SARCASM>How nice.</SARCASM> I stay in."] * len(prompts)
    >>> made = write_paragraphs("sarcasm", 1, DraftWriter(write), share=1)
    >>> made.data, made.spans
    (['It rains. How nice. I stay in.'], [[Span(start=10, end=19, label='sarcasm')]])
    """
    pandas = need("pandas", "write_paragraphs")
    tag = re.sub(r"[^A-Za-z0-9]+", "_", concept).strip("_").upper()
    if not re.match("[A-Z]", tag):
        raise ValueError(f"concept must begin with an ASCII letter, got {concept!r}.")
    asks = dict(WRITING_PROMPTS if prompts is None else prompts)
    check_prompts(asks, set(), {"topic", "concept", "tag"})
    if set(asks) != {"with", "without"}:
        raise ValueError(f"prompts must be 'with' and 'without', got {', '.join(map(str, asks))}.")
    topics = list(TOPICS) if topics is None else _check_texts(topics, "topics")
    rng = np.random.RandomState(writer.random_state)
    carries = rng.random_sample(n_samples) < share
    about = [topics[k] for k in rng.randint(len(topics), size=n_samples)]
    asked = [
        Prompt(topic, concept, asks[name].format(topic=topic, concept=concept, tag=tag))
        for topic, name in zip(about, np.where(carries, "with", "without"), strict=True)
    ]
    seen: set[str] = set()

    def verify(i: int, draft: str) -> tuple[str, int, int, str] | Rejected:
        found = _verify_written(draft, tag.lower() if carries[i] else None)
        if not isinstance(found, Rejected):
            if found[0] in seen:
                return Rejected("written before")
            seen.add(found[0])
        return found

    passed, drafts = draft_until_passed(
        writer, asked, verify, {"with the concept": carries.tolist()}
    )
    concepts = [[concept] if has else [] for has in carries]
    made = _bunch(passed, concepts, [concept], np.arange(n_samples), drafts, pandas)
    made.topics = [about[i] for i in made.index]
    return made


def _verify_written(draft: str, tag: str | None) -> tuple[str, int, int, str] | Rejected:
    """Text without tags, place of what is tagged; or why not."""
    if not draft:
        return Rejected("empty")
    try:
        text, spans = parse_tags(draft)
    except ValueError:
        return Rejected("tags do not fit")
    if tag is None:
        return Rejected("tagged") if spans else (text, 0, 0, "untagged")
    if [span.label for span in spans] != [tag]:
        return Rejected("no such tag" if all(s.label != tag for s in spans) else "other tags")
    start, end, _ = spans[0]
    if not any(c.isalnum() for c in text[start:end]):
        return Rejected("nothing in the tag")
    if not any(c.isalnum() for c in text[:start] + text[end:]):
        return Rejected("nothing around it")
    return text, start, end, "tagged"
