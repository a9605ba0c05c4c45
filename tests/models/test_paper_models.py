"""The models of the paper, whole in depth and narrow in width: blocks, tokens, numbers."""

import copy

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from skact.embedding import TransformerEmbedder
from skact.models._depth import depth_to_block
from skact.models._loaded import load
from skact.models._mllama import FirstTile, FirstTileProcessor
from skact.models._places import find_places
from tests import tiny_models
from tests.tiny_models import PATCH, TILE

LLAMA_IMAGE, LLAMA_TEXT = "llama-3.2-vision image", "llama-3.2-vision text"
# kind: number of blocks, {depth in percent: block}
TABLE = {
    "clip-vit-l/14": (24, {4: 0, 25: 5, 46: 10, 67: 15, 88: 20, 100: 23}),
    LLAMA_IMAGE: (
        40,
        {2: 0, 15: 5, 28: 10, 40: 15, 52: 19, 65: 25, 78: 30, 90: 35, 100: 39},
    ),
    LLAMA_TEXT: (32, {3: 0, 19: 5, 34: 9, 50: 15, 66: 20, 81: 24, 97: 30, 100: 31}),
    "gemma2-9b": (42, {4: 0, 21: 7, 39: 15, 57: 22, 75: 30, 93: 38, 100: 41}),
    "qwen3-embedding-4b": (36, {3: 0, 19: 5, 34: 11, 50: 17, 66: 22, 81: 28, 97: 33, 100: 35}),
}
TEXTS = [
    "The cat sat.",
    "x",
    "I am not happy, not at all: the cat sat on the thing, and then it sat on another one!",
    "Émoji 😀 in the middle",
]


def samples(kind, images):
    return TEXTS if kind in tiny_models.PAPER_TEXT else images


def everything(pair, X, **params):
    params = {"crop": "processor", "sink": None, **params}
    n_blocks = TransformerEmbedder(pair, **params).n_blocks
    return TransformerEmbedder(pair, layer=list(range(n_blocks)), **params).transform(X)


@pytest.mark.parametrize("kind", TABLE)
def test_blocks_and_depths(kind, images):
    n_blocks, depths = TABLE[kind]
    layer = [p / 100 for p in depths]
    found = TransformerEmbedder(tiny_models.paper_pair(kind), layer, crop="processor")
    assert found.n_blocks == n_blocks
    assert found.transform(samples(kind, images)).layers == list(depths.values())


def test_depths_equal_the_reference(reference):
    ref = reference("ref_percent_to_layer")
    names = {
        "CLIP": "clip-vit-l/14",
        "LlamaVision": LLAMA_IMAGE,
        "LlamaText": LLAMA_TEXT,
        "Gemma2_9B": "gemma2-9b",
    }
    for name, kind in names.items():
        rows = ref["in_model"] == name
        n_blocks, depths = TABLE[kind]
        assert set(ref["in_total"][rows].tolist()) == {n_blocks}
        assert dict(zip(ref["in_percent"][rows], ref["out_layer"][rows], strict=True)) == depths


def test_the_published_configs_have_as_many_blocks():
    vision, text = transformers.MllamaVisionConfig(), transformers.MllamaTextConfig()
    assert (vision.num_hidden_layers, vision.num_global_layers) == (32, 8)
    assert text.num_hidden_layers - len(text.cross_attention_layers) == 32
    for narrow, own in ((tiny_models.llama_vision_config(28, 7), vision),):
        assert narrow.intermediate_layers_indices == own.intermediate_layers_indices
        assert narrow.supported_aspect_ratios == own.supported_aspect_ratios
    narrow = tiny_models.llama_vision_text_config(300)
    assert narrow.cross_attention_layers == text.cross_attention_layers


