"""What is counted before a run, against what goes through the model in it."""

import numpy as np
import pytest
from sklearn.utils import Bunch

from skact import PromptDetector, TransformerEmbedder, make_shapes, shapes_model_path
from skact.protocol import (
    Localization,
    MapJudge,
    Prompting,
    Setup,
    ask_about,
    dry_run,
    read_configuration,
    run,
)
from skact.protocol._beside import count_map_passes, count_questions, time_question
from skact.store import ActivationStore

pytestmark = pytest.mark.filterwarnings("ignore:.*local target")

SPLIT = np.resize(["train", "cal", "test"], 60)


@pytest.fixture
def passes(monkeypatch):
    """Samples, or copies of one, that go through the first block of the model of shapes."""
    block = TransformerEmbedder(shapes_model_path()).reader.loaded.blocks[0]
    real, seen = type(block).forward, []

    def forward(self, states, *given, **options):
        seen.extend([1] * len(states) if self is block else [])
        return real(self, states, *given, **options)

    monkeypatch.setattr(type(block), "forward", forward)
    return seen


def test_passes_of_maps_are_those_of_the_model(passes):
    data = make_shapes(60, random_state=0)
    data.split = np.resize(["train", "train", "train", "cal", "test"], 60)
    embedder = TransformerEmbedder(shapes_model_path(), 5)
    data.labels = embedder.align_masks(data.data, data.masks, data.target_names)
    data.tokens = embedder.transform(data.data)
    methods = ["direct", "rise", "full_grad", "integrated_gradients", "mfaba"]
    own = {"per_concept": 1, "points": 3, "masks": 130, "steps": 2, "targets": ["global"]}
    settings = Localization(methods=methods, **own)
    judge = MapJudge(data, embedder, settings, 0, 2)
    lengths = data.tokens.lengths[judge.test]
    counts = count_map_passes(settings, len(judge.cal), lengths, judge.pairs)
    assert set(counts) == {"about", *methods}
    for name, said in counts.items():
        passes.clear()
        judge.about() if name == "about" else judge.judge(name)
        assert len(passes) == said, name
    # A sample need not have a local target for each concept.
    both = Localization(methods=["mfaba"], **{**own, "targets": ["global", "local"]})
    judge = MapJudge(data, embedder, both, 0, 2)
    said = count_map_passes(both, len(judge.cal), lengths, judge.pairs)["mfaba"]
    passes.clear()
    judge.judge("mfaba")
    assert 0.4 * said < len(passes) < said


# Of this seed all samples of test that hold a concept have a SuperActivator of it.
CONFIG = """
seed = 1
resamples = 2
[[setup]]
name = "solids"
data = "shapes"
model = "shapes"
n_samples = 60
layers = [3]
methods = ["MeanPrototype"]
detectors = ["SuperActivator"]
[setup.localization]
layer = 5
methods = ["direct"]
targets = ["global"]
per_concept = 1
points = 2
[setup.analyses]
names = ["separability"]
fewest = 2
"""


def test_all_passes_and_bytes_of_a_run_are_said_before(passes, tmp_path):
    (tmp_path / "config.toml").write_text(CONFIG, encoding="utf-8")
    made = read_configuration(tmp_path / "config.toml")
    (said,) = dry_run(made)
    passes.clear()
    run(made, tmp_path / "out")
    info = ActivationStore(tmp_path / "out" / "store").info()
    assert said.samples == info["samples"] == 60
    assert said.tokens == info["layers"][0]["tokens"]
    assert said.passes == 3 * 60  # tokens, vectors, and the layer of localization
    assert said.localization_passes > 0
    assert len(passes) == said.passes + said.localization_passes
    assert said.n_bytes == info["bytes"]
    hours = (
        getattr(said, f"{k}_hours") for k in ("embedding", "cells", "localization", "analyses")
    )
    assert min(hours) > 0
    assert said.prompting_passes == said.prompting_hours == 0


class Answerer:
    """Says the same to all, and remembers what it was asked."""

    kind, identity = "text", ["an answerer"]

    def __init__(self, said):
        self.said, self.asked = said, []

    def check(self, prompts):
        pass

    def __call__(self, prompts):
        self.asked += [(prompt.sample, prompt.concept) for prompt in prompts]
        return [self.said] * len(prompts)


@pytest.mark.parametrize(("scores", "said"), [("answer", "Yes"), ("logits", "0.5 0.9")])
def test_questions_are_those_that_are_asked(scores, said, tmp_path, monkeypatch):
    # Of six texts each comes ten times.
    texts = [f"text {i % 6}" for i in range(60)]
    target = np.random.default_rng(0).integers(0, 2, (60, 2))
    data = Bunch(data=texts, target=target, target_names=["a", "b"], split=SPLIT)
    answerer = Answerer(said)
    monkeypatch.setattr(PromptDetector, "_open", lambda self, samples: answerer)
    settings = Prompting(scores=[scores], texts=5)
    setup = Setup("texts", "x", "m", prompting=settings)
    counted = count_questions(setup, data, lambda some: np.unique(some, return_index=True)[1], 0)
    ask_about(data, "m", scores, settings, 0, 2, tmp_path / "log.jsonl")
    assert counted == {scores: len(answerer.asked)}
    assert len(answerer.asked) == len(set(answerer.asked)) < 20
    ticks = iter([10.0, 14.0])
    assert time_question(setup, data, scores, lambda: next(ticks)) == 1.0
