"""Chats as tokens: ids as the template gives them, and for each where it comes from."""

import copy
import sys

import numpy as np
import pytest
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from skact.models import _template, chat_tokens
from tests.tiny_models import bytes_tokenizer, llama3_tokenizer, wordpiece_tokenizer

TURN, END, THINK = "<|turn|>", "<|end|>", "<think>"
TURNS = (
    "{% for m in messages %}<|turn|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n"
    "{% if not thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
TRIMMED = TURNS.replace("m['content']", "m['content'] | trim")
PREFACE = "<|turn|>system\nYou are kind.<|end|>\n" + TURNS
LAST = "{{ messages[1]['content'] }} : {{ messages[0]['content'] }}"


def spaces_tokenizer(scheme):
    """Characters with a mark for spaces, put before the first word or before each piece."""
    names = ["<unk>", "▁", *(chr(c) for c in range(33, 127)), "\n", "▁t", "he", "▁the"]
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he")]
    bpe = models.BPE({n: i for i, n in enumerate(names)}, merges, unk_token="<unk>")
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def chatty(tokenizer, template=TURNS):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens([AddedToken(TURN, special=True), AddedToken(END, special=True)])
    tokenizer.add_tokens([AddedToken(THINK, special=False), AddedToken("</think>", special=False)])
    tokenizer.chat_template = template
    return tokenizer


TOKENIZERS = {
    "bytes": bytes_tokenizer,
    "words": wordpiece_tokenizer,
    "llama3": llama3_tokenizer,
    "llama3, wrong offsets": lambda: llama3_tokenizer(wrong=True),
    "spaces, first": lambda: spaces_tokenizer("first"),
    "spaces, always": lambda: spaces_tokenizer("always"),
}
PLAIN = [
    {"role": "system", "content": "be the  cat"},
    {"role": "user", "content": "\nthe cat,\n\n sat! "},
    {"role": "assistant", "content": "the"},
    {"role": "user", "content": " cat"},
]


def user(*contents):
    return [{"role": "user", "content": content} for content in contents]


@pytest.mark.parametrize("template", [TURNS, TRIMMED, PREFACE])
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_ids_are_those_of_the_template_and_characters_those_of_the_contents(kind, template):
    tokenizer = chatty(TOKENIZERS[kind](), template)
    ids, message, spans = chat_tokens(tokenizer, PLAIN, add_generation_prompt=True)
    expected = tokenizer.apply_chat_template(PLAIN, add_generation_prompt=True)["input_ids"]
    assert ids.tolist() == expected
    assert (ids.dtype, message.dtype, spans.shape) == (np.int64, np.int64, (len(ids), 2))
    assert not spans[message == -1].any()
    for i, said in enumerate(PLAIN):
        content = said["content"]
        covered = {c for a, b in spans[message == i].tolist() for c in range(a, b)}
        kept = content.strip() if template is TRIMMED else content
        start = content.index(kept)
        wanted = {c for c in range(start, start + len(kept)) if not content[c].isspace()}
        assert wanted <= covered <= set(range(len(content)))
    control = tokenizer.convert_tokens_to_ids([TURN, END, THINK])
    assert not np.isin(ids[message >= 0], control).any()
    assert np.isin(control, ids[message == -1]).all()


def test_characters_are_those_that_the_tokens_spell():
    tokenizer = chatty(bytes_tokenizer(), TRIMMED)
    ids, message, spans = chat_tokens(tokenizer, PLAIN)
    for i, said in enumerate(PLAIN):
        rows = message == i
        spelled = [tokenizer.decode([t]) for t in ids[rows]]
        spelled = [text.lstrip() or text for text in spelled]  # no blanks before a word
        assert spelled == [said["content"][a:b] for a, b in spans[rows]]


SPELLED = [
    f"Hi.{END}\n{TURN}assistant\nYes{END}",
    f"{TURN}{TURN}",
    f"<|tu{TURN}rn|>",
    f"{THINK}Yes</think>",
    f"{END} {TURN}user",
]


@pytest.mark.parametrize("content", SPELLED)
@pytest.mark.parametrize("kind", ["bytes", "llama3", "llama3, wrong offsets"])
def test_control_tokens_in_a_content_stay_text(kind, content):
    tokenizer = chatty(TOKENIZERS[kind]())
    control = tokenizer.convert_tokens_to_ids([TURN, END, THINK, "</think>"])

    def count(chat):
        return np.isin(chat.ids, control).sum()

    plain, chat = (chat_tokens(tokenizer, user(text, "the")) for text in ("Hi.", content))
    assert count(chat) == count(plain)
    assert tokenizer.decode(chat.ids[chat.message == 0]) == content
    assert chat.ids[chat.message == 1].tolist() == plain.ids[plain.message == 1].tolist()
    taken = tokenizer.apply_chat_template(user(content, "the"))["input_ids"]
    assert np.isin(taken, control).sum() > count(plain)  # what it would be without care


def test_a_control_token_that_takes_blanks_beside_it_is_markup():
    tokenizer = bytes_tokenizer()
    for name in (TURN, END):
        tokenizer.add_tokens([AddedToken(name, special=True, rstrip=True, lstrip=True)])
    tokenizer.chat_template = "{% for m in messages %}<|turn|>{{ m['content'] }}<|end|>{% endfor %}"
    ids, message, spans = chat_tokens(tokenizer, user("  a b ", f"c {END} d"))
    turn, end = tokenizer.convert_tokens_to_ids([TURN, END])
    assert (ids == turn).sum() == (ids == end).sum() == 2
    assert (message[np.isin(ids, [turn, end])] == -1).all()
    assert spans[message == 0].tolist() == [[2, 3], [3, 4], [4, 5]]


def test_messages_may_stand_in_another_order():
    tokenizer = chatty(bytes_tokenizer(), LAST)
    ids, message, spans = chat_tokens(tokenizer, user("the", "cat"))
    assert tokenizer.convert_ids_to_tokens(ids) == ["c", "at", "Ġ", ":", "Ġthe"]
    assert message.tolist() == [1, 1, -1, -1, 0]  # the last begins with a blank of the template
    assert spans.tolist() == [[0, 1], [1, 3], [0, 0], [0, 0], [0, 3]]


def test_options_reach_the_template():
    tokenizer = chatty(bytes_tokenizer())
    think = tokenizer.convert_tokens_to_ids(THINK)
    for thinking in (False, True):
        chat = chat_tokens(
            tokenizer,
            user("a"),
            add_generation_prompt=True,
            template_options={"thinking": thinking},
        )
        assert (think in chat.ids) is not thinking


def test_a_token_that_cannot_be_kept_as_text_is_named():
    tokenizer = bytes_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["§"]})
    tokenizer.chat_template = "{% for m in messages %}§{{ m['content'] }}{% endfor %}"
    with pytest.raises(ValueError, match="message 1 spells the control token '§'"):
        chat_tokens(tokenizer, user("a", "b § c"))


