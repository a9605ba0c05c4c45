"""Paragraphs of plain sentences, half of which hide one sentence about a concept.

Each kind of sentence has a small context-free grammar: templates with slots, and slots with words.
One draw picks a template and fills every slot at random. The concepts' words do not occur in the
plain sentences, so a paragraph carries a concept in its labelled sentence and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import TypeAlias

import numpy as np
from sklearn.utils import Bunch, check_random_state

from skact.arguments import Number, checked
from skact.datasets._shapes import deal
from skact.datasets._span import Span

Grammar: TypeAlias = Mapping[str, Sequence[str]]

_FEWEST_SENTENCES, _MOST_SENTENCES = 4, 7
_SLOT = re.compile(r"\{(\w+)\}")

_PEOPLE: Grammar = {
    "relative": ["sister", "brother", "cousin", "neighbour", "uncle", "old friend", "nephew"],
    "we": ["We", "My {relative} and I", "The two of us", "All of us"],
}

_CONCEPTS: dict[str, Grammar] = {
    "joy": {
        **_PEOPLE,
        "sentence": [
            "I was so {happy} that I {laughed} {extent}.",
            "My {relative} {laughed} with {delight} when {luck}.",
            "{we} {laughed} and {laughed}, {happy} beyond words.",
            "It filled me with {delight} to hear that {luck}.",
            "What a {wonderful} surprise, I could not stop smiling {extent}!",
            "Everyone cheered because {luck}, and I felt {happy}.",
            "{luck}, and my heart leapt with {delight}.",
        ],
        "happy": ["happy", "glad", "overjoyed", "thrilled", "delighted", "elated", "cheerful"],
        "laughed": ["laughed", "danced", "sang", "beamed", "grinned", "giggled"],
        "delight": ["delight", "joy", "pure happiness", "glee", "gladness"],
        "wonderful": ["wonderful", "lovely", "marvellous", "delightful", "glorious"],
        "luck": [
            "our team had won",
            "the baby had been born",
            "she had said yes",
            "he was healthy again",
            "they had given me the prize",
            "the two had made up",
        ],
        "extent": ["all day long", "the whole evening", "for an hour", "until my cheeks hurt"],
    },
    "anger": {
        **_PEOPLE,
        "sentence": [
            "I was {furious} and {shouted} at my {relative} {extent}.",
            "How {dare} they {wrong}, I am absolutely {furious}!",
            "My {relative} {shouted} in {rage} and slammed the door.",
            "{we} were {furious} because somebody had {wronged}.",
            "It makes my blood boil that they {wronged}.",
            "Trembling with {rage}, he {shouted} that we had {wronged}.",
            "I hate it when they {wrong}, it drives me mad with {rage}.",
        ],
        "furious": ["furious", "angry", "outraged", "livid", "enraged", "seething"],
        "shouted": ["shouted", "yelled", "screamed", "swore", "snarled", "raged"],
        "dare": ["dare", "could"],
        "rage": ["rage", "anger", "fury", "wrath", "outrage"],
        "wrong": ["lie to us", "cheat me", "insult my mother", "break every promise", "steal that"],
        "wronged": [
            "lied to us",
            "cheated me",
            "insulted my mother",
            "broken every promise",
            "stolen the money",
        ],
        "extent": ["for half an hour", "in front of everyone", "until I was hoarse", "like mad"],
    },
    "food": {
        **_PEOPLE,
        "sentence": [
            "For {meal} we had {adjective} {dish} with {side}.",
            "My {relative} {cooked} {dish} and served it with {side}.",
            "The {adjective} {dish} tasted of {spice} and {spice}.",
            "Add {spice} to the {dish} and let it simmer with {side}.",
            "I ate two plates of {adjective} {dish} and a bowl of {side}.",
            "{we} {cooked} {adjective} {dish} for {meal}.",
            "Nothing beats {dish} with {side} and a pinch of {spice}.",
        ],
        "meal": ["dinner", "lunch", "breakfast", "supper"],
        "adjective": ["spicy", "crispy", "creamy", "delicious", "salty", "juicy", "tender"],
        "dish": ["soup", "noodles", "stew", "curry", "pasta", "dumplings", "pancakes", "omelette"],
        "side": ["bread", "rice", "salad", "potatoes", "cheese", "mushrooms", "roasted onions"],
        "spice": ["garlic", "ginger", "pepper", "cinnamon", "basil", "honey", "butter"],
        "cooked": ["cooked", "fried", "baked", "prepared", "grilled"],
    },
    "travel": {
        **_PEOPLE,
        "sentence": [
            "{we} {went} to {place} by {vehicle} and stayed in a {lodging}.",
            "Our {vehicle} to {place} left at dawn with all our {luggage} on board.",
            "My {relative} lost the {luggage} on the way to {place}.",
            "After {place} we took the {vehicle} across the border to {place}.",
            "I packed my {luggage} and {went} to {place} for {time}.",
            "The {lodging} in {place} was full of tourists for {time}.",
            "{we} {went} through {place} with nothing but a map and our {luggage}.",
        ],
        "went": ["travelled", "flew", "sailed", "journeyed", "hitchhiked", "set off"],
        "place": ["Lisbon", "Kyoto", "Morocco", "Iceland", "Peru", "Istanbul", "Naples", "Nairobi"],
        "vehicle": ["night train", "ferry", "coach", "plane", "steamer", "railway"],
        "lodging": ["hostel", "guesthouse", "small hotel", "campsite"],
        "luggage": ["luggage", "suitcase", "passports", "backpacks", "tickets"],
        "time": ["two weeks", "a month", "ten days", "the whole summer", "a long weekend"],
    },
}

_PLAIN: Grammar = {
    "sentence": [
        "The {thing} in the {room} was {repaired} {when}.",
        "{someone} {moved} the {thing} from the {room} to the {room}.",
        "There are {number} {things} on the {furniture} in the {room}.",
        "The {office} opens at {hour} and closes at {hour}.",
        "{someone} wrote {number} {papers} about the {topic} {when}.",
        "The {topic} was on the agenda again {when}.",
        "It was {weather} {when}, with some wind from the {side}.",
        "{someone} asked whether the {thing} belonged to the {office}.",
        "The {office} keeps its {papers} in the {room}.",
        "According to {someone}, the {topic} takes {number} hours.",
        "{number} {things} were counted in the {room} {when}.",
        "The wall next to the {furniture} is {colour}, and so is the {thing}.",
        "{someone} signed the {papers} and put them on the {furniture}.",
        "A new {thing} was ordered for the {office} {when}.",
        "The street on the {side} side was {weather} {when}.",
        "Please leave the {papers} for {someone} in the {room}.",
    ],
    "thing": ["printer", "lamp", "heater", "clock", "ladder", "window", "cupboard", "radio"],
    "things": ["boxes", "chairs", "pencils", "folders", "bricks", "buckets", "cables", "batteries"],
    "room": ["hall", "basement", "office", "archive", "garage", "corridor", "library", "workshop"],
    "furniture": ["table", "shelf", "desk", "bench", "counter", "windowsill"],
    "repaired": ["repaired", "cleaned", "painted", "inspected", "measured", "replaced"],
    "moved": ["moved", "carried", "brought", "pushed"],
    "someone": ["the caretaker", "Mr. Lind", "the clerk", "Ms. Okafor", "a visitor", "the plumber"],
    "office": ["library", "town hall", "post office", "workshop", "museum", "surgery"],
    "papers": ["reports", "letters", "forms", "notes", "invoices", "lists"],
    "topic": ["timetable", "drainage", "budget", "lighting", "parking scheme", "survey", "fence"],
    "weather": ["dry", "cloudy", "wet", "foggy", "cold", "mild"],
    "side": ["north", "south", "east", "west"],
    "colour": ["grey", "white", "brown", "yellow", "green", "black"],
    "number": ["three", "four", "nine", "twelve", "seventeen", "forty"],
    "hour": ["eight", "nine", "half past ten", "noon", "five", "a quarter past six"],
    "when": ["on Monday", "last week", "in March", "yesterday", "this morning", "a year ago"],
}

_DESCR = """\
Paragraphs with one labelled sentence
-------------------------------------
Written by the grammars of `skact.datasets.make_paragraphs`.

