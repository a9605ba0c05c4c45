"""The prompt baseline: questions, strict answers, the log, and tiny models that answer."""

import copy
import json
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skact.prompting._answer_log import AnswerLog
from skact.prompting._detector import Prompt, PromptDetector, parse_answer

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


# Answers


@pytest.mark.parametrize(
    "text",
    ["Yes", "yes", " YES. ", '"Yes"', "**Yes**", "**Yes,** it is.", "“Yes”", "Yes\n", "`yes`!"],
)
def test_yes(text):
    assert parse_answer(text) is True


@pytest.mark.parametrize("text", ["No", "no.", "'No'", "*no*", "No, it is not.", "NO!", "No: none"])
def test_no(text):
    assert parse_answer(text) is False


@pytest.mark.parametrize(
    "text",
    """
    |Yes and no|No... or yes|Maybe|Nope|Yesterday|Not|It is: yes|Y|Yes-ish|no-one|Yes/No|1|**|yes_
    |Yesé|The answer is No|I say yes|No's|Yes’s|
    """.strip().split("|"),
)
def test_neither(text):
    assert parse_answer(text) is None


# Predictions


def test_present_exactly_where_the_answer_is_yes():
    found = detector()
    assert np.array_equal(found.predict(TEXTS), Y)
    assert found.predict(TEXTS).dtype == np.int64
    assert np.array_equal(found.decision_function(TEXTS), np.where(Y, 1.0, -1.0))
    assert found.score(TEXTS, Y) == 1
    assert found.concept_names_.tolist() == CONCEPTS


def test_a_binary_target_gives_its_classes():
    found = PromptDetector(Model(), concepts=["joy"]).fit(TEXTS, ["b", "a", "b", "a"])
    assert found.classes_.tolist() == ["a", "b"]
    assert found.predict(["joy", "x"]).tolist() == ["b", "a"]
    assert found.decision_function(["joy", "x"]).tolist() == [1, -1]
    assert found.answers(["joy"]).text.shape == (1, 1)


def test_a_single_column_stays_a_column():
    found = PromptDetector(Model(), concepts=["joy"]).fit(TEXTS, Y[:, :1])
    assert found.predict(TEXTS).shape == found.decision_function(TEXTS).shape == (4, 1)


def test_names_come_from_the_data_frame_unless_given():
    frame = pd.DataFrame(Y, columns=CONCEPTS)
    assert PromptDetector(Model()).fit(TEXTS, frame).concept_names_.tolist() == CONCEPTS
    renamed = PromptDetector(Model(), concepts=["glee", "meals"]).fit(pd.Series(TEXTS), frame)
    assert renamed.concept_names_.tolist() == ["glee", "meals"]


def test_unclear_answers_are_absent_but_never_silent():
    found = detector(Model(yes="Perhaps", no="no"))
    with pytest.warns(UserWarning, match=r"4 of 8 answers are neither.*'Perhaps'") as heard:
        predicted = found.predict(TEXTS)
    assert len(heard) == 1
    assert not predicted.any()
    answers = found.answers(TEXTS)
    assert answers.n_unparsed == 4
    assert np.array_equal(np.isnan(answers.parsed), Y == 1)
    assert (answers.parsed[Y == 0] == 0).all()
    assert answers.text[0].tolist() == ["Perhaps", "Perhaps"]


def test_what_the_model_is_told():
    model = Model()
    detector(model, prompt="{{{kind}}}: {concept}?").predict(["a {text} of joy"])
    first = model.batches[0][0]
    assert first == Prompt("a {text} of joy", "joy", "a {text} of joy\n\n{text}: joy?")
    model = Model()
    detector(model).predict(["x"])
    question = "Is the concept 'joy' present in this text? Answer Yes or No."
    assert model.batches[0][0].text == f"x\n\n{question}"


def test_batches_and_equal_samples():
    model = Model()
    found = detector(model, batch_size=3)
    predicted = found.predict(["joy", "food", "joy", "joy"])
    assert predicted.tolist() == [[1, 0], [0, 1], [1, 0], [1, 0]]
    assert [len(batch) for batch in model.batches] == [3, 1]
    assert sorted(set(model.asked)) == sorted(model.asked)