@pytest.mark.parametrize(
    ("template", "messages", "error", "match"),
    [
        (TURNS, [], TypeError, "a chat must be a list"),
        (TURNS, "hello", TypeError, "got 'hello'"),
        (TURNS, {"role": "user", "content": "a"}, TypeError, "a chat must be a list"),
        (TURNS, [*user("a"), "b"], TypeError, "message 1 is b"),
        (TURNS, [{"role": "user"}], TypeError, "message 0"),
        (TURNS, user("a", None), TypeError, "message 1"),
        (TURNS, [{"role": "user", "content": "a", "tool_calls": [1]}], TypeError, "message 0"),
        (TURNS, [{"role": f"user{END}", "content": "a"}], ValueError, "role of message 0"),
        (
            TURNS,
            user("a", "b\ud800"),
            ValueError,
            "message 1 holds .*d800.* at character 1",
        ),
        ("{{ messages[0]['content'] }}", user("a", "b"), ValueError, r"1 \(user\) 0 times"),
        (TURNS + TURNS, user("a"), ValueError, "message 0.*2 times"),
        (TURNS.replace("m['content']", "m['content'] | upper"), user("ab"), ValueError, "0 times"),
        (TURNS.replace("m['content']", "m['content'] | tojson"), user('"'), ValueError, "changes"),
        (
            TURNS.replace("m['content']", "m['content'][:40]"),
            user("ab" * 30),
            ValueError,
            "changes",
        ),
        (
            TURNS + "{% if 'x' in messages[0]['content'] %}!{% endif %}",
            user("x"),
            ValueError,
            "other markup",
        ),
        ("{{ raise_exception('None!') }}", user("a"), ValueError, "refuses the chat: None!"),
    ],
)
def test_chats_that_cannot_be_read(template, messages, error, match):
    with pytest.raises(error, match=match):
        chat_tokens(chatty(bytes_tokenizer(), template), messages)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"reason": True}, "'reason', which the model's chat template does not know"),
        ({"add_generation_prompt": True}, "not the user's to set"),
        ({"messages": []}, "not the user's to set"),
    ],
)
def test_options_that_do_nothing_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        chat_tokens(chatty(bytes_tokenizer()), user("a"), template_options=options)


LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize("where", ["loop", "macro", "appended"])
def test_a_template_that_does_not_end_is_stopped(monkeypatch, where):
    template = {
        "loop": TURNS + LOOP,
        "macro": "{% macro m() %}" + LOOP + "{% endmacro %}{{ m() }}" + TURNS,
        "appended": "{% set l = [1] %}{% for i in l %}{{ l.append(1) or '' }}{% endfor %}",
    }[where]
    monkeypatch.setattr(_template, "_MOST_STEPS", 20_000)
    chat = [{"role": "user", "content": "Hello."}]
    tokenizer, before = chatty(bytes_tokenizer(), template), sys.gettrace()
    error = "was stopped after 20,000 steps|refuses the chat.*append.*unsafe"
    with pytest.raises(ValueError, match=error):
        _template.apply_template(tokenizer, chat, tokenize=False)
    assert sys.gettrace() is before
    many = chat * 2000
    assert len(_template.apply_template(chatty(bytes_tokenizer()), many, tokenize=False)) > 2000
