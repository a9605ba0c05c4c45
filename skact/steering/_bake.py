"""Edits that become weights, and vectors that become files.

Imports torch only where a model is at hand.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save_file

from skact import models
from skact.arguments import PATH, checked
from skact.base import steps_of
from skact.files import in_one_step
from skact.rows import Array
from skact.steering._directions import Ablation
from skact.steering._edit import STRENGTH, UNITS, Unit
from skact.steering._live import blocks_of, open_model, raw_map, source_of, steer
from skact.steering._map import EditMap
from skact.tokens import Source

if TYPE_CHECKING:
    from torch import nn

__all__ = ["bake_edit", "export_vectors"]

# What writes into the residual stream is called in the blocks of language models.
_WRITERS = ("c_proj", "dense", "dense_4h_to_h", "down_proj", "fc2", "fc_out", "o_proj", "out_proj")


@checked(strength=[STRENGTH, None], unit=[UNITS, None])
def bake_edit(
    model: Any,
    edit: Any,
    layer: Any = None,
    *,
    strength: float | None = None,
    unit: Unit | None = None,
) -> None:
    """Turn an edit into weights of a language model, for good.

    What is the same for every token becomes a bias of the output projection of the MLP in its
    block; where there is none, the config is changed if it has an option for it (``mlp_bias``),
    and the other projections get biases of 0. An ablation at all layers projects the embeddings
    and every matrix that writes into the stream; an output head that is tied to the embedding is
    untied and stays as it is. Nothing else can be baked. A trial on a few tokens follows: of a
    vector, that the stream after every block is what :func:`steer` makes it; of an ablation, that
    it has nothing left along the directions. A model that fails it is refused, and left as it was.

    An ablation that is baked is **not** ``steer(model, ablation, layer="all")``: that takes the
    directions out after blocks only, so that attention and MLP of the first block still read them
    in the embedding, and an MLP reads what the attention of its block has written of them. Their
    logits differ.

    Parameters
    ----------
    model : PreTrainedModel or pair (model, tokenizer)
        A language model. **It is changed**: bake a copy where it is still needed.
    edit : edit, Pipeline, EditMap or ndarray
        As in :func:`steer`, without a gate.
    layer : int, float, "all" or None, default=None
        As in :func:`steer`; "all" for an ablation.
    strength : float, default=None
        In place of the parameter of the edit.
    unit : {"norm", "raw"}, default=None
        As in :func:`steer`.

    Raises
    ------
    ValueError
        If the edit cannot be weights, or not those of this model, with the reason.

    Examples
    --------
    ::

        skact.bake_edit(model, addition, strength=0.5)
        model.save_pretrained("steered")
    """
    import torch

    opened = open_model(model)
    if opened.outer is not opened.whole:
        raise ValueError("model is compiled, and would not see new weights; bake it before that.")
    if opened.loaded.modality != "text":
        raise ValueError(
            f"model must be a language model, and {type(opened.whole).__name__} reads images."
        )
    made = raw_map(edit, strength, unit, opened.loaded.width)
    blocks = blocks_of(layer, edit, source_of(edit), opened.loaded)
    _check_bakeable(made, isinstance(layer, str) and layer == "all")
    with models.evaluating(opened.whole), torch.no_grad(), ExitStack() as undo:
        if made.is_constant:
            with steer(opened.whole, made, layer if layer is not None else blocks[0]):
                expected, _ = models.trial_states(opened)
            for block in blocks:
                _add(opened, block, made.shift, undo)
            found, _ = models.trial_states(opened)
            differ = any(_far(a - b, b) for a, b in zip(found, expected, strict=True))
        else:
            _project(opened, made.reads, undo)
            basis = torch.tensor(made.reads)
            found, _ = models.trial_states(opened)
            differ = any(_far(state.cpu().double() @ basis.T, state.cpu()) for state in found)
        if differ:
            raise ValueError(
                f"{type(opened.whole).__name__} does not do with these weights what the edit does, "
                "as a trial shows; use steer."
            )
        undo.pop_all()


def _far(difference: Any, state: Any) -> bool:
    tolerance = 1e-4 if state.itemsize > 2 else 5e-2
    norms = difference.double().norm(dim=-1), state.double().norm(dim=-1)
    return bool((norms[0] > tolerance * norms[1]).any())


def _check_bakeable(edit: EditMap, everywhere: bool) -> None:
    if edit.gates:
        raise ValueError(
            "edit acts where a gate fires, which no weights can do; only edits without a gate can "
            "be baked."
        )
    if edit.shift.ndim > 1:
        raise ValueError("edit has a vector per sample, and weights know no samples.")
    if edit.is_constant:
        return
    reads, is_ablation = edit.reads, False
    if reads is not None and edit.slope is None:
        eye = np.eye(len(reads))
        is_ablation = (
            not edit.shift.any()
            and np.allclose(edit.offset, 0)
            and np.allclose(edit.writes, -reads)
            and np.allclose(reads @ reads.T, eye)
        )
    if not is_ablation:
        raise ValueError(
            "edit changes a token by what it is, other than by taking directions out of it; only a "
            "vector that is added, and an ablation with a strength of 1, can be baked."
        )
    if not everywhere:
        raise ValueError(
            'edit is an ablation, which weights can do at all layers only: layer="all", or steer.'
        )


def _set(owner: Any, name: str, value: Any, undo: ExitStack) -> None:
    undo.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, value)


def _change(parameter: Any, value: Any, undo: ExitStack) -> None:
    undo.callback(parameter.copy_, parameter.clone())
    parameter.copy_(value)


def _writers(block: nn.Module, width: int) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Yield what writes into the stream in a block, with what holds it, in order."""
    for parent in block.modules():
        for name, module in parent.named_children():
            n_out = getattr(module, "out_features", getattr(module, "nf", None))
            if name in _WRITERS and n_out == width:
                yield parent, module


