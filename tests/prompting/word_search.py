"""A model that answers by looking for the word, and a detector that asks it."""

import numpy as np

from skact.prompting import PromptDetector

TEXTS = ["joy and food", "food", "joy", "nothing"]
Y = np.array([[1, 1], [0, 1], [1, 0], [0, 0]])
CONCEPTS = ["joy", "food"]


class Model:
    """Answers by looking for the word, and remembers what it was asked."""

    def __init__(self, fail_at=None, yes="Yes", no="No"):
        self.batches, self.fail_at, self.yes, self.no = [], fail_at, yes, no

    def __call__(self, prompts):
        if len(self.batches) + 1 == self.fail_at:
            raise ConnectionError("the line is dead")
        self.batches.append(prompts)
        return [self.yes if p.concept in p.sample else self.no for p in prompts]

    @property
    def asked(self):
        return [(p.sample, p.concept) for batch in self.batches for p in batch]


def detector(model=None, **params):
    params = {"concepts": CONCEPTS, **params}
    return PromptDetector(Model() if model is None else model, **params).fit(TEXTS, Y)