def test_images_reach_the_model_as_rgb(tmp_path):
    array = np.zeros((4, 6, 3), np.uint8)
    array[..., 0] = 255
    Image.fromarray(array).save(tmp_path / "red.png")
    blue = Image.new("RGBA", (5, 5), (0, 0, 255, 255))
    seen = []

    def model(prompts):
        seen.extend(prompts)
        return ["Yes" if p.sample.getpixel((0, 0))[0] == 255 else "No" for p in prompts]

    found = PromptDetector(model, concepts=["red"]).fit([array, blue], [1, 0])
    same = [array, tmp_path / "red.png", Image.fromarray(array), array.astype(np.float32) / 255]
    assert found.predict([*same, blue]).tolist() == [1, 1, 1, 1, 0]
    assert len(seen) == 2, "one image in four forms is asked about once"
    assert all(p.sample.mode == "RGB" for p in seen)
    assert seen[0].text == "Is the concept 'red' present in this image? Answer Yes or No."
    named = found.set_params(modality="image").predict([str(tmp_path / "red.png")])
    assert named.tolist() == [1]


# Errors before any question


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"prompt": "Is it there?"}, r"must hold \{concept\}"),
        ({"prompt": "{concept} in {text}"}, r"\{text\} is unknown"),
        ({"prompt": "{concept} in {}"}, r"\{\} is unknown"),
        ({"prompt": "{concept.__class__} {concept}"}, "is unknown"),
        ({"prompt": "{concept:{kind}}"}, "take no format"),
        ({"prompt": "{concept"}, r"must hold \{concept\}"),
        ({"concepts": ["joy"]}, "has 1 names, y has 2 concepts"),
        ({"concepts": "joy"}, "concepts"),
        ({"concepts": ["joy", " "]}, r"concepts\[1\]"),
        ({"concepts": ["joy", 3]}, r"concepts\[1\]"),
        ({"concepts": ["joy", "joy"]}, "differ"),
        ({"concepts": None}, "needs names"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"system": "You judge."}, "a callable adds its own"),
        ({"log": "answers.jsonl"}, "needs revision"),
        ({"log": "no/such/folder/a.jsonl", "revision": "m"}, "does not exist"),
        ({"log": ".", "revision": "m"}, "is a folder"),
        ({"trust_remote_code": True, "revision": "main"}, "full commit hash"),
        ({"model": None}, "model must be a Hugging Face name"),
        ({"model": ("a",)}, "a tuple of 1"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        PromptDetector(**{"model": Model(), "concepts": CONCEPTS, **params}).fit(TEXTS, Y)


@pytest.mark.parametrize("model", [3, Model, ["a"]])
def test_bad_models(model):
    with pytest.raises(TypeError, match="model must be"):
        PromptDetector(model, concepts=CONCEPTS).fit(TEXTS, Y)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (["joy", ""], ValueError, "sample 1 is an empty text"),
        (["joy", " \n"], ValueError, "sample 1 is an empty text"),
        (["joy", 3], TypeError, "sample 1 must be a text"),
        ([3, "joy"], ValueError, "sample 0 must be an image"),
        ("joy", ValueError, "a single str"),
        ([], ValueError, "no samples"),
        (np.ones((2, 3)), ValueError, r"of shape \(2, 3\)"),
        ({"joy": 1}, ValueError, "got dict"),
        ([np.full((2, 2), 3.0)], ValueError, r"must lie in \[0, 1\]"),
    ],
)
def test_bad_samples(X, error, message):
    model = Model()
    found = detector(model)
    with pytest.raises(error, match=message):
        found.predict(X)
    assert not model.batches


def test_other_mistakes(tmp_path):
    with pytest.raises(ValueError, match="inconsistent"):
        PromptDetector(Model(), concepts=CONCEPTS).fit(TEXTS[:3], Y)
    with pytest.raises(ValueError, match="requires y"):
        PromptDetector(Model(), concepts=CONCEPTS).fit(TEXTS, None)
    with pytest.raises(ValueError, match="needs names"):
        PromptDetector(Model()).fit(TEXTS, ["no", "joy", "no", "joy"])
    with pytest.raises(ValueError, match="other order"):
        PromptDetector(Model(), concepts=CONCEPTS[::-1]).fit(
            TEXTS, pd.DataFrame(Y, columns=CONCEPTS)
        )
    for method in ("predict", "decision_function", "answers"):
        with pytest.raises(NotFittedError):
            getattr(PromptDetector(Model(), concepts=CONCEPTS), method)(TEXTS)
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"sample 0: the image .* cannot be read"):
        detector().predict([tmp_path / "broken.png"])


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (["Yes"], ValueError, "list of 8 strings.*got 1"),
        ("Yes, yes", TypeError, "got str"),
        (None, TypeError, "got NoneType"),
        (["Yes"] * 7 + [True], TypeError, "answer 7 is bool"),
    ],
)
def test_answers_of_a_callable_are_checked(returned, error, message, tmp_path):
    log = tmp_path / "a.jsonl"
    found = detector(lambda prompts: returned, log=log, revision="m")
    with pytest.raises(error, match=message):
        found.predict(TEXTS)
    assert not AnswerLog(log).read()