def _of_blocks(opened: models.Changeable) -> list[list[tuple[nn.Module, nn.Module]]]:
    found = [list(_writers(place.module, opened.loaded.width)) for place in opened.loaded.places]
    for block, some in enumerate(found):
        if len(some) != 2 or opened.loaded.places[block].before:
            raise ValueError(
                f"block {block} of {type(opened.whole).__name__} has "
                f"{[type(module).__name__ for _, module in some]} where an attention and an MLP "
                "that write into the stream were expected, so nothing can be baked; use steer."
            )
    states, written = models.trial_states(opened, [m for some in found for _, m in some])
    for block in range(1, len(found)):
        added = written[2 * block] + written[2 * block + 1]
        if _far(states[block] - states[block - 1] - added, states[block]):
            raise ValueError(
                f"block {block} of {type(opened.whole).__name__} does not add what its attention "
                "and MLP put out as it is: a norm or a scale stands behind them, so that no "
                "weights equal the edit; use steer."
            )
    return found


def _add(opened: models.Changeable, block: int, shift: Array, undo: ExitStack) -> None:
    """Add a vector to the bias of the output projection of a block's MLP."""
    import torch

    every = _of_blocks(opened)
    projection: Any = every[block][1][1]
    if projection.bias is None:
        config: Any = opened.loaded.base.config
        if not hasattr(config, "mlp_bias"):
            raise ValueError(
                f"the MLP of {type(opened.whole).__name__} has no bias, and its config no option "
                "for one, so that a saved model would not load it; use steer."
            )
        _set(config, "mlp_bias", True, undo)
        for _, (parent, _) in every:
            for module in parent.children():
                if isinstance(module, torch.nn.Linear) and module.bias is None:
                    zeros = module.weight.new_zeros(module.out_features)
                    _set(module, "bias", torch.nn.Parameter(zeros), undo)
    bias = projection.bias
    _change(bias, bias + torch.tensor(shift).to(bias), undo)


def _project(opened: models.Changeable, basis: Array, undo: ExitStack) -> None:
    """Take directions out of embeddings and of everything that writes into the stream."""
    import torch

    def without(values: Any) -> Any:
        """Take them out of the last axis."""
        exact = values.double()
        u = torch.tensor(basis, dtype=torch.float64, device=values.device)
        return (exact - exact @ u.T @ u).to(values)

    every = _of_blocks(opened)
    embeddings = list(_embeddings(opened))
    _untie(opened.whole, embeddings, undo)
    for embedding in embeddings:
        _change(embedding.weight, without(embedding.weight), undo)
    for some in every:
        for _, module in some:
            weight: Any = module.weight
            rows = hasattr(module, "nf")  # transposed, as in GPT-2
            new = without(weight) if rows else without(weight.T).T
            _change(weight, new, undo)
            if module.bias is not None:
                _change(module.bias, without(module.bias), undo)


