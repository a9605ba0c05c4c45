"""A model goes on by seeds and says how likely a text is, whatever shares the batch."""

import copy

import numpy as np
import pytest
import torch

from skact import models
from tests import tiny_models

PROMPTS = ["the cat", "happy, not angry at all", "the"]


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def speaker(request):
    pair = tiny_models.text_pair(request.param, head=True)
    return models.Speaker(models.changeable(pair), batch_size=2)


def test_what_is_written_depends_on_prompt_and_seed_alone(speaker):
    rows = speaker.read(PROMPTS)
    together = speaker.go_on(rows, [1, 2, 3], 6, 1.0)
    alone = [speaker.go_on([rows[i]], [i + 1], 6, 1.0)[0] for i in range(3)]
    np.testing.assert_array_equal(together, alone)
    assert (speaker.go_on(rows, [4, 5, 6], 6, 1.0) != together).any()
    greedy = [speaker.go_on(rows, [seed] * 3, 6, 0.0) for seed in (0, 1)]
    np.testing.assert_array_equal(*greedy)


def test_draws_have_the_probabilities_of_the_model(speaker):
    row = speaker.read(PROMPTS[:1])
    (said,) = speaker.log_probabilities(row, [1])
    first = speaker.go_on(row * 400, range(400), 2, 1.0)[:, 0]
    expected = said[0].exp().numpy()
    # The model's own end never ends a text.
    end = speaker.model.whole.generation_config.eos_token_id
    expected[end] = 0
    expected = expected / expected.sum()
    top = expected.argmax()
    error = np.sqrt(expected[top] / 400)
    assert abs((first == top).mean() - expected[top]) < 4 * error
    assert not (first == end).any()


def test_losses_are_those_of_single_steps(speaker):
    rows = speaker.read(PROMPTS)
    new = speaker.go_on(rows, [1, 2, 3], 4, 1.0)
    found = speaker.losses(rows, new)
    for i, row in enumerate(rows):
        ids = [*row, *new[i].tolist()]
        with torch.inference_mode():
            logits = speaker.model.whole(torch.tensor([ids])).logits[0].log_softmax(-1)
        slow = [-float(logits[len(row) - 1 + k, new[i, k]]) for k in range(4)]
        np.testing.assert_allclose(found[i], slow, atol=1e-4)


def test_a_text_that_asks_stands_before_the_prompt(speaker):
    (plain,), (asked,) = speaker.read(["cat"]), speaker.read(["cat"], "the ")
    tokenizer = speaker.model.loaded.processor
    assert tokenizer.decode(asked, skip_special_tokens=True) == "the cat"
    bos = tokenizer.bos_token_id
    assert (plain[0], asked[0]) == (bos, bos) or bos is None  # what takes the attention sink


def test_a_chat_is_told_in_its_system_message(chat_speaker):
    chat = [{"role": "user", "content": "hello"}]
    (asked,) = chat_speaker.read([chat], "be happy")
    said = chat_speaker.model.loaded.processor.decode(asked)
    assert said.index("be happy") < said.index("hello")
    system = [{"role": "system", "content": "sing"}, *chat]
    said = chat_speaker.model.loaded.processor.decode(chat_speaker.read([system], "be happy")[0])
    assert said.index("be happy") < said.index("sing") < said.index("hello")
    assert chat[0] == {"role": "user", "content": "hello"}


@pytest.fixture
def chat_speaker():
    model, tokenizer = tiny_models.text_pair("llama", head=True)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    return models.Speaker(models.changeable((model, tokenizer)))


def test_what_cannot_speak_is_refused(speaker):
    with pytest.raises(ValueError, match="pair"):
        models.Speaker(models.changeable(speaker.model.whole))
    with pytest.raises(ValueError, match="prompt 1 is an empty"):
        speaker.read(["a", ""])
    with pytest.raises(ValueError, match="128 positions"):
        speaker.check_room([[1] * 120], 9, "prompts")