# The log


def test_a_failure_loses_nothing(tmp_path):
    log = tmp_path / "answers.jsonl"
    params = {"batch_size": 2, "log": log, "revision": "word search"}
    broken = Model(fail_at=3)
    with pytest.raises(ConnectionError) as failure:
        detector(broken, **params).predict(TEXTS)
    assert "4 of 8 questions" in failure.value.__notes__[0]
    assert len(log.read_text().splitlines()) == 4
    model = Model()
    again = detector(model, **params)
    assert np.array_equal(again.predict(TEXTS), Y)
    assert len(model.asked) == 4
    assert set(model.asked).isdisjoint(broken.asked)
    again.predict(TEXTS)
    assert len(model.asked) == 4


def test_without_a_log_the_failure_says_how_to_keep_answers():
    with pytest.raises(ConnectionError) as failure:
        detector(Model(fail_at=2), batch_size=2).predict(TEXTS)
    assert "log=path" in failure.value.__notes__[0]


def test_the_batch_is_on_the_disk_before_the_next_question(tmp_path):
    log, lengths = tmp_path / "a.jsonl", []

    def model(prompts):
        lengths.append(len(AnswerLog(log).read()))
        return ["No"] * len(prompts)

    detector(model, log=log, revision="m", batch_size=3).predict(TEXTS)
    assert lengths == [0, 3, 6]


@pytest.mark.parametrize("cut", [1, 5, 40, 90, -2, -1])
def test_a_torn_line_is_asked_again(tmp_path, cut):
    log = tmp_path / "a.jsonl"
    params = {"log": log, "revision": "m"}
    detector(**params).predict(TEXTS)
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:-1]) + lines[-1][:cut])
    whole = cut == -1  # only the end of the line is missing
    for n_asked in (0 if whole else 1, 0):
        model = Model()
        assert np.array_equal(detector(model, **params).predict(TEXTS), Y)
        assert len(model.asked) == n_asked
    assert len(AnswerLog(log).read()) == 8
    # And a new answer starts on its own line.
    detector(**params).predict(["joy!"])
    assert len(AnswerLog(log).read()) == 10


@pytest.mark.parametrize("text", ["my diary\n", "my diary", '{"a": 1}\n', "[1]\n", "3\n"])
def test_a_file_that_is_no_log_is_left_alone(tmp_path, text):
    log = tmp_path / "diary.txt"
    log.write_text(text)
    model = Model()
    with pytest.raises(ValueError, match="no log of answers: line 1"):
        detector(model, log=log, revision="m").predict(TEXTS)
    assert log.read_text() == text
    assert not model.batches


def test_the_log_is_plain_lines(tmp_path):
    log = tmp_path / "a.jsonl"
    found = PromptDetector(
        Model(yes="Yes\u2028—"), concepts=["Freude é"], log=log, revision="m"
    ).fit(["a", "b"], [0, 1])
    found.predict(["Freude é\ud800"])
    record = json.loads(log.read_text("ascii"))
    assert set(record) == {"key", "concept", "answer"}
    assert len(record["key"]) == 64
    assert (record["concept"], record["answer"]) == ("Freude é", "Yes\u2028—")


@pytest.mark.parametrize(
    "change",
    [
        {"revision": "another"},
        {"prompt": "Is '{concept}' in this {kind}? Yes or No."},
        {"concepts": ["joys", "foods"]},
    ],
    ids=str,
)
def test_a_log_gives_no_answer_of_another_question(tmp_path, change):
    params = {"log": tmp_path / "a.jsonl", "revision": "one"}
    detector(**params).predict(TEXTS)
    other = Model()
    detector(other, **{**params, **change}).predict(TEXTS)
    assert len(other.asked) == 8
    same = Model()
    detector(same, **params, batch_size=1, progress=False).predict(TEXTS[::-1])
    assert not same.asked