@pytest.mark.parametrize("kind", TABLE)
def test_a_batch_of_one_equals_a_batch(kind, images):
    pair, X = tiny_models.paper_pair(kind), samples(kind, images)
    together = everything(pair, X, batch_size=len(X))
    alone = everything(pair, X, batch_size=1)
    for block in together.layers:
        np.testing.assert_allclose(
            together.layer(block).values, alone.layer(block).values, atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("kind", tiny_models.PAPER_TEXT)
def test_texts_equal_the_models_own_states(kind):
    pair = model, tokenizer = tiny_models.paper_pair(kind)
    found = everything(pair, TEXTS)
    n_blocks = TABLE[kind][0]
    for i, text in enumerate(TEXTS):
        encoded = tokenizer(text, return_special_tokens_mask=True)
        kept = [not special for special in encoded["special_tokens_mask"]]
        assert found.lengths[i] == sum(kept) == len(kept) - 1
        with torch.no_grad():
            ids = torch.tensor([encoded["input_ids"]])
            own = model(input_ids=ids, output_hidden_states=True).hidden_states
            last = model.norm(torch.from_numpy(found.layer(n_blocks - 1)[i]))
        assert len(own) == n_blocks + 1
        for block in range(n_blocks - 1):
            np.testing.assert_allclose(
                found.layer(block)[i], own[block + 1][0, kept], atol=1e-4, rtol=1e-4
            )
        # Theirs is after the final norm.
        assert np.abs(found.layer(n_blocks - 1)[i] - own[-1][0, kept].numpy()).max() > 1
        np.testing.assert_allclose(last, own[-1][0, kept], atol=1e-4, rtol=1e-4)


def test_gemma_sees_through_a_window_in_every_other_block():
    model, _ = tiny_models.paper_pair("gemma2-9b")
    kinds = model.config.layer_types
    assert kinds == ["sliding_attention", "full_attention"] * 21
    ids = torch.arange(30)[None]
    other = ids.clone()
    other[0, 0] = 99
    with torch.no_grad():
        one, two = (
            model(input_ids=i, output_hidden_states=True).hidden_states for i in (ids, other)
        )
    # The last token is more than a window from the first one.
    assert torch.equal(one[1][0, -1], two[1][0, -1])
    assert not torch.equal(one[2][0, -1], two[2][0, -1])


def test_clip_has_257_positions(images):
    pair = model, processor = tiny_models.paper_pair("clip-vit-l/14")
    plain = everything(pair, images)
    kept = everything(pair, images, special_tokens=True)
    assert set(plain.lengths.tolist()) == {256}
    assert set(kept.lengths.tolist()) == {257}
    with torch.no_grad():
        pixels = processor(images, return_tensors="pt")
        own = model(**pixels, output_hidden_states=True).hidden_states
    for block in range(24):
        found = np.stack(kept.layer(block).to_list())
        np.testing.assert_allclose(found, own[block + 1], atol=1e-4, rtol=1e-4)


def own_tiles(model, inputs, n_positions=17):
    """What the model itself gives out of chosen blocks, (n_images, n_tiles, n_positions, ...)."""
    inputs = {k: torch.as_tensor(np.asarray(v)) for k, v in inputs.items() if k != "num_tiles"}
    with torch.no_grad():
        out = model(**inputs).last_hidden_state[:, 0]
    last, rest = out[..., : tiny_models.WIDTH], out[..., tiny_models.WIDTH :]
    chosen = model.config.intermediate_layers_indices
    rest = rest.reshape(*rest.shape[:3], tiny_models.WIDTH, len(chosen))
    return {39: last, **{block: rest[..., k] for k, block in enumerate(chosen)}}


@pytest.fixture
def small():
    """Images that the processor itself puts into one tile."""
    rng = np.random.default_rng(3)
    sizes = [(28, 28), (20, 9), (7, 28), (13, 21), (1, 20)]
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def test_llama_images_equal_the_models_own_states(small):
    pair = model, processor = tiny_models.paper_pair(LLAMA_IMAGE)
    inputs = processor([[Image.fromarray(image)] for image in small], return_tensors="np")
    assert inputs["num_tiles"] == [[1]] * len(small)
    own = own_tiles(model, inputs)
    assert sorted(own) == [3, 7, 15, 23, 30, 39]
    found = everything(pair, small, special_tokens=True)
    places = TransformerEmbedder(pair).tokens_of(small)
    assert [len(row) for row in places] == [16, 4 * 2, 1 * 4, 3 * 4, 1 * 4]
    assert found.lengths.tolist() == [1 + len(row) for row in places]
    for block, tiles in own.items():
        for i, row in enumerate(places):
            positions = [0, *(1 + 4 * p.row + p.column for p in row)]
            np.testing.assert_allclose(
                found.layer(block)[i], tiles[i, 0, positions], atol=1e-5, rtol=1e-4
            )
            assert np.abs(found.layer(block)[i] - tiles[i, 1, positions].numpy()).max() > 0.1


def test_llama_blocks_equal_what_both_encoders_report(small):
    base = FirstTile(tiny_models.paper_pair(LLAMA_IMAGE)[0])
    pixels = torch.randn(1, 3, TILE, TILE)
    found = find_places(base, {"pixel_values": pixels}, [base.blocks])
    assert [place.module for place in found.read] == list(base.blocks)
    assert {state.shape for state in found.states} == {(1, 17, tiny_models.WIDTH)}
    swapped = torch.nn.ModuleList([*base.blocks[32:], *base.blocks[:32]])
    with pytest.raises(RuntimeError, match="FirstTile"):
        find_places(base, {"pixel_values": pixels}, [swapped])
    assert not any(module._forward_hooks for module in base.modules())


def test_a_llama_image_is_fitted_into_one_tile():
    pair = model, processor = tiny_models.paper_pair(LLAMA_IMAGE)
    image = np.random.default_rng(0).integers(0, 256, (50, 100, 3), dtype=np.uint8)
    assert processor([[image]])["num_tiles"] == [[2]]  # by itself it would be cut
    inputs = processor([[image]], max_image_tiles=1, return_tensors="np")
    tiles = np.zeros((1, 1, 4, 3, TILE, TILE), np.float32)
    tiles[:, :, 0] = inputs["pixel_values"][:, :, 0]
    own = own_tiles(
        model,
        {
            "pixel_values": tiles,
            "aspect_ratio_ids": [[1]],
            "aspect_ratio_mask": [[[1, 0, 0, 0]]],
        },
    )
    found = TransformerEmbedder(pair, layer=39)
    X = found.transform([image])
    assert X.lengths.tolist() == [8]  # 14 x 28 pixels
    np.testing.assert_allclose(X[0], own[39][0, 0, 1:9], atol=1e-5, rtol=1e-4)
    boxes = np.array([patch.box for patch in found.tokens_of([image])[0]])
    assert boxes.max(0).tolist() == [75, 25, 100, 50]
    mask = np.zeros((50, 100), bool)
    mask[49, 99] = True
    assert np.flatnonzero(found.align_masks([image], [mask]).flat()).tolist() == [7]


@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
def test_pooling_of_llama_images(pooling, images):
    pair = tiny_models.paper_pair(LLAMA_IMAGE)
    tokens = TransformerEmbedder(pair, layer=35, special_tokens=True).transform(images)
    pick = {"cls": lambda x: x[0], "mean": lambda x: x[1:].mean(0), "last": lambda x: x[-1]}
    expected = [pick[pooling](sample) for sample in tokens]
    found = TransformerEmbedder(pair, layer=35, pooling=pooling).transform(images)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.nightly
@pytest.mark.parametrize(
    "options",
    [
        {"num_hidden_layers": 2, "num_global_layers": 1, "intermediate_layers_indices": [0]},
        {"max_num_tiles": 1, "supported_aspect_ratios": [[1, 1]]},
    ],
    ids=["four tiles", "all blocks"],
)
def test_llama_images_of_full_size(options):
    torch.manual_seed(0)
    model = transformers.MllamaVisionModel(tiny_models.llama_vision_config(560, 14, **options))
    pair = model.eval(), tiny_models.llama_processor(560)
    sizes = [(480, 640), (300, 180)]
    images = [np.full((*size, 3), 200, np.uint8) for size in sizes]
    found = TransformerEmbedder(pair, layer=0)
    # 420 x 560 and 560 x 336 pixels in patches of 14
    assert found.transform(images).lengths.tolist() == [30 * 40, 40 * 24]
    kept = TransformerEmbedder(pair, layer=-1, special_tokens=True).transform(images[:1])
    assert kept.lengths.tolist() == [1 + 30 * 40]
    assert found.n_blocks == model.config.num_hidden_layers + model.config.num_global_layers


def test_cross_attention_blocks_are_no_blocks_of_a_text():
    model, tokenizer = tiny_models.paper_pair(LLAMA_TEXT)
    crossing = model.config.cross_attention_layers
    assert crossing == [3, 8, 13, 18, 23, 28, 33, 38]
    loaded = load((model, tokenizer))
    assert list(loaded.blocks) == [b for i, b in enumerate(model.layers) if i not in crossing]
    ran = []
    handles = [
        block.register_forward_pre_hook(lambda *_, i=i: ran.append(i))
        for i, block in enumerate(model.layers)
    ]
    TransformerEmbedder((model, tokenizer), layer=3).transform(["the cat"])
    for handle in handles:
        handle.remove()
    assert ran == [0, 1, 2, 4]


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    for part in (
        tiny_models.llama_vision_model(),
        tiny_models.llama_processor(TILE),
        tiny_models.llama3_tokenizer(),
    ):
        part.save_pretrained(folder)
    return str(folder)


def test_both_sides_of_llama_from_a_folder(llama_folder, images):
    seen = TransformerEmbedder(llama_folder, layer=[0.4, 1.0])
    read = TransformerEmbedder(llama_folder, layer=[0.5, 1.0], modality="text")
    assert (seen.n_blocks, read.n_blocks) == (40, 32)
    for found, kind, X in ((seen, LLAMA_IMAGE, images), (read, LLAMA_TEXT, TEXTS)):
        pair = tiny_models.paper_pair(kind)
        expected = TransformerEmbedder(pair, layer=found.layer).transform(X)
        got = found.transform(X)
        assert got.layers == expected.layers
        for block in got.layers:
            np.testing.assert_allclose(
                got.layer(block).values, expected.layer(block).values, atol=1e-5, rtol=1e-4
            )
            one, other = got.layer(block).source, expected.layer(block).source
            assert one.conflict(other) is None
    labels = read.align_spans(["the cat 😀 sat."], [[(8, 9, "smile")]])
    assert labels.flat()[:, 0].tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("kind", [k for k in TABLE if not k.startswith("llama")])
def test_the_other_models_from_a_folder(kind, tmp_path, images):
    pair, X = tiny_models.paper_pair(kind), samples(kind, images)
    folder = tiny_models.save_pair(pair, tmp_path)
    found = TransformerEmbedder(folder, layer=-1, crop="processor")
    assert found.n_blocks == TABLE[kind][0]
    expected = TransformerEmbedder(pair, layer=-1, crop="processor").transform(X)
    np.testing.assert_allclose(found.transform(X).values, expected.values, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["MllamaForConditionalGeneration", "MllamaForCausalLM"])
def test_heads_of_llama_are_left_out(kind, images):
    whole = tiny_models.llama_vision_model()
    tokenizer = tiny_models.llama3_tokenizer()
    if kind == "MllamaForCausalLM":
        model = transformers.MllamaForCausalLM(copy.deepcopy(whole.language_model.config))
        model.model = whole.language_model
    else:
        model = transformers.MllamaForConditionalGeneration(copy.deepcopy(whole.config))
        model.model = whole
        own = TransformerEmbedder(tiny_models.paper_pair(LLAMA_IMAGE)).transform(images)
        seen = TransformerEmbedder((model, tiny_models.llama_processor(TILE))).transform(images)
        np.testing.assert_array_equal(seen.values, own.values)
        assert seen.source.revision == own.source.revision
    pair = model.eval(), tokenizer
    read = TransformerEmbedder(pair, modality="text").transform(TEXTS)
    own = TransformerEmbedder(tiny_models.paper_pair(LLAMA_TEXT)).transform(TEXTS)
    np.testing.assert_allclose(read.values, own.values, atol=1e-5, rtol=1e-4)
    assert read.source.revision == own.source.revision


def test_llama_in_low_precision(images):
    model, processor = tiny_models.paper_pair(LLAMA_IMAGE)
    low = copy.deepcopy(model).bfloat16()
    found = TransformerEmbedder((low, processor)).transform(images)
    exact = TransformerEmbedder((model, processor)).transform(images)
    error = np.abs(found.values - exact.values).mean()
    assert 0 < error < 0.1 * np.abs(exact.values).mean()


def test_tiles_must_be_those_of_the_model(images):
    model, _ = tiny_models.paper_pair(LLAMA_IMAGE)
    pair = model, tiny_models.llama_processor(2 * TILE)
    with pytest.raises(ValueError, match=r"tiles of size \(56, 56\).*reads \(28, 28\)"):
        TransformerEmbedder(pair).transform(images)


def test_the_processor_of_tiles_is_left_alone(images):
    processor = tiny_models.llama_processor(TILE)
    before = processor.to_dict()
    own = copy.deepcopy(FirstTileProcessor(processor))
    pixels = own(images=images, return_tensors="np")["pixel_values"]
    assert pixels.shape == (len(images), 3, TILE, TILE)
    assert own.max_image_tiles == 4
    assert processor.to_dict() == before
    assert depth_to_block(1.0, 40) == 39
    assert TILE % PATCH == 0
