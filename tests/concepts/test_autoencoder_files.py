import json
import zipfile

import numpy as np
import pytest
import sklearn
from safetensors.numpy import save_file

from skact import AutoencoderTraining, Source, TokenArray
from skact.concepts._autoencoder import SparseAutoencoder
from tests.fresh import peak_of

D, N = 5, 9


@pytest.fixture
def arrays(rng):
    """Weights under the names that Gemma-Scope and SAELens share."""
    return {
        "W_enc": rng.normal(size=(D, N)).astype(np.float32),
        "b_enc": rng.normal(size=N).astype(np.float32),
        "W_dec": rng.normal(size=(N, D)).astype(np.float32),
        "b_dec": rng.normal(size=D).astype(np.float32),
        "threshold": rng.uniform(0.2, 1, size=N).astype(np.float32),
    }


@pytest.fixture
def X(rng):
    return TokenArray.from_list([3 * rng.normal(size=(n, D)) + 1 for n in (1, 4, 2, 6)])


def gemma_scope(folder, arrays):
    folder.mkdir(exist_ok=True)
    np.savez(folder / "params.npz", **arrays)
    return folder


def sae_lens(folder, arrays, **config):
    folder.mkdir(exist_ok=True)
    config = {"d_in": D, "d_sae": N, "dtype": "float32", "device": "cpu", **config}
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file(arrays, folder / "sae_weights.safetensors")
    return folder


def topk(folder, arrays, **config):
    """EleutherAI's names; OpenAI's if the arrays have them."""
    folder.mkdir(exist_ok=True)
    tensors = {"encoder.weight": np.ascontiguousarray(arrays["W_enc"].T)}
    tensors.update({"encoder.bias": arrays["b_enc"], "W_dec": arrays["W_dec"]})
    tensors["b_dec"] = arrays["b_dec"]
    config = {"k": 3, "d_in": D, "num_latents": N, "activation": "topk", **config}
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file(tensors, folder / "sae.safetensors")
    return folder


def relu(pre):
    return np.maximum(pre, 0)


def top(pre, k):
    out = np.zeros_like(pre)
    for row, values in zip(out, pre, strict=True):
        winners = sorted(range(len(values)), key=lambda j: -values[j])[:k]
        row[winners] = values[winners]
    return relu(out)


def same(method, X, activations, rebuilt):
    assert method.n_features_in_ == D
    assert method.transform(X).shape == (4, N)
    np.testing.assert_allclose(method.transform(X).flat(), activations, rtol=1e-4, atol=1e-5)
    with sklearn.config_context(working_memory=0):
        np.testing.assert_allclose(method.transform(X).flat(), activations, rtol=1e-4, atol=1e-5)
    z = X.flat()
    expected = 1 - ((z - rebuilt) ** 2).sum() / ((z - z.mean(axis=0)) ** 2).sum()
    assert method.reconstruction_score(X) == pytest.approx(expected, rel=1e-4)
    if method.input_scaling_ == "none":
        np.testing.assert_allclose(
            method.inverse_transform(method.transform(X)).flat(), rebuilt, rtol=1e-4, atol=1e-4
        )


