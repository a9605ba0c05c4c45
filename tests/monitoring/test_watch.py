"""What a monitor sees of a generation is what the embedder reads of the text."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from skact import (
    ConceptSearchCV,
    DifferenceInMeans,
    MaxToken,
    MeanToken,
    Monitor,
    SuperActivator,
    TokenArray,
    TokenHeatMapDisplay,
    TokenScaler,
    TopWindows,
    TransformerEmbedder,
)
from tests import tiny_models, watching

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


def test_no_window_reaches_over_special_tokens_that_were_left_out(pair):
    model, tokenizer = pair[0], copy.deepcopy(pair[1])
    tokenizer.add_special_tokens({"sep_token": "|"})
    embedder = TransformerEmbedder(pair, layer=1, sink=None)
    windows = TopWindows(None, window=3, top=2, cut="f1")
    pipe = make_pipeline(embedder, TokenScaler(), DifferenceInMeans(), windows).fit(TEXTS, Y)
    texts = "|the cat|sat||a|", "happy, not angry"
    prompts = [tokenizer(text)["input_ids"] for text in texts]
    assert tokenizer.sep_token_id in prompts[0]
    width = max(map(len, prompts))
    padded = torch.tensor([[0] * (width - len(one)) + one for one in prompts])
    mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts])
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    with Monitor(pipe).watch(model, tokenizer) as log:
        made = model.generate(padded, attention_mask=mask, **settings)
    for generated, prompt, ids in zip(log, prompts, made[:, :-1], strict=True):
        ids = ids[-len(prompt) - 5 :]
        with torch.inference_mode():
            states = model(ids[None], output_hidden_states=True).hidden_states[2][0].numpy()
        kept = np.flatnonzero(~np.isin(ids, tokenizer.all_special_ids))
        assert generated.ids == ids[kept].tolist()
        runs = kept - np.arange(len(kept))
        tokens, whole = (
            TokenArray(states[kept], [0, len(kept)], segments=segments) for segments in (runs, None)
        )
        scores = pipe[1:-1].transform(tokens)
        expected = pipe[-1].decision_function(scores)[0]
        np.testing.assert_allclose(generated.state.decision, expected, atol=1e-4)
        crossing = pipe[-1].decision_function(pipe[1:-1].transform(whole))[0]
        assert np.allclose(crossing, expected, atol=1e-4) == (tokens.segments is None)
    assert tokens.segments is None  # of the second


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


@pytest.mark.filterwarnings("ignore")
def test_of_many_classes_a_row_ends_at_a_threshold_and_not_at_the_most_probable(pair, generate):
    embedder = TransformerEmbedder(pair, layer=1, sink=None)
    y = [f"class {i % 3}" for i in range(len(TEXTS))]
    never = make_pipeline(embedder, DifferenceInMeans(), MeanToken(0.9)).fit(TEXTS, y)
    never[-1].thresholds_[:] = np.inf
    with Monitor(never).watch(pair[0], stop=True) as log:
        assert generate(["the cat"]).shape[1] == sum(log[0].is_prompt) + 6
    assert log[0].state.present.sum() == 1
    assert not log[0].reaches.any()
    never[-1].thresholds_[1] = -np.inf
    with Monitor(never).watch(pair[0], stop=True) as log:
        assert generate(["the cat"]).shape[1] == sum(log[0].is_prompt) + 1


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


def test_the_text_of_tokens_is_the_text_even_where_a_character_is_cut_off(pair, pipe, generate):
    tokenizer = pair[1]
    with Monitor(pipe).watch(pair[0]) as log:
        generate(["the cat"])
    row = log[0]
    row.ids.append(int(tokenizer.encode("\N{GRINNING FACE}")[0]))
    assert row.text.endswith("\N{REPLACEMENT CHARACTER}")
    assert "".join(token.text for token in row.tokens) == row.text


def test_a_log_is_drawn_with_its_text_escaped(pair, pipe, generate, tmp_path):
    plt = pytest.importorskip("matplotlib.pyplot")
    with Monitor(pipe).watch(pair[0]) as log:
        generate(["<b>the cat</b> 😀"])
    row = log[0]
    assert "".join(token.text for token in row.tokens) == row.text
    assert row.text.startswith("<b>the cat</b> 😀")
    assert isinstance(row.plot("concept1"), TokenHeatMapDisplay)
    plt.close("all")
    page = row.to_html(tmp_path / "page.html", "concept1")
    assert "<b>the" not in page
    assert "&lt;" in page


def test_a_log_says_how_much_it_holds_and_none_of_its_text(pair, pipe, generate):
    with Monitor(pipe).watch(pair[0]) as log:
        generate(["the cat", "a dog there"])
    assert repr(log).startswith("Watch(2 rows")
    assert repr(log[0]).startswith(f"Generated({log[0].n_tokens} tokens, {sum(log[0].is_prompt)} ")
    assert "cat" not in repr(log[0])


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
    with pytest.raises(ValueError, match="do not say which model and layer"):
        Monitor(arrays).watch(*pair).__enter__()


def test_another_number_format_is_refused(pair):
    single = copy.deepcopy(pair[0]).bfloat16().float()  # so that half precision loses nothing
    half = copy.deepcopy(single).bfloat16()
    embedder = TransformerEmbedder((single, pair[1]), layer=1, sink=None)
    pipe = make_pipeline(embedder, DifferenceInMeans(), MaxToken(0.5)).fit(TEXTS, Y)
    for given in ((half,), (half, pair[1])):
        with pytest.raises(ValueError, match=r"in float32, and the model runs in bfloat16.*load"):
            Monitor(pipe).watch(*given).__enter__()
    with Monitor(pipe).watch(single) as log:
        pass
    assert len(log) == 0


def test_another_number_format_than_that_of_a_named_model_is_refused(tmp_path):
    model, tokenizer = tiny_models.text_pair("gpt2", head=True)
    model = copy.deepcopy(model).bfloat16()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    embedder = TransformerEmbedder(str(tmp_path), layer=1, sink=None, device="cpu")
    pipe = make_pipeline(embedder, DifferenceInMeans(), MaxToken(0.5)).fit(TEXTS, Y)
    for named in ((model,), (model, tokenizer)):
        with pytest.raises(ValueError, match="embedder reads activations in float32, and the mod"):
            Monitor(pipe).watch(*named).__enter__()
    with Monitor(pipe).watch(copy.deepcopy(model).float(), tokenizer) as log:
        pass
    assert len(log) == 0


@pytest.fixture(scope="module")
def tokens(pair):
    return TransformerEmbedder(pair, layer=1, sink=None).transform(TEXTS)


AFTER = "residual stream after the block, after '<s>'"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "x", "revision": "r"}, r"fitted on another model: on \(model x, revision r"),
        ({"revision": "r"}, "the detector was fitted on another revision"),
        ({"block": 7}, r"the detector reads block 7, and the model has \d\."),
        (
            {"block": None},
            r"do not say which model and layer.*TokenArrays with a Source\(model, re",
        ),
        ({"model": None, "revision": None}, "do not say which model and layer they are from"),
        (None, r"do not say which model and layer.*fit it on what a TransformerEmbedder gives"),
        ({"convention": AFTER}, "prompt 0 begins with .* put that token before the prompt"),
    ],
)
def test_what_a_detector_was_not_fitted_on_is_refused_before_anything_runs(
    pair, tokens, generate, change, message
):
    source = None if change is None else replace(tokens.source, **change)
    pipe = make_pipeline(DifferenceInMeans(), MaxToken(0.5)).fit(tokens.with_source(source), Y)
    runs = []
    handle = watching.watch(pair[0].transformer.h[0], lambda *_: runs.append(1))
    try:
        with pytest.raises(ValueError, match=message), Monitor(pipe).watch(*pair):
            generate(["the cat"])
        assert not runs
        as_it_is = make_pipeline(DifferenceInMeans(), MaxToken(0.5)).fit(tokens, Y)
        with Monitor(as_it_is).watch(*pair):
            generate(["the cat"])
        assert runs
    finally:
        handle.remove()


def test_a_search_behind_an_embedder_is_watched(pair, pipe, generate):
    parts = make_pipeline(DifferenceInMeans(), SuperActivator())
    search = ConceptSearchCV(parts, {"superactivator__delta": [0.2, 0.5]}, cv=2)
    embedder = TransformerEmbedder(pair, layer=1, sink=None)
    searched = make_pipeline(embedder, TokenScaler(), search).fit(TEXTS * 2, np.tile(Y, (2, 1)))
    with Monitor(searched).watch(pair[0]) as log:
        generate(["the cat"], max_new_tokens=1)
    assert log[0].text == "the cat"
    offline = searched.decision_function([log[0].text])[0]
    np.testing.assert_allclose(log[0].state.decision, offline, atol=1e-4)


def test_a_prompt_that_begins_with_another_special_token_has_a_sink(pair, tokens):
    source = replace(tokens.source, convention=AFTER)
    pipe = make_pipeline(DifferenceInMeans(), MaxToken(0.5)).fit(tokens.with_source(source), Y)
    tokenizer = copy.deepcopy(pair[1])
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(7)
    ids = torch.tensor([[7, 60, 70]])
    settings = {"max_new_tokens": 2, "do_sample": False, "pad_token_id": 0}
    with Monitor(pipe).watch(pair[0], tokenizer) as log:
        pair[0].generate(ids, attention_mask=torch.ones_like(ids), **settings)
        with pytest.raises(ValueError, match="prompt 0 begins with"):
            pair[0].generate(ids[:, 1:], attention_mask=torch.ones_like(ids[:, 1:]), **settings)
    assert len(log) == 1


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
        said = [{"role": "user", "content": "The cat?"}]
        chat = tokenizer.apply_chat_template(
            said, return_tensors="pt", add_generation_prompt=True, return_dict=True
        )
        model.generate(**chat, max_new_tokens=4, do_sample=False)
    offline = pipe.decision_function([log[0].text])[0]
    np.testing.assert_allclose(log[0].state.decision, offline, atol=1e-3)
    assert len(log) == 2  # the template's own token takes the sink of a chat


@pytest.mark.parametrize("site", ["attention", "mlp", "heads"])
def test_a_detector_of_another_site_reads_that_site(pair, generate, site):
    embedder = TransformerEmbedder(pair, layer=1, site=site, sink=None)
    steps = TokenScaler(), DifferenceInMeans(), SuperActivator(0.5)
    line = make_pipeline(embedder, *steps).fit(TEXTS, Y)
    with Monitor(line).watch(pair[0]) as log:
        generate(["the cat", "happy, not angry"], max_new_tokens=1)
    for generated, prompt in zip(log, ["the cat", "happy, not angry"], strict=True):
        expected = line[:-1].transform([prompt])[0]
        np.testing.assert_allclose(generated.scores, expected, rtol=1e-3, atol=1e-4)


def test_detectors_of_two_sites_are_not_watched_together(pair):
    lines = [
        make_pipeline(TransformerEmbedder(pair, layer=1, site=site, sink=None), MaxToken())
        for site in ("residual", "mlp")
    ]

    both = clone(lines[0]).fit(TEXTS, Y)
    both.concept_names_, both.multilabel_ = ["0", "1"], True
    both.pipelines_ = {str(c): clone(line).fit(TEXTS, Y) for c, line in enumerate(lines)}
    with (
        pytest.raises(ValueError, match=r"the sites \['mlp', 'residual'\]"),
        Monitor(both).watch(pair[0]),
    ):
        pass