def test_a_log_gives_no_answer_about_another_sample(tmp_path):
    params = {"log": tmp_path / "a.jsonl", "revision": "one"}
    detector(**params).predict(["joy"])
    model = Model()
    detector(model, **params).predict(["joy", "joy "])
    assert {sample for sample, _ in model.asked} == {"joy "}
    # One pixel, or the same bytes in another shape.
    image = np.zeros((2, 4, 3), np.uint8)
    seen = []

    def look(prompts):
        seen.extend(prompts)
        return ["No"] * len(prompts)

    found = detector(look, **params)
    found.predict([image])
    changed = image.copy()
    changed[0, 0, 0] = 1
    found.predict([image, changed, image.reshape(4, 2, 3)])
    assert len(seen) == 3 * len(CONCEPTS)


# scikit-learn's conventions


def test_clone_shares_the_model_and_copies_the_rest():
    model = Model()
    original = PromptDetector(model, concepts=CONCEPTS)
    twin = clone(original)
    assert twin.model is model
    assert twin.concepts == CONCEPTS
    assert twin.concepts is not CONCEPTS
    assert not hasattr(clone(original.fit(TEXTS, Y)), "classes_")
    assert clone(PromptDetector()).get_params() == PromptDetector().get_params()


def test_predicting_changes_nothing():
    found = detector()
    before = dict(vars(found))
    found.predict(TEXTS)
    assert vars(found) == before


def test_importing_stays_light():
    code = (
        "import sys; from skact.prompting._detector import PromptDetector as P\n"
        "P(lambda p: ['No'] * len(p), concepts=['a']).fit(['x', 'y'], [0, 1]).predict(['x'])\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Hugging Face models

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: "
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "{% endif %}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}answer: {% endif %}"
)
SHORT = "{concept}?"
LONG_AND_SHORT = ["a joy", "b", "some more food here", "what a long and winding text", "ok ok"]


@pytest.fixture(scope="module")
def tiny():
    from tests.tiny_models import text_pair

    model, tokenizer = text_pair("llama", head=True)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = TEMPLATE
    return copy.deepcopy(model), tokenizer


