"""Reading published sparse autoencoders, without ever unpickling anything.

The formats differ in more than names: whether the decoder bias is subtracted before encoding,
whether tokens are scaled one by one first, and which way round the matrices lie. Each reader
returns the weights with these conventions, so that one formula serves all.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from skact.array_files import open_arrays
from skact.concepts._autoencoder_weights import Activation, AutoencoderWeights, InputScaling
from skact.files import read_json
from skact.rows import Array

__all__ = ["read_weights"]


T = TypeVar("T")

_ARCHITECTURES: dict[str, Activation] = {
    "standard": "relu",
    "topk": "topk",
    "jumprelu": "jumprelu",
}
# A factor for the whole data set ("expected_average_only_in") is not in the files: no weights can
# be used as they are until it is folded into them.
_SCALINGS: dict[str | bool, InputScaling] = {
    False: "none",
    "none": "none",
    "constant_norm_rescale": "constant_norm",
    "layer_norm": "layer_norm",
}


def read_weights(path: str | os.PathLike[str]) -> AutoencoderWeights:
    """Read an autoencoder in any of the known formats.

    Parameters
    ----------
    path : str or path-like
        A folder, or the file of weights in it.

    Returns
    -------
    weights : AutoencoderWeights
        Weights in float32, with the conventions of the format.

    Raises
    ------
    FileNotFoundError
        If there is no such path.
    ValueError
        If the files are of no known format, damaged, incomplete or not supported.
    """
    file = _weights_file(Path(path))
    if file.suffix == ".npz":
        return _gemma_scope(_Tensors(file))
    config = _Config(file.parent / "cfg.json")
    tensors = _Tensors(file)
    return _topk(tensors, config) if "encoder.weight" in tensors else _sae_lens(tensors, config)


def _weights_file(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {path}.")
    if path.is_file():
        if path.suffix not in (".npz", ".safetensors"):
            raise ValueError(
                f"{path}: weights are read from .npz and .safetensors files only. Other formats "
                "are unpickled, which runs whatever code they hold; convert them first."
            )
        return path
    known = ["params.npz", "sae_weights.safetensors", "sae.safetensors"]
    found = [path / name for name in known if (path / name).is_file()]
    if len(found) != 1:
        raise ValueError(
            f"{path} must hold exactly one of {known}, found {[f.name for f in found]}; or give "
            "the file itself."
        )
    return found[0]


class _Config:
    """The settings in a ``cfg.json``; whatever is wrong with one names file and key."""

    def __init__(self, file: Path) -> None:
        self.file = file
        if not file.is_file():
            raise ValueError(f"{file} is missing; it says how the weights beside it are used.")
        self.values = read_json(file)
        if not isinstance(self.values, dict):
            raise ValueError(f"{file} must hold an object, got {type(self.values).__name__}.")

    def get(self, *keys: str, default: Any = None) -> Any:
        """Return the value of the first of the keys that is there and not null."""
        return next((v for key in keys if (v := self.values.get(key)) is not None), default)

    def choice(self, *keys: str, default: Any, known: Mapping[Any, T]) -> T:
        """Return what a value stands for."""
        value = self.get(*keys, default=default)
        for key in known:
            if value is key or (isinstance(value, str) and value == key):
                return known[key]
        names = [key for key in known if isinstance(key, str)]
        raise ValueError(f"{self.file}: {keys[0]} must be one of {names}, got {value!r}.")

    def flag(self, key: str, default: bool) -> bool:
        """Return a value that must be true or false."""
        value = self.get(key, default=default)
        if not isinstance(value, bool):
            raise ValueError(f"{self.file}: {key} must be true or false, got {value!r}.")
        return value

    def k(self, n_units: int) -> int:
        """Return the number of units that may fire."""
        k = self.get("k")
        if k is None and isinstance(settings := self.get("activation_fn_kwargs"), dict):
            k = settings.get("k")
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k < n_units:
            raise ValueError(f"{self.file}: k must be an integer in [1, {n_units}), got {k!r}.")
        return k

    def agree(self, **sizes: int) -> None:
        """Refuse sizes that are not those of the weights; 0 and null say nothing."""
        for key, size in sizes.items():
            if (self.get(key) or size) != size:
                raise ValueError(f"{self.file}: {key}={self.get(key)!r}, the weights have {size}.")

    def refuse(self, *keys: str) -> None:
        """Refuse deviations from the formula."""
        for key in keys:
            if self.get(key, default=False) is not False:
                raise ValueError(f"{self.file}: {key}={self.get(key)!r} is not supported.")


class _Tensors:
    """Arrays of one file, read when they are wanted; whatever is wrong names file and key."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.entries = open_arrays(file)

    def __contains__(self, key: str) -> bool:
        return key in self.entries

    def first(self, *keys: str) -> str:
        """Return the first of the keys that is there, else the last."""
        return next((key for key in keys if key in self), keys[-1])

    def matrix(self, key: str) -> Array:
        """Return weights of any 2-D shape."""
        return self._checked(key, None)

    def array(self, key: str, *shape: int) -> Array:
        """Return weights of this shape."""
        return self._checked(key, shape)

    def _checked(self, key: str, shape: tuple[int, ...] | None) -> Array:
        if key not in self:
            raise ValueError(
                f"{self.file}: the key {key!r} is missing; has {sorted(self.entries)}."
            )
        entry = self.entries[key]()
        if not entry.dtype.startswith(("float", "bfloat")):
            raise ValueError(f"{self.file}: {key!r} must hold floats, got {entry.dtype}.")
        if shape is None and (len(entry.shape) != 2 or 0 in entry.shape):
            raise ValueError(f"{self.file}: {key!r} must be a matrix, got shape {entry.shape}.")
        if shape is not None and entry.shape != shape:
            raise ValueError(
                f"{self.file}: {key!r} must have shape {shape} to fit the encoder, got "
                f"{entry.shape}."
            )
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(entry.read(), dtype=np.float32)
        if not np.isfinite(array).all():
            raise ValueError(f"{self.file}: {key!r} holds NaN or infinity.")
        return array