Every text has 4 to 7 sentences. In half of the texts all of them are plain; in the others one
sentence, at a random place, is about joy, anger, food or travel. `spans` holds the range of that
sentence in code points, `target` which concept a text carries. Of eight texts in a row four are
plain and four carry the four concepts, in random order.
"""


@checked(n_samples=[Number(Integral, 1, None, closed="left")], random_state=["random_state"])
def make_paragraphs(
    n_samples: int = 80, *, random_state: int | np.random.RandomState | None = None
) -> Bunch:
    """Write paragraphs, half of which hold one labelled sentence about a concept.

    The texts are dealt in shuffled rounds of eight: four without a concept and one for each of joy,
    anger, food and travel. With and without a concept, a text has 4 to 7 sentences, none twice.

    Parameters
    ----------
    n_samples : int, default=80
        Number of texts, at least 1.
    random_state : int, RandomState instance or None, default=None
        Seed of all random choices. An int gives the same texts on every call.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        With the attributes

        data : list of str
            The `n_samples` texts.
        spans : list of list of Span
            For each text no span or one, which covers exactly one sentence with its closing mark.
        target : ndarray of shape (n_samples, 4), dtype int64
            1 where a text carries the concept; at most one per row.
        target_names : list of str
            ``["joy", "anger", "food", "travel"]``.
        DESCR : str
            What the data are.

    Raises
    ------
    ValueError
        If `n_samples` is less than 1.
    TypeError
        If `n_samples` is not an integer.

    Examples
    --------
    >>> from skact.datasets import make_paragraphs
    >>> paragraphs = make_paragraphs(8, random_state=0)
    >>> paragraphs.target.sum(axis=0)
    array([1, 1, 1, 1])
    >>> [len(spans) for spans in paragraphs.spans].count(1)
    4
    """
    rng = check_random_state(random_state)
    names = list(_CONCEPTS)
    cards = deal(n_samples, 2 * len(names), rng)

    texts, spans = [], []
    target = np.zeros((n_samples, len(names)), dtype=np.int64)
    for row, card in enumerate(cards):
        n_sentences = rng.randint(_FEWEST_SENTENCES, _MOST_SENTENCES + 1)
        sentences = _plain_sentences(n_sentences, rng)
        own = []
        if card < len(names):
            target[row, card] = 1
            place = rng.randint(n_sentences)
            sentences[place] = _write(_CONCEPTS[names[card]], rng)
            start = sum(len(sentence) + 1 for sentence in sentences[:place])
            own.append(Span(start, start + len(sentences[place]), names[card]))
        texts.append(" ".join(sentences))
        spans.append(own)
    return Bunch(data=texts, spans=spans, target=target, target_names=names, DESCR=_DESCR)


def _plain_sentences(n_sentences: int, rng: np.random.RandomState) -> list[str]:
    sentences: list[str] = []
    while len(sentences) < n_sentences:
        sentence = _write(_PLAIN, rng)
        if sentence not in sentences:
            sentences.append(sentence)
    return sentences


def _write(grammar: Grammar, rng: np.random.RandomState) -> str:
    """Write one sentence: no two slots of one name get the same words."""
    used: set[tuple[str, str]] = set()

    def fill(slot: str) -> str:
        choices = [words for words in grammar[slot] if (slot, words) not in used]
        words = choices[rng.randint(len(choices))]
        used.add((slot, words))
        return _SLOT.sub(lambda match: fill(match[1]), words)

    sentence = fill("sentence")
    return sentence[0].upper() + sentence[1:]
