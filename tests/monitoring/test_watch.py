"""What a monitor sees of a generation is what the embedder reads of the text."""

import copy

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline

from skact import (
    DifferenceInMeans,
    MaxToken,
    MeanToken,
    Monitor,
    SuperActivator,
    TokenArray,
    TokenHeatMapDisplay,
    TokenScaler,
    TransformerEmbedder,
)
from tests import tiny_models

TEXTS = ["the cat sat", "happy cat", "the angry thing", "not happy at all", "the sun", "cats sing"]
Y = np.array([[1, 0], [1, 1], [0, 1], [0, 1], [0, 0], [1, 0]])


@pytest.fixture(scope="module")
def pair():
    return tiny_models.text_pair("gpt2", head=True)


@pytest.fixture(scope="module")
def pipe(pair):
    embedder = TransformerEmbedder(pair, layer=1, sink=None)
    steps = TokenScaler(), DifferenceInMeans(), SuperActivator(0.5)
    return make_pipeline(embedder, *steps).fit(TEXTS, Y)


@pytest.fixture
def generate(pair):
    """Continue prompts, padded on the left, by single letters at random."""
    model, tokenizer = pair

    def run(prompts, **options):
        ids = [tokenizer(prompt)["input_ids"] for prompt in prompts]
        width = max(map(len, ids))
        padded = torch.tensor([[0] * (width - len(i)) + i for i in ids])
        mask = torch.tensor([[0] * (width - len(i)) + [1] * len(i) for i in ids])
        settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
        return model.generate(padded, attention_mask=mask, **(settings | options))

    return run


def count_hooks(model):
    hooks = ("_forward_hooks", "_forward_pre_hooks")
    return sum(len(getattr(m, kind)) for m in model.modules() for kind in hooks)


def test_each_row_is_read_as_its_text_would_be(pair, pipe, generate):
    model, tokenizer = pair
    plain = generate(["the cat", "happy, not angry"])
    with Monitor(pipe).watch(model) as log:
        watched = generate(["the cat", "happy, not angry"])
    assert torch.equal(plain, watched)
    assert len(log) == 2
    # Of the last token only the model's answer is known, not what it makes of it.
    read = watched[:, :-1]
    for generated, ids, prompt in zip(log, read, ("the cat", "happy, not angry"), strict=True):
        n_prompt = len(tokenizer(prompt)["input_ids"])
        ids = ids[-n_prompt - 5 :]
        assert generated.ids == ids.tolist()
        assert generated.is_prompt == [True] * n_prompt + [False] * 5
        with torch.inference_mode():
            states = model(ids[None], output_hidden_states=True).hidden_states[2][0]
        tokens = TokenArray(states.numpy(), [0, len(ids)])
        scores = pipe[1:-1].transform(tokens)
        np.testing.assert_allclose(generated.scores, scores[0], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(
            generated.state.decision, pipe[-1].decision_function(scores)[0], atol=1e-4
        )
        assert generated.marks.shape == (len(ids), 2)
    assert not np.allclose(log[0].scores[:3], log[1].scores[:3], atol=1e-3)


def test_several_generations_are_kept_apart(pair, pipe, generate):
    with Monitor(pipe).watch(pair[0]) as log:
        generate(["the cat"])
        generate(["happy", "angry"])
    assert len(log.rows) == 3
    assert [sum(row.is_prompt) > 0 for row in log] == [True] * 3


def test_a_row_ends_where_a_concept_is_found(pair, generate):
    embedder = TransformerEmbedder(pair, layer=1, sink=None)
    always = make_pipeline(embedder, DifferenceInMeans(), MeanToken(0.9)).fit(TEXTS, Y)
    always[-1].thresholds_[:] = [-np.inf, np.inf]
    with Monitor(always).watch(pair[0], stop=True) as log:
        ended = generate(["the cat"])
    n_prompt = sum(log[0].is_prompt)
    assert ended.shape[1] == n_prompt + 1
    assert log[0].state.present.tolist() == [True, False]
    always[-1].thresholds_[:] = np.inf
    with Monitor(always).watch(pair[0], stop=True):
        assert generate(["the cat"]).shape[1] == n_prompt + 6


def test_the_model_is_as_it_was_also_after_errors(pair, pipe, generate):
    model = pair[0]
    before = count_hooks(model)
    seen = []

    def fail():
        seen.append(count_hooks(model))
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"), Monitor(pipe).watch(model):
        fail()
    assert seen[0] > before
    assert count_hooks(model) == before
    assert "generate" not in vars(model)
    with Monitor(pipe).watch(model) as log:
        model(torch.tensor([[5, 6, 7]]))  # no generation
    assert len(log) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 2}, "num_beams=2 changes which one"),
        ({"use_cache": False}, "use_cache=False reads it again"),
        ({"prompt_lookup_num_tokens": 2}, "prompt_lookup_num_tokens, which takes back"),
    ],
)
def test_other_ways_to_generate_are_refused(pair, pipe, generate, options, message):
    with Monitor(pipe).watch(pair[0]) as log, pytest.raises(ValueError, match=message):
        generate(["the cat"], **options)
    assert len(log) == 0
    assert "generate" not in vars(pair[0])


def test_a_log_is_drawn_with_its_text_escaped(pair, pipe, generate, tmp_path):
    plt = pytest.importorskip("matplotlib.pyplot")
    with Monitor(pipe).watch(pair[0]) as log:
        generate(["<b>the cat</b> 😀"])
    row = log[0]
    assert "".join(token.text for token in row.tokens) == row.text
    assert row.text.startswith("<b>the cat</b> 😀")
    assert isinstance(row.plot("concept1"), TokenHeatMapDisplay)
    plt.close("all")
    page = row.to_html(tmp_path / "page.html")
    assert "<b>the" not in page
    assert "&lt;" in page


def test_another_model_or_no_known_layer_is_refused(pair, pipe):
    other = copy.deepcopy(pair[0]), pair[1]
    with torch.no_grad():
        next(other[0].parameters()).add_(1)
    with pytest.raises(ValueError, match="fitted on another revision"):
        Monitor(pipe).watch(*other).__enter__()
    arrays = make_pipeline(DifferenceInMeans(), MaxToken(0.5)).fit(
        TransformerEmbedder(pair, layer=1, sink=None).transform(TEXTS).with_source(None), Y
    )
    with pytest.raises(ValueError, match="tokenizer must be given"):
        Monitor(arrays).watch(pair[0]).__enter__()
    with pytest.raises(ValueError, match="do not say which layer they are from"):
        Monitor(arrays).watch(*pair).__enter__()


def test_a_prompt_begins_as_the_samples_did(real_model):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str(real_model("smollm2"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    embedder = TransformerEmbedder(folder, layer=3)
    steps = TokenScaler(), DifferenceInMeans(), MaxToken(0.5)
    pipe = make_pipeline(embedder, *steps).fit(TEXTS, Y)
    prompt = tokenizer("<|endoftext|>The cat", return_tensors="pt")
    with Monitor(pipe).watch(model, tokenizer) as log:
        model.generate(**prompt, max_new_tokens=4, do_sample=False)
        with pytest.raises(ValueError, match=r"prompt 0 begins with 'The'.*put that token before"):
            model.generate(**tokenizer("The cat", return_tensors="pt"), max_new_tokens=4)
    offline = pipe.decision_function([log[0].text])[0]
    np.testing.assert_allclose(log[0].state.decision, offline, atol=1e-3)
    assert len(log) == 1
