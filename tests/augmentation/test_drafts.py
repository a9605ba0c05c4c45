"""What writes drafts: functions, and chat models that draw with a seed."""

import copy
from dataclasses import replace

import pytest
import torch

from skact.augmentation import DraftWriter, embed_in_paragraphs
from skact.models import load_chat
from skact.prompting import Prompt
from tests.tiny_models import text_pair

TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}{% if brief %}-{% endif %}[answer] {% endif %}"
)
SHORT = {"start": "Say {original}."}
TEXTS = ["so nice", "how lovely", "what a day"]


@pytest.fixture(scope="module")
def pair():
    model, tokenizer = text_pair("llama", head=True)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = TEMPLATE
    return model, tokenizer


def chat(pair, temperature):
    return load_chat(
        pair,
        modality="text",
        system=None,
        max_new_tokens=6,
        temperature=temperature,
        device="auto",
        dtype="auto",
        revision=None,
        trust_remote_code=False,
    )


def test_a_chat_model_draws_with_its_seed_and_leaves_the_state_of_torch(pair):
    prompts = [Prompt(text, "joy", text) for text in TEXTS]
    drawn = chat(pair, 5.0)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    said = drawn(prompts)
    assert torch.equal(torch.rand(3), expected)
    assert said == drawn(prompts)
    assert said != replace(drawn, seed=1)(prompts)
    greedy = chat(pair, 0.0)
    assert greedy(prompts) == replace(greedy, seed=1)(prompts)
    assert drawn.identity != greedy.identity != chat(pair, 0.1).identity


def test_a_run_with_a_chat_model_can_be_repeated_and_gone_on_with(pair, tmp_path):
    def run(**settings):
        writer = DraftWriter(pair, batch_size=2, max_new_tokens=5, temperature=5.0, **settings)
        return embed_in_paragraphs(TEXTS, ["a"] * 3, writer, prompts=SHORT, contexts=["A desk."])

    first = run()
    assert len(first.data) == 3
    assert first.drafts.equals(run().drafts)
    assert not first.drafts["draft"].equals(run(random_state=1).drafts["draft"])
    journal = tmp_path / "drafts.jsonl"
    assert run(journal=journal).drafts.equals(first.drafts)
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:3]) + lines[3][:5])
    assert run(journal=journal).drafts.equals(first.drafts)
    with pytest.raises(ValueError, match="another model or its settings"):
        run(journal=journal, template_options={"brief": True})
    # A batch that is lost does not hand its place to the next one.
    journal.write_bytes(b"".join([lines[0], *lines[2:]]))
    assert run(journal=journal).drafts.equals(first.drafts)
    assert lines[1] != lines[2]
    journal.write_bytes(b"".join([lines[0], *lines[2:], b'{"key": "0", "record": ["short"]}\n']))
    with pytest.raises(ValueError, match="batch 0 does not hold 2 drafts; the file was changed"):
        run(journal=journal)


def test_prompts_that_do_not_fit_the_model_are_refused_before_it_writes(pair, tmp_path):
    path = tmp_path / "drafts.jsonl"
    with pytest.raises(ValueError, match="exceed the 128 positions"):
        embed_in_paragraphs(TEXTS, ["a"] * 3, DraftWriter(pair, journal=path))
    assert not path.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": None}, "model must be"),
        ({"model": (1,)}, "tuple of 1"),
        ({"journal": "a.jsonl"}, "needs revision"),
        ({"n_drafts": 0}, "'n_drafts'"),
        ({"batch_size": True}, "'batch_size'"),
        ({"temperature": -1}, "'temperature'"),
        ({"random_state": None}, "'random_state'"),
        ({"dtype": "int8"}, "'dtype'"),
    ],
)
def test_bad_writers(change, words):
    with pytest.raises(ValueError, match=words):
        DraftWriter(**({"model": lambda prompts: []} | change))


@pytest.mark.parametrize("said", ["text", ["a"], [1, 2, 3]])
def test_what_a_function_returns_is_checked(said):
    with pytest.raises((TypeError, ValueError), match="model must return a list of 3 strings"):
        embed_in_paragraphs(TEXTS, ["a"] * 3, DraftWriter(lambda prompts: said))