def _embeddings(opened: models.Changeable) -> Iterator[Any]:
    import torch

    inside = {id(m) for place in opened.loaded.places for m in place.module.modules()}
    for module in opened.loaded.base.modules():
        if isinstance(module, torch.nn.Embedding) and id(module) not in inside:
            if module.embedding_dim != opened.loaded.width:
                raise ValueError(
                    f"an embedding of {type(opened.whole).__name__} has {module.embedding_dim} "
                    f"features, and its stream {opened.loaded.width}, so that nothing can be baked."
                )
            yield module


def _untie(whole: Any, embeddings: list[Any], undo: ExitStack) -> None:
    import torch

    head = models.output_head(whole)
    if head is None or all(head.weight is not one.weight for one in embeddings):
        return
    config = whole.config
    if not hasattr(config, "tie_word_embeddings"):
        raise ValueError(
            f"the head of {type(whole).__name__} is its embedding, and its config has no "
            "tie_word_embeddings to say that it no longer is; use steer."
        )
    _set(config, "tie_word_embeddings", False, undo)
    if hasattr(whole, "all_tied_weights_keys"):
        _set(whole, "all_tied_weights_keys", {}, undo)
    _set(head, "weight", torch.nn.Parameter(head.weight.clone()), undo)


@checked(path=[PATH])
def export_vectors(edits: Any, path: str | os.PathLike[str]) -> None:
    """Write vectors as a safetensors file that says what they are for.

    Parameters
    ----------
    edits : edit, Pipeline, or mapping of str to those
        Fitted edits that add a vector (:class:`Addition`, :class:`UnitEdit`), or take directions
        out (:class:`Ablation`), without a gate.
    path : str or path-like
        The file; one that is there is replaced.

    Raises
    ------
    ValueError
        If an edit is more than vectors.
    FileNotFoundError
        If there is no such folder.

    Notes
    -----
    Each edit is a float32 tensor of its name, "edit" for one alone. The metadata has a JSON text of
    the same name with ``kind`` ("addition": what a strength of 1 adds, of shape (n_features,), or
    "ablation": an orthonormal basis of what is taken out, of shape (n_directions, n_features)),
    ``strength``, ``unit`` (what a strength of 1 is) and ``median_norm``; ``model``, ``revision``,
    ``convention``; and the layer in both conventions, ``block`` (0-based, the stream is edited
    after it) and ``hidden_states`` (the entry of that list of transformers, block + 1). Of a
    Pipeline the median norm that ``unit`` names is that of the scaled tokens: a distance from the
    mean, in scaled units.

    Examples
    --------
    ::

        skact.export_vectors({"joy": addition}, "joy.safetensors")
    """
    named = edits if isinstance(edits, Mapping) else {"edit": edits}
    if not named or not all(isinstance(name, str) and name for name in named):
        raise ValueError("edits must be a fitted edit, or a mapping of names to fitted edits.")
    tensors, about = {}, {}
    for name, edit in named.items():
        tensors[name], said = _vector(edit, name)
        about[name] = json.dumps(said)
    with in_one_step(Path(path)) as temporary:
        save_file(tensors, temporary, about)


def _vector(edit: Any, name: str) -> tuple[Array, dict[str, Any]]:
    if not hasattr(edit, "transform"):
        raise ValueError(f"edits[{name!r}] must be a fitted edit, got {edit!r}.")
    last = steps_of(edit)[-1]
    made = raw_map(edit, 1.0, None, None)
    if made.gates or not (made.is_constant or isinstance(last, Ablation)):
        raise ValueError(
            f"edits[{name!r}] is more than vectors: {type(last).__name__} has a gate, or changes "
            "tokens by what they are; skact.save keeps it."
        )
    if made.offset is not None and np.any(np.abs(made.offset) > 1e-9):
        raise ValueError(
            f"edits[{name!r}] takes directions out about the mean of a scaler, not about 0; "
            "skact.save keeps it."
        )
    source = source_of(edit) or Source()
    norm = getattr(last, "median_norm_", None)
    said = {key: value for key, value in asdict(source).items() if key not in ("columns", "labels")}
    said |= {
        "kind": "addition" if made.is_constant else "ablation",
        "hidden_states": None if source.block is None else source.block + 1,
        "strength": float(last.strength),
        "unit": {"norm": "median token norm", "raw": "the vector as it is"}.get(
            getattr(last, "unit", ""), "share"
        ),
        "median_norm": norm,
    }
    vector = made.shift if made.is_constant else made.reads
    return np.ascontiguousarray(vector, np.float32), said