@pytest.fixture(scope="module")
def seeing():
    import torch
    import transformers

    from tests.tiny_models import bytes_tokenizer

    tokenizer = bytes_tokenizer("<s>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    size = {"height": 14, "width": 14}
    processor = transformers.LlavaProcessor(
        image_processor=transformers.CLIPImageProcessorPil(
            size={"shortest_edge": 14}, crop_size=size
        ),
        tokenizer=tokenizer,
        patch_size=7,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    )
    blocks = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "initializer_range": 0.3,
    }
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**blocks, image_size=14, patch_size=7),
        text_config=transformers.LlamaConfig(
            **blocks, vocab_size=len(tokenizer), max_position_embeddings=128, bos_token_id=0
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    torch.manual_seed(0)
    return transformers.LlavaForConditionalGeneration(config).eval(), processor


def ask(pair, **params):
    params = {"concepts": ["joy"], "prompt": SHORT, **params}
    return PromptDetector(pair, **params).fit(["a", "b"], [0, 1])


def greedy(model, tokenizer, inputs, n_new):
    """The slow way: the most likely token, again and again, without cache or padding."""
    import torch

    ids = inputs.pop("input_ids")
    inputs.pop("attention_mask", None)
    n_read = ids.shape[1]
    for _ in range(n_new):
        with torch.no_grad():
            new = model(input_ids=ids, use_cache=False, **inputs).logits[:, -1].argmax(-1)
        ids = torch.cat([ids, new[:, None]], dim=1)
        if new.item() == model.generation_config.eos_token_id:
            break
    return tokenizer.decode(ids[0, n_read:], skip_special_tokens=True)


def test_answers_are_greedy_and_do_not_depend_on_the_batch(tiny):
    model, tokenizer = tiny
    expected = []
    for text in LONG_AND_SHORT:
        inputs = tokenizer(
            f"system: Be brief.\nuser: {text}\n\njoy?\nanswer: ",
            return_tensors="pt",
            add_special_tokens=False,
        )
        expected.append(greedy(model, tokenizer, {"input_ids": inputs["input_ids"]}, 6))
    assert len(set(expected)) > 1
    for batch_size in (1, 2, 5):
        found = ask(tiny, system="Be brief.", max_new_tokens=6, batch_size=batch_size)
        assert found.answers(LONG_AND_SHORT).text[:, 0].tolist() == expected


def test_the_checkpoint_cannot_bend_greedy_decoding(tiny):
    model, tokenizer = tiny
    expected = ask(tiny).answers(LONG_AND_SHORT).text
    bent = copy.deepcopy(model)
    for name, value in {
        "do_sample": True, "temperature": 9.0, "repetition_penalty": 9.0, "num_beams": 3,
        "suppress_tokens": list(range(40, 90)), "no_repeat_ngram_size": 1,
    }.items():  # fmt: skip
        setattr(bent.generation_config, name, value)
    own = bent.generation_config
    assert np.array_equal(ask((bent, tokenizer)).answers(LONG_AND_SHORT).text, expected)
    assert bent.generation_config is own


def test_the_users_pair_is_left_as_it_was(tiny):
    model, tokenizer = copy.deepcopy(tiny[0]), copy.deepcopy(tiny[1])
    tokenizer.padding_side = "right"
    expected = ask(tiny).answers(LONG_AND_SHORT).text
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.9
    model.train()
    model.model.norm.eval()
    flags = [module.training for module in model.modules()]
    before = tokenizer.backend_tokenizer.to_str()
    assert np.array_equal(ask((model, tokenizer)).answers(LONG_AND_SHORT).text, expected)
    assert (tokenizer.padding_side, tokenizer.pad_token) == ("right", None)
    assert tokenizer.backend_tokenizer.to_str() == before
    assert [module.training for module in model.modules()] == flags


def test_a_vision_language_model_sees(seeing):
    model, processor = seeing
    pixels = np.random.default_rng(0).integers(0, 255, (4, 20, 26, 3), dtype=np.uint8)
    expected = []
    for image in pixels:
        inputs = processor(
            text="user: <image>joy?\nanswer: ",
            images=Image.fromarray(image),
            return_tensors="pt",
        )
        expected.append(greedy(model, processor.tokenizer, dict(inputs), 6))
    assert len(set(expected)) > 1
    before = processor.tokenizer.padding_side, processor.tokenizer.pad_token
    for batch_size in (1, 3):
        found = ask(seeing, max_new_tokens=6, batch_size=batch_size)
        assert found.answers(pixels).text[:, 0].tolist() == expected
    assert (processor.tokenizer.padding_side, processor.tokenizer.pad_token) == before


def test_questions_of_unlike_length_about_images_do_not_depend_on_the_batch(seeing):
    pixels = np.random.default_rng(1).integers(0, 255, (2, 14, 14, 3), dtype=np.uint8)
    y = np.array([[1, 1], [1, 1]])
    texts = [
        PromptDetector(
            seeing, concepts=["joy", "a longer concept"], prompt=SHORT, batch_size=size
        ).fit(["a", "b"], y).answers(pixels).text
        for size in (1, 4)
    ]  # fmt: skip
    assert np.array_equal(*texts)
    assert len(set(texts[0].ravel())) > 1


def test_a_vision_language_model_reads_texts_if_told(seeing):
    found = ask(seeing, modality="text")
    together = found.answers(LONG_AND_SHORT).text
    alone = [found.answers([text]).text[0, 0] for text in LONG_AND_SHORT]
    assert together[:, 0].tolist() == alone
    with pytest.raises(ValueError, match='say modality="text"'):
        ask(seeing).predict(["no such file"])


@pytest.mark.parametrize("which", ["tiny", "seeing"])
def test_folders_give_the_same_answers(which, request, tmp_path):
    from tests.tiny_models import save_pair

    pair = request.getfixturevalue(which)
    X = LONG_AND_SHORT if which == "tiny" else np.zeros((2, 14, 14, 3), np.uint8)
    folder = save_pair(pair, tmp_path / "model")
    found = ask(folder)
    assert np.array_equal(found.answers(X).text, ask(pair).answers(X).text)
    back = pickle.loads(pickle.dumps(found))
    assert np.array_equal(back.answers(X).text, found.answers(X).text)


def test_the_log_knows_the_model_and_the_settings(tiny, tmp_path, monkeypatch):
    import torch

    from skact.models._chat import Generator

    asked = []
    answer = Generator._answer

    def counted(self, prompts):
        asked.extend(prompts)
        return answer(self, prompts)

    monkeypatch.setattr(Generator, "_answer", counted)

    def n_asked(pair, **params):
        asked.clear()
        ask(pair, log=tmp_path / "a.jsonl", **params).answers(["joy"])
        return len(asked)

    model, tokenizer = tiny
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.model.layers[1].mlp.up_proj.weight += 0.1
    template = copy.deepcopy(tokenizer)
    template.chat_template = TEMPLATE.replace("answer", "reply")
    assert n_asked(tiny) == 1
    assert n_asked(tiny, batch_size=3) == 0
    assert n_asked((copy.deepcopy(model), copy.deepcopy(tokenizer))) == 0
    assert n_asked((other, tokenizer)) == 1
    assert n_asked((model, template)) == 1
    assert n_asked((copy.deepcopy(model).bfloat16(), tokenizer)) == 1
    assert n_asked(tiny, system="Be brief.") == 1
    assert n_asked(tiny, max_new_tokens=3) == 1
    assert n_asked(tiny, prompt="{concept}!") == 1
    assert n_asked(tiny) == 0


def test_memory_that_does_not_suffice_halves_the_batch(tiny, monkeypatch):
    import torch

    from skact.models._chat import Generator

    expected = ask(tiny).answers(LONG_AND_SHORT).text
    answer = Generator._answer

    def small(self, prompts):
        if len(prompts) > 2:
            raise torch.OutOfMemoryError("too much")
        return answer(self, prompts)

    monkeypatch.setattr(Generator, "_answer", small)
    assert np.array_equal(ask(tiny).answers(LONG_AND_SHORT).text, expected)


def test_a_loaded_pair_is_shared_by_clones_and_not_pickled(tiny):
    found = ask(tiny)
    assert clone(found).model is found.model
    saved = pickle.dumps(found)
    assert len(saved) < 5000
    back = pickle.loads(saved)
    for act in (lambda: back.predict(["x"]), lambda: clone(back).fit(["a", "b"], [0, 1])):
        with pytest.raises(ValueError, match="saved with a loaded model"):
            act()
    back.set_params(model=tiny)
    assert np.array_equal(back.answers(["x"]).text, found.answers(["x"]).text)


def test_model_errors(tiny, seeing, tmp_path):
    import transformers

    from tests.tiny_models import image_pair

    model, tokenizer = tiny
    silent = copy.deepcopy(tokenizer)
    silent.chat_template = None
    strict = copy.deepcopy(tokenizer)
    strict.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('None!') }}{% endif %}x"
    )
    t5 = transformers.T5ForConditionalGeneration(
        transformers.T5Config(vocab_size=32, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    )
    cases = [
        ((model, silent), {}, ValueError, "no chat template"),
        ((model, strict), {"system": "Hm."}, ValueError, "template refuses.*None!.*system"),
        ((model, 3), {}, TypeError, "tokenizer or a processor, got int"),
        ((image_pair("vit")[0], tokenizer), {}, TypeError, "a transformers model that generates"),
        ((t5, tokenizer), {}, ValueError, "encoder and a decoder"),
        (tiny, {"modality": "image"}, ValueError, "no image processor"),
        (tiny, {"device": "meta"}, ValueError, "lies on cpu"),
        (tiny, {"dtype": "float16"}, ValueError, "has torch.float32"),
        (tiny, {"max_new_tokens": 999}, ValueError, "exceed the 128 positions"),
        (seeing, {"max_new_tokens": 999, "modality": "text"}, ValueError, "exceed the 128"),
        (str(tmp_path / "nowhere"), {}, ValueError, "does not exist"),
        (str(tmp_path), {}, OSError, r'model="/path/to/folder"'),
        ("no-such/model", {}, OSError, r'model="/path/to/folder"'),
    ]
    for pair, params, error, message in cases:
        with pytest.raises(error, match=message):
            ask(pair, **params).predict(["x"])
    with pytest.raises(ValueError, match="exceed the 128"):
        ask(seeing, max_new_tokens=999).predict([np.zeros((14, 14), np.uint8)])
    with pytest.raises(TypeError, match="without its tokenizer"):
        ask(model)


def test_the_example_of_the_docstring_runs():
    import doctest

    from skact.prompting import _detector

    result = doctest.testmod(_detector)
    assert result.attempted >= 6
    assert result.failed == 0