def _gemma_scope(tensors: _Tensors) -> AutoencoderWeights:
    encoder = tensors.matrix("W_enc")
    n_features, n_units = encoder.shape
    return AutoencoderWeights(
        encoder=encoder,
        encoder_bias=tensors.array("b_enc", n_units),
        decoder=tensors.array("W_dec", n_units, n_features),
        decoder_bias=tensors.array("b_dec", n_features),
        activation="jumprelu",
        threshold=tensors.array("threshold", n_units),
        centred=False,
    )


def _sae_lens(tensors: _Tensors, config: _Config) -> AutoencoderWeights:
    encoder = tensors.matrix("W_enc")
    n_features, n_units = encoder.shape
    config.agree(d_in=n_features, d_sae=n_units)
    config.refuse("finetuning_scaling_factor")
    if "scaling_factor" in tensors and (tensors.array("scaling_factor", n_units) != 1).any():
        raise ValueError(f"{tensors.file}: 'scaling_factor' other than 1 is not supported.")
    function = config.choice(
        "activation_fn_str", "activation_fn", default="relu", known={"relu": "relu", "topk": "topk"}
    )
    activation = config.choice("architecture", default="standard", known=_ARCHITECTURES)
    if activation == "relu" and function == "topk":
        # Older files call every architecture standard.
        activation = "topk"
    scaling = config.choice("normalize_activations", default="none", known=_SCALINGS)
    encoder_bias = tensors.array("b_enc", n_units)
    decoder = tensors.array("W_dec", n_units, n_features)
    if activation == "topk" and config.flag("rescale_acts_by_decoder_norm", False):
        # Units compete after multiplication by their decoder norm, which decoding divides by.
        norms = np.linalg.norm(decoder, axis=1)
        if not norms.all():
            raise ValueError(f"{tensors.file}: 'W_dec' has a zero row, {norms.argmin()}.")
        encoder, encoder_bias = encoder * norms, encoder_bias * norms
        decoder = decoder / norms[:, None]
    return AutoencoderWeights(
        encoder=encoder,
        encoder_bias=encoder_bias,
        decoder=decoder,
        decoder_bias=tensors.array("b_dec", n_features),
        activation=activation,
        k=config.k(n_units) if activation == "topk" else None,
        threshold=tensors.array("threshold", n_units) if activation == "jumprelu" else None,
        centred=config.flag("apply_b_dec_to_input", True),
        input_scaling=scaling,
    )


def _topk(tensors: _Tensors, config: _Config) -> AutoencoderWeights:
    encoder = tensors.matrix("encoder.weight")
    n_units, n_features = encoder.shape
    config.agree(d_in=n_features, num_latents=n_units)
    config.refuse("transcode", "skip_connection", "signed")
    config.choice("activation", default="topk", known={"topk": None, "TopK": None})
    if "W_dec" in tensors:
        decoder = tensors.array("W_dec", n_units, n_features)
    else:
        decoder = np.ascontiguousarray(tensors.array("decoder.weight", n_features, n_units).T)
    return AutoencoderWeights(
        encoder=np.ascontiguousarray(encoder.T),
        encoder_bias=tensors.array(tensors.first("latent_bias", "encoder.bias"), n_units),
        decoder=decoder,
        decoder_bias=tensors.array(tensors.first("pre_bias", "b_dec"), n_features),
        activation="topk",
        k=config.k(n_units),
        input_scaling="layer_norm" if config.flag("normalize", False) else "none",
    )
