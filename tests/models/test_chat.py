"""Generative models of Hugging Face: tiny ones answer as a plain greedy loop does."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone

from skact.embedding import TransformerEmbedder
from skact.models import check_chat_model
from skact.models._hub import Checkpoint
from skact.prompting import Prompt, PromptDetector

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: "
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{% if brief %}short {% endif %}answer: {% endif %}"
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


def test_threads_that_share_a_model_get_the_answers_of_one(tiny):
    """Each leaves the settings of the checkpoint, and takes no other's for them."""
    model, tokenizer = tiny
    model = copy.deepcopy(model).train()
    own, own.eos_token_id = model.generation_config, None
    embedder = TransformerEmbedder((model, tokenizer), layer=1)
    tokens = embedder.transform(LONG_AND_SHORT).flat()
    params = [{"max_new_tokens": n, "batch_size": 2} for n in (1, 3, 5, 7)]
    expected = [ask((model, tokenizer), **p).answers(LONG_AND_SHORT).text for p in params]

    def same(i):
        if i % 2:
            return np.array_equal(embedder.transform(LONG_AND_SHORT).flat(), tokens)
        found = ask((model, tokenizer), **params[i // 2 % 4]).answers(LONG_AND_SHORT).text
        return np.array_equal(found, expected[i // 2 % 4])

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(same, range(32)))
    assert model.generation_config is own
    assert all(module.training for module in model.modules())


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


def test_a_text_cannot_spell_an_image_or_the_turn_of_somebody_else(seeing):
    from skact.models import load_chat

    image = seeing[1].tokenizer.convert_tokens_to_ids("<image>")
    generator = load_chat(
        seeing, modality="text", system=None, max_new_tokens=3, device="auto", dtype="auto",
        revision=None, trust_remote_code=False,
    )  # fmt: skip
    prompts = [Prompt(text, "joy", text) for text in ("see this", "see <image> this")]
    read = generator._encode(prompts)["input_ids"]
    assert (read == image).sum() == 0
    assert generator.tokenizer.decode(read[1]) == "<s>user: see <image> this\nanswer: "


def test_options_of_the_template_change_the_question(tiny, seeing):
    texts = LONG_AND_SHORT, np.zeros((2, 14, 14, 3), np.uint8)
    for pair, X in zip((tiny, seeing), texts, strict=True):
        plain, brief = (
            ask(pair, template_options=options).answers(X).text
            for options in (None, {"brief": True})
        )
        assert (plain != brief).any()
        with pytest.raises(ValueError, match="'think', which the model's chat template does not"):
            ask(pair, template_options={"think": False}).predict(X)


@pytest.mark.parametrize("which", ["tiny", "seeing"])
def test_folders_give_the_same_answers(which, request, tmp_path, monkeypatch):
    from tests.tiny_models import save_pair

    pair = request.getfixturevalue(which)
    X = LONG_AND_SHORT if which == "tiny" else np.zeros((2, 14, 14, 3), np.uint8)
    folder = save_pair(pair, tmp_path / "model")
    monkeypatch.setattr(Checkpoint, "model", lambda *_: pytest.fail("weights were loaded"))
    check_chat_model(folder)
    monkeypatch.undo()
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
    assert n_asked(tiny, template_options={"brief": True}) == 1
    assert n_asked(tiny, template_options={"brief": True}) == 0
    assert n_asked(tiny, template_options={"brief": False}) == 1
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
    loud = copy.deepcopy(tokenizer)
    loud.chat_template = "{{ messages[0]['content'] }}{{ messages[0]['content'] | length }}"
    t5 = transformers.T5ForConditionalGeneration(
        transformers.T5Config(vocab_size=32, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    )
    cases = [
        ((model, silent), {}, ValueError, "no chat template"),
        ((model, strict), {"system": "Hm."}, ValueError, "template refuses.*None!.*system"),
        ((model, 3), {}, TypeError, "tokenizer or a processor, got int"),
        ((image_pair("vit")[0], tokenizer), {}, TypeError, "a transformers model that generates"),
        ((t5, tokenizer), {}, ValueError, "encoder and a decoder"),
        ((model, loud), {}, ValueError, r"changes what the messages say.* begins 'x\\n\\njoy\?'"),
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


@pytest.fixture(scope="module")
def deciding(tiny):
    """A model whose tokenizer has words for yes and no, in several spellings."""
    model, tokenizer = copy.deepcopy(tiny)
    tokenizer.add_tokens(["Yes", "yes", " YES", "No", "no", "Yesterday", "</think>"])
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return model, tokenizer


def slow_odds(pair, text, end="answer: "):
    """One text without padding: log-odds, and the probability of both words."""
    import torch

    model, tokenizer = pair
    inputs = tokenizer(
        f"user: {text}\n\njoy?\n{end}", return_tensors="pt", add_special_tokens=False
    )
    with torch.no_grad():
        said = model(input_ids=inputs["input_ids"]).logits[0, -1].double().softmax(0)
    ids = {word: tokenizer.convert_tokens_to_ids(word) for word in tokenizer.get_added_vocab()}
    yes = sum(said[ids[word]] for word in ("Yes", "yes", " YES"))
    no = sum(said[ids[word]] for word in ("No", "no"))
    return float((yes / no).log()), float(yes + no)


QUIET = pytest.mark.filterwarnings("ignore:the model gives Yes and No together")


@QUIET
def test_logits_are_those_of_one_pass_and_do_not_depend_on_the_batch(deciding):
    expected = np.array([slow_odds(deciding, text) for text in LONG_AND_SHORT])
    assert np.ptp(expected[:, 0]) > 1e-2
    for batch_size in (1, 2, 5):
        found = ask(deciding, scores="logits", batch_size=batch_size).answers(LONG_AND_SHORT)
        np.testing.assert_allclose(found.odds[:, 0], expected[:, 0], atol=1e-4)
        np.testing.assert_allclose(found.share[:, 0], expected[:, 1], rtol=1e-3)
        assert (found.parsed == (found.odds > 0)).all()


@QUIET
def test_the_cut_is_the_best_one_and_the_sign_follows_it(deciding):
    y = np.array([1, 0, 1, 0, 1])
    found = PromptDetector(deciding, concepts=["joy"], prompt=SHORT, scores="logits")
    found.fit(LONG_AND_SHORT, y)
    odds = found.answers(LONG_AND_SHORT).odds[:, 0]

    def f1(cut):
        said = odds >= cut
        return 2 * (said & (y == 1)).sum() / (said.sum() + y.sum())

    np.testing.assert_allclose(f1(found.thresholds_[0] - 1e-6), max(map(f1, odds)))
    decision = found.decision_function(LONG_AND_SHORT)
    np.testing.assert_allclose(decision, odds - found.thresholds_[0], atol=1e-6)
    assert np.array_equal(found.predict(LONG_AND_SHORT), decision > 0)
    several = PromptDetector(deciding, concepts=["a", "b"], prompt=SHORT, scores="logits")
    several.fit(LONG_AND_SHORT, np.c_[y, 1 - y])
    assert several.decision_function(LONG_AND_SHORT).shape == (5, 2)
    assert several.thresholds_.shape == (2,)
    assert (ask(deciding).thresholds_ == 0).all()


def test_a_model_that_means_to_say_something_else_is_heard_once(deciding):
    with pytest.warns(UserWarning, match="Yes and No together a mean probability of 0.0") as heard:
        ask(deciding, scores="logits")
    assert len(heard) == 1


@QUIET
def test_a_thought_that_the_template_opens_is_closed(deciding):
    model, tokenizer = copy.deepcopy(deciding)
    plain = ask(deciding, scores="logits").answers(LONG_AND_SHORT).odds
    tokenizer.chat_template = TEMPLATE.replace("answer: ", "answer: <think>\n")
    found = ask((model, tokenizer), scores="logits").answers(LONG_AND_SHORT).odds[:, 0]
    end = "answer: <think>\n</think>\n\n"
    expected = [slow_odds(deciding, text, end)[0] for text in LONG_AND_SHORT]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(found - plain[:, 0]).max() > 1e-3


@QUIET
def test_logits_are_logged_apart_from_answers(deciding, tmp_path, monkeypatch):
    from skact.models._chat import Generator

    log, params = tmp_path / "a.jsonl", {"scores": "logits"}
    first = ask(deciding, log=log, **params).answers(LONG_AND_SHORT).odds
    said = ask(deciding, log=log).answers(LONG_AND_SHORT).text
    assert not set(said.ravel()) & {repr(float(x)) for x in first.ravel()}
    monkeypatch.setattr(Generator, "_prefer", lambda *args: pytest.fail("asked again"))
    again = ask(deciding, log=log, max_new_tokens=3, **params).answers(LONG_AND_SHORT).odds
    assert np.array_equal(again, first)


@QUIET
def test_logits_of_images_do_not_depend_on_the_batch(seeing):
    import torch

    model, processor = copy.deepcopy(seeing[0]), copy.deepcopy(seeing[1])
    processor.tokenizer.add_tokens(["Yes", "No"])
    torch.manual_seed(0)
    model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    pixels = np.random.default_rng(0).integers(0, 255, (4, 20, 26, 3), dtype=np.uint8)
    params = {"concepts": ["joy", "a longer concept"], "prompt": SHORT, "scores": "logits"}
    alone, together = (
        PromptDetector((model, processor), batch_size=size, **params)
        .fit(pixels, np.ones((4, 2), int))
        .answers(pixels)
        .odds
        for size in (1, 8)
    )
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert np.ptp(alone) > 1e-3


def test_a_tokenizer_without_the_words(tiny):
    with pytest.raises(ValueError, match="has no token for the word 'yes'; use scores=\"answer\""):
        ask(tiny, scores="logits")


def test_a_real_model_means_to_say_one_of_the_words(real_model):
    texts = ["I am so happy today!", "The train leaves at noon, from the other platform."]
    found = [
        PromptDetector(real_model("smollm2"), concepts=["joy"], scores="logits", batch_size=size)
        .fit(texts, [1, 0])
        .answers(texts)
        for size in (1, 2)
    ]
    assert found[0].share.min() > 0.1
    np.testing.assert_allclose(found[0].odds, found[1].odds, atol=1e-3)