def test_gemma_scope(tmp_path, arrays, X):
    w = arrays
    pre = X.flat() @ w["W_enc"] + w["b_enc"]
    activations = (pre > w["threshold"]) * relu(pre)
    folder = gemma_scope(tmp_path / "average_l0_71", w)
    for path in (folder, str(folder), folder / "params.npz"):
        method = SparseAutoencoder.from_pretrained(path)
        same(method, X, activations, activations @ w["W_dec"] + w["b_dec"])
    assert (method.activation, method.n_concepts, method.centred_) == ("jumprelu", N, False)
    assert ((pre > 0) & (pre <= w["threshold"])).any()
    # The control: subtracting the decoder bias, as others do, gives other scores.
    centred = (X.flat() - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    assert not np.allclose((centred > w["threshold"]) * relu(centred), activations)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize(
    ("config", "activation"),
    [
        ({"architecture": "standard"}, "relu"),
        ({"architecture": "standard", "activation_fn_str": "relu"}, "relu"),
        ({}, "relu"),
        ({"architecture": "jumprelu", "activation_fn": "relu"}, "jumprelu"),
        ({"architecture": "topk", "k": 3}, "topk"),
        (
            {
                "architecture": "standard",
                "activation_fn_str": "topk",
                "activation_fn_kwargs": {"k": 3},
            },
            "topk",
        ),
    ],
)
def test_sae_lens(tmp_path, arrays, X, config, activation, centred):
    w = dict(arrays) if activation == "jumprelu" else {**arrays, "threshold": arrays["b_enc"]}
    folder = sae_lens(tmp_path / "sae", w, **config, apply_b_dec_to_input=centred)
    method = SparseAutoencoder.from_pretrained(folder)
    pre = (X.flat() - centred * w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    activations = {
        "relu": relu(pre),
        "jumprelu": relu(pre) * (pre > w["threshold"]),
        "topk": top(pre, 3),
    }[activation]
    same(method, X, activations, activations @ w["W_dec"] + w["b_dec"])
    assert (method.activation, method.activation_) == (activation, activation)
    assert method.k_ == (3 if activation == "topk" else None)


def test_sae_lens_subtracts_the_bias_unless_told_otherwise(tmp_path, arrays):
    assert SparseAutoencoder.from_pretrained(sae_lens(tmp_path / "sae", arrays)).centred_


@pytest.mark.parametrize("scaling", ["none", None, False, "constant_norm_rescale", "layer_norm"])
def test_sae_lens_scales_tokens(tmp_path, arrays, X, scaling):
    folder = sae_lens(tmp_path / "sae", arrays, normalize_activations=scaling)
    z = X.flat()
    shift, factor = 0, np.ones((len(z), 1))
    scaled = z
    if scaling == "constant_norm_rescale":
        factor = np.linalg.norm(z, axis=1, keepdims=True) / np.sqrt(D)
        scaled = z / factor
    elif scaling == "layer_norm":
        shift = z.mean(axis=1, keepdims=True)
        factor = np.sqrt(((z - shift) ** 2).sum(axis=1, keepdims=True) / (D - 1))
        scaled = (z - shift) / (factor + 1e-5)
    w = arrays
    activations = relu((scaled - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
    rebuilt = (activations @ w["W_dec"] + w["b_dec"]) * factor + shift
    same(SparseAutoencoder.from_pretrained(folder), X, activations, rebuilt)


def test_zero_tokens_do_not_break_the_scaling(tmp_path, arrays):
    for scaling in ("constant_norm_rescale", "layer_norm"):
        folder = sae_lens(tmp_path / "sae", arrays, normalize_activations=scaling)
        scores = SparseAutoencoder.from_pretrained(folder).transform(np.zeros((2, D)))
        assert np.isfinite(scores).all()


def test_sae_lens_lets_units_compete_by_decoder_norm(tmp_path, arrays, X):
    folder = sae_lens(
        tmp_path / "sae", arrays, architecture="topk", k=3, rescale_acts_by_decoder_norm=True
    )
    w = arrays
    norms = np.linalg.norm(w["W_dec"], axis=1)
    activations = top(((X.flat() - w["b_dec"]) @ w["W_enc"] + w["b_enc"]) * norms, 3)
    rebuilt = (activations / norms) @ w["W_dec"] + w["b_dec"]
    same(SparseAutoencoder.from_pretrained(folder), X, activations, rebuilt)


def test_topk(tmp_path, arrays, X):
    w = arrays
    activations = top((X.flat() - w["b_dec"]) @ w["W_enc"] + w["b_enc"], 3)
    folder = topk(tmp_path / "layers.22", w)
    for path in (folder, folder / "sae.safetensors"):
        method = SparseAutoencoder.from_pretrained(path)
        same(method, X, activations, activations @ w["W_dec"] + w["b_dec"])
    assert (method.activation, method.k, method.k_, method.centred_) == ("topk", 3, 3, True)
    # A multiple of the width may stand for the number of latents.
    assert SparseAutoencoder.from_pretrained(topk(tmp_path / "b", w, num_latents=0)).k == 3


@pytest.mark.parametrize("normalize", [False, True])
def test_topk_with_the_other_names(tmp_path, arrays, X, normalize):
    w = arrays
    folder = topk(tmp_path / "sae", w, normalize=normalize)
    renamed = {
        "encoder.weight": np.ascontiguousarray(w["W_enc"].T),
        "latent_bias": w["b_enc"],
        "decoder.weight": np.ascontiguousarray(w["W_dec"].T),
        "pre_bias": w["b_dec"],
        "stats_last_nonzero": np.zeros(N, dtype=np.int64),
    }
    save_file(renamed, folder / "sae.safetensors")
    z = X.flat()
    shift = z.mean(axis=1, keepdims=True) * normalize
    factor = z.std(axis=1, ddof=1, keepdims=True) if normalize else np.ones((len(z), 1))
    scaled = (z - shift) / (factor + 1e-5 * normalize)
    activations = top((scaled - w["b_dec"]) @ w["W_enc"] + w["b_enc"], 3)
    rebuilt = (activations @ w["W_dec"] + w["b_dec"]) * factor + shift
    same(SparseAutoencoder.from_pretrained(folder), X, activations, rebuilt)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_precisions(tmp_path, arrays, X, dtype):
    w = {key: array.astype(dtype) for key, array in arrays.items()}
    pre = X.flat() @ w["W_enc"].astype(float) + w["b_enc"]
    activations = (pre > w["threshold"]) * relu(pre)
    method = SparseAutoencoder.from_pretrained(gemma_scope(tmp_path / "a", w))
    same(method, X, activations, activations @ w["W_dec"].astype(float) + w["b_dec"])
    assert method.encoder_.dtype == np.float32


def test_bfloat16(tmp_path, arrays, X):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_tensors

    folder = sae_lens(tmp_path / "sae", arrays, architecture="jumprelu")
    tensors = {key: torch.tensor(array).bfloat16() for key, array in arrays.items()}
    tensors["counter"] = torch.zeros(3, dtype=torch.int64)
    tensors["b_dec"] = tensors["b_dec"].half()
    save_tensors(tensors, folder / "sae_weights.safetensors")
    w = {key: tensor.float().numpy() for key, tensor in tensors.items()}
    method = SparseAutoencoder.from_pretrained(folder)
    np.testing.assert_array_equal(method.encoder_, w["W_enc"])
    np.testing.assert_array_equal(method.decoder_bias_, w["b_dec"])
    pre = (X.flat() - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    activations = relu(pre) * (pre > w["threshold"])
    same(method, X, activations, activations @ w["W_dec"] + w["b_dec"])


def test_a_loaded_one_is_an_estimator_like_any_other(tmp_path, arrays, X):
    source = Source(model="gemma", block=20)
    method = SparseAutoencoder.from_pretrained(gemma_scope(tmp_path / "a", arrays), source=source)
    scores = method.transform(X.with_source(source))
    assert scores.source == Source(model="gemma", block=20, columns="units")
    assert scores.feature_names[0] == "sparseautoencoder0"
    with pytest.raises(ValueError, match="another block"):
        method.transform(X.with_source(Source(model="gemma", block=21)))
    with pytest.raises(ValueError, match="X has 4 features, but SparseAutoencoder is expecting 5"):
        method.transform(np.ones((2, 4)))
    assert not hasattr(method, "loss_curve_")
    assert sklearn.base.clone(method).get_params() == method.get_params()
    assert method.fit(X).loss_curve_.size > 0


def test_training_goes_on_from_loaded_weights(tmp_path, arrays, X):
    method = SparseAutoencoder.from_pretrained(topk(tmp_path / "sae", arrays))
    before = method.concept_vectors_.copy()
    method.set_params(random_state=0, training=AutoencoderTraining(learning_rate=1e-4))
    method.partial_fit(X)
    assert (method.n_iter_, len(method.loss_curve_)) == (1, 1)
    # It starts where it was; rows of the decoder are kept at norm 1 while it trains.
    before /= np.linalg.norm(before, axis=1, keepdims=True)
    assert 0 < np.abs(method.concept_vectors_ - before).max() < 0.01
    assert method.partial_fit(X).n_iter_ == 2


@pytest.mark.parametrize(
    "config", [{"normalize_activations": "layer_norm"}, {"apply_b_dec_to_input": False}]
)
def test_training_does_not_go_on_where_inputs_are_prepared_otherwise(tmp_path, arrays, X, config):
    method = SparseAutoencoder.from_pretrained(sae_lens(tmp_path / "sae", arrays, **config))
    with pytest.raises(ValueError, match="centred, unscaled input"):
        method.partial_fit(X)


def without(arrays, key):
    return {k: a for k, a in arrays.items() if k != key}


def changed(arrays, key, array):
    return {**arrays, key: np.asarray(array)}


def spoiled(array, value):
    array = array.copy()
    array.flat[-1] = value
    return array


KEYS = ["W_enc", "b_enc", "W_dec", "b_dec", "threshold"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("write", [gemma_scope, sae_lens])
def test_each_array_is_checked(tmp_path, arrays, write, key):
    config = {} if write is gemma_scope else {"architecture": "jumprelu"}
    file = "params.npz" if write is gemma_scope else "sae_weights.safetensors"

    def refused(arrays, message):
        folder = write(tmp_path / "sae", arrays, **config)
        with pytest.raises(ValueError, match=message) as error:
            SparseAutoencoder.from_pretrained(folder)
        assert file in str(error.value)

    refused(without(arrays, key), f"the key '{key}' is missing")
    for value in (np.nan, np.inf):
        refused(changed(arrays, key, spoiled(arrays[key], value)), f"'{key}' holds NaN or infinity")
    refused(changed(arrays, key, arrays[key].astype(np.int32)), f"'{key}' must hold floats")
    if key == "W_enc":
        refused(changed(arrays, key, arrays["b_enc"]), "'W_enc' must be a matrix, got shape")
        refused(changed(arrays, key, np.ones((0, 4), np.float32)), "'W_enc' must be a matrix")
    else:
        refused(changed(arrays, key, arrays[key][:-1]), f"'{key}' must have shape")


@pytest.mark.parametrize("key", ["encoder.bias", "W_dec", "b_dec"])
def test_each_array_of_topk_is_checked(tmp_path, arrays, key):
    folder = topk(tmp_path / "sae", arrays)
    from safetensors.numpy import load_file

    tensors = load_file(folder / "sae.safetensors")
    save_file(without(tensors, key), folder / "sae.safetensors")
    missing = "decoder.weight" if key == "W_dec" else key
    with pytest.raises(ValueError, match=f"sae.safetensors: the key '{missing}' is missing"):
        SparseAutoencoder.from_pretrained(folder)
    save_file(changed(tensors, key, tensors[key][:-1]), folder / "sae.safetensors")
    with pytest.raises(ValueError, match=f"sae.safetensors: '{key}' must have shape"):
        SparseAutoencoder.from_pretrained(folder)


@pytest.mark.parametrize(
    ("write", "config", "message"),
    [
        (sae_lens, {"architecture": "gated"}, "architecture must be one of .* got 'gated'"),
        (sae_lens, {"architecture": ["topk"]}, "architecture must be one of"),
        (sae_lens, {"activation_fn": "tanh-relu"}, "activation_fn_str must be one of .*tanh-relu"),
        (sae_lens, {"architecture": "topk"}, r"k must be an integer in \[1, 9\), got None"),
        (sae_lens, {"architecture": "topk", "k": 9}, r"k must be an integer in \[1, 9\), got 9"),
        (sae_lens, {"d_in": 4}, "d_in=4, the weights have 5"),
        (sae_lens, {"d_sae": 16384}, "d_sae=16384, the weights have 9"),
        (sae_lens, {"apply_b_dec_to_input": "yes"}, "apply_b_dec_to_input must be true or false"),
        (
            sae_lens,
            {"normalize_activations": "expected_average_only_in"},
            "normalize_activations must be one of",
        ),
        (sae_lens, {"normalize_activations": {}}, "normalize_activations must be one of"),
        (sae_lens, {"finetuning_scaling_factor": True}, "finetuning_scaling_factor=True is not"),
        (topk, {"k": None}, "k must be an integer"),
        (topk, {"k": 0}, "k must be an integer"),
        (topk, {"k": 2.5}, "k must be an integer"),
        (topk, {"k": True}, "k must be an integer"),
        (topk, {"num_latents": 10}, "num_latents=10, the weights have 9"),
        (topk, {"activation": "groupmax"}, "activation must be one of .* got 'groupmax'"),
        (topk, {"transcode": True}, "transcode=True is not supported"),
        (topk, {"skip_connection": True}, "skip_connection=True is not supported"),
        (topk, {"normalize": "yes"}, "normalize must be true or false"),
    ],
)
def test_bad_settings(tmp_path, arrays, write, config, message):
    folder = write(tmp_path / "sae", arrays, **config)
    with pytest.raises(ValueError, match=message) as error:
        SparseAutoencoder.from_pretrained(folder)
    assert "cfg.json" in str(error.value)


def test_scaling_factors(tmp_path, arrays):
    ones = changed(arrays, "scaling_factor", np.ones(N, np.float32))
    SparseAutoencoder.from_pretrained(sae_lens(tmp_path / "a", ones))
    with pytest.raises(ValueError, match="'scaling_factor' other than 1"):
        SparseAutoencoder.from_pretrained(
            sae_lens(tmp_path / "b", changed(ones, "scaling_factor", 2 * ones["scaling_factor"]))
        )
    zero = changed(arrays, "W_dec", 0 * arrays["W_dec"])
    with pytest.raises(ValueError, match="'W_dec' has a zero row"):
        SparseAutoencoder.from_pretrained(
            sae_lens(
                tmp_path / "c", zero, architecture="topk", k=2, rescale_acts_by_decoder_norm=True
            )
        )


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("write", [gemma_scope, sae_lens, topk])
def test_truncated_files(tmp_path, arrays, write, share):
    folder = write(tmp_path / "sae", arrays)
    (file,) = [f for f in folder.iterdir() if f.name != "cfg.json"]
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=f"{file.name} is no readable"):
        SparseAutoencoder.from_pretrained(folder)


def test_flipped_bytes_never_give_another_error(tmp_path, arrays, rng):
    for write in (gemma_scope, sae_lens):
        folder = write(tmp_path / write.__name__, arrays)
        (file,) = [f for f in folder.iterdir() if f.name != "cfg.json"]
        whole = file.read_bytes()
        n_refused = 0
        for _ in range(60):
            damaged = bytearray(whole)
            for place in rng.integers(min(len(whole), 400), size=3):
                damaged[place] = rng.integers(256)
            file.write_bytes(bytes(damaged))
            try:
                SparseAutoencoder.from_pretrained(folder)
            except ValueError:
                n_refused += 1
        assert n_refused > 30


def test_nothing_is_unpickled(tmp_path, arrays):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "trapped"), "w"))

    folder = tmp_path / "a"
    folder.mkdir()
    trap = np.array([Trap()] * N, dtype=object)
    for changed in ({"b_enc": trap}, {"W_dec": np.array(Trap(), dtype=object)}):
        np.savez(folder / "params.npz", **{**arrays, **changed})
        with pytest.raises(ValueError, match=r"params.npz is no readable npz.* a pickle"):
            SparseAutoencoder.from_pretrained(folder)
    np.savez(folder / "params.npz", **arrays, extra=trap)
    SparseAutoencoder.from_pretrained(folder)
    np.save(tmp_path / "lone.npy", arrays["W_enc"])
    (tmp_path / "lone.npy").rename(tmp_path / "lone.npz")
    with pytest.raises(ValueError, match=r"lone.npz is no readable npz"):
        SparseAutoencoder.from_pretrained(tmp_path / "lone.npz")
    (tmp_path / "sae.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"sae.pt: weights are read from .npz and .safetensors"):
        SparseAutoencoder.from_pretrained(tmp_path / "sae.pt")
    assert not (tmp_path / "trapped").exists()


def test_missing_and_doubtful_paths(tmp_path, arrays):
    with pytest.raises(FileNotFoundError, match="there is no file or folder"):
        SparseAutoencoder.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"must hold exactly one of .*found \[\]"):
        SparseAutoencoder.from_pretrained(tmp_path)
    gemma_scope(topk(tmp_path / "both", arrays), arrays)
    with pytest.raises(ValueError, match=r"found \['params.npz', 'sae.safetensors'\]"):
        SparseAutoencoder.from_pretrained(tmp_path / "both")
    folder = sae_lens(tmp_path / "sae", arrays)
    for text, message in [
        ("{", r"not JSON \(.*\), at column 2"),
        ("[1]", "must hold an object, got list"),
        ("[" * 10**5, "nested more than 100 deep, at column 101"),
        ('{"k":\n' + "1" * 5000 + "}", "a number of 5000 digits, at line 2 column 1"),
    ]:
        (folder / "cfg.json").write_text(text)
        with pytest.raises(ValueError, match=rf"cfg.json.* {message}"):
            SparseAutoencoder.from_pretrained(folder)
    (folder / "cfg.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"cfg.json is not UTF-8"):
        SparseAutoencoder.from_pretrained(folder)
    (folder / "cfg.json").unlink()
    with pytest.raises(ValueError, match=r"cfg.json is missing"):
        SparseAutoencoder.from_pretrained(folder)


def write_npz(path, arrays, **members):
    """An archive whose further members are a shape that is claimed, and zeros that follow it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, array in arrays.items():
            with archive.open(f"{key}.npy", "w") as member:
                np.save(member, array)
        for key, (shape, n_bytes) in members.items():
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, header)
                for _ in range(n_bytes // 2**20):
                    member.write(bytes(2**20))
                member.write(bytes(n_bytes % 2**20))
    return path


def test_arrays_that_nobody_needs_are_not_read(tmp_path, arrays, X):
    plain = SparseAutoencoder.from_pretrained(write_npz(tmp_path / "a.npz", arrays)).transform(X)
    size = 2**27
    big = write_npz(tmp_path / "b.npz", arrays, junk=((size // 4,), size), huge=((10**12,), 0))
    assert peak_of(lambda: SparseAutoencoder.from_pretrained(big)) < size / 100
    found = SparseAutoencoder.from_pretrained(big).transform(X)
    np.testing.assert_array_equal(found.flat(), plain.flat())
    # The control: whoever reads the array needs the memory.
    assert peak_of(lambda: np.load(big)["junk"]) > size
    tensors = {**arrays, "junk": np.zeros(size // 4, np.float32)}
    folder = sae_lens(tmp_path / "sae", tensors)
    assert peak_of(lambda: SparseAutoencoder.from_pretrained(folder)) < size / 100


@pytest.mark.parametrize(
    ("key", "shape", "n_bytes", "message"),
    [
        ("W_enc", (10**6, 10**6), 0, r"'W_enc.npy': shape \(1000000, 1000000\) .* take 0 bytes"),
        ("W_enc", (-4, -5), 80, r"shape \(-4, -5\) of dtype float32 does not take 80"),
        ("W_enc", (2**12, 2**13), 2**27, r"'W_enc.npy': \d+ bytes claim a size of 134217856"),
        ("b_enc", (2**20,), 2**22, r"'b_enc' must have shape \(9,\) to fit the encoder"),
        ("b_dec", (D + 1,), 4 * D, "'b_dec.npy': shape .* does not take 20"),
    ],
)
def test_claims_of_an_archive_are_checked_before_they_take_memory(
    tmp_path, arrays, key, shape, n_bytes, message
):
    arrays.pop(key)
    file = write_npz(tmp_path / "params.npz", arrays, **{key: (shape, n_bytes)})

    def read():
        with pytest.raises(ValueError, match=rf"params.npz.* {message}"):
            SparseAutoencoder.from_pretrained(file)

    assert peak_of(read) < 2**20


def test_zeros_that_are_weights_are_read(tmp_path, arrays):
    arrays.pop("b_enc")
    file = write_npz(tmp_path / "params.npz", arrays, b_enc=((N,), 4 * N))
    assert not SparseAutoencoder.from_pretrained(file).encoder_bias_.any()


def test_claims_of_a_safetensors_file_are_checked(tmp_path, arrays):
    folder = sae_lens(tmp_path / "sae", arrays)
    file = folder / "sae_weights.safetensors"
    whole = file.read_bytes()
    n = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + n])
    for change in (
        {"W_enc": {**header["W_enc"], "shape": [10**6, 10**6]}},
        {"junk": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}},
    ):
        text = json.dumps({**header, **change}).encode()
        file.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + n :])
        with pytest.raises(ValueError, match=r"sae_weights.safetensors is no readable"):
            SparseAutoencoder.from_pretrained(folder)
    file.write_bytes((2**62).to_bytes(8, "little") + whole[8:])
    with pytest.raises(ValueError, match=r"sae_weights.safetensors is no readable"):
        SparseAutoencoder.from_pretrained(folder)
    file.write_bytes(whole)
    SparseAutoencoder.from_pretrained(folder)
