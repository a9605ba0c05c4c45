"""Edits of a live model, in passes and generations, as long as a context lasts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast, get_args

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from skact import models
from skact.arguments import checked, float_array
from skact.base import steps_of
from skact.embedding import TransformerEmbedder
from skact.steering._edit import STRENGTH, UNITS, BaseEdit, Unit, as_rows
from skact.steering._gates import gate_source
from skact.steering._map import EditMap, digest
from skact.steering._origin import check_source
from skact.steering._scalers import check_scalers, fold_scalers, token_steps
from skact.tokens import Site, Source
from skact.warning import warn

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["blocks_of", "open_model", "raw_map", "source_of", "steer"]

_EDITS = (BaseEdit, EditMap, Pipeline)


@checked(
    unit=[UNITS, None],
    strength=[STRENGTH, "array-like", None],
    positions="no_validation",
    site=[StrOptions(set(get_args(Site))), None],
)
def steer(
    model: Any,
    edit: Any,
    layer: Any = None,
    *,
    strength: Any = None,
    unit: Unit | None = None,
    positions: Any = "all",
    site: str | None = None,
) -> AbstractContextManager[None]:
    """Edit the activations of a live model as long as a context lasts.

    The stream after a block, or another site of it, is edited in every pass: in ``model(...)``, in
    ``model.generate`` with or without a cache, for rows with padding on either side, and where the
    model is run by an embedder. When the context ends the model is as it was, also after errors;
    meanwhile no other thread of this package runs it. A store refuses a model that is steered, and
    the Source of what is embedded names the edit.

    Parameters
    ----------
    model : PreTrainedModel, pair (model, tokenizer or image processor), or TransformerEmbedder
        What is steered: a language model by itself, any other with what makes its inputs.
    edit : edit, Pipeline, EditMap, ndarray, or list of those
        Fitted edits, which act one after the other where they act at one layer, in the order of
        the list. A Pipeline of scalers and an edit is folded: it acts on raw tokens as it would
        on scaled ones. An array is a direction to add, or one per sample, (n_samples,
        n_features), with ``unit="raw"``.
    layer : int, float, "all", or list of int or float, default=None
        Block after which the stream is edited, as in :class:`~skact.TransformerEmbedder`; one for
        each edit of a list. "all" is every block. None takes the one that an edit was fitted on.
    strength : float, array-like of shape (n_samples,), or list of float, default=None
        In place of the parameter of the edit: one for each edit of a list. Of a single edit that
        adds a vector, one per sample, that is per prompt of a generation or row of a pass.
    unit : {"norm", "raw"}, default=None
        What a strength of 1 adds, for edits that add a vector: the median norm of the tokens that
        the edit was fitted on, or the direction as it is. None takes the parameter of the edit.
    positions : {"all", "last", "generated"} or mask of shape (n_rows, n_positions), default="all"
        Where: at every position; at those that were the last when they were read, that is the last
        one of the prompt and all generated ones; at generated ones, which by themselves leave the
        first new token as it was; or where a mask of the prompts, padding included, is True.
        Padding is never edited. Outside of a generation, "last" is the last position of each row,
        "generated" what comes behind a cache, and a mask is of the pass.
    site : {"residual", "attention", "mlp", "heads"} or None, default=None
        What of a block is edited, as in :class:`~skact.TransformerEmbedder`: its stream, what
        attention or MLP adds to it, or the heads before their projection. None takes the site that
        an edit was fitted on, "residual" where it is not known.

    Returns
    -------
    context : context manager
        The model is steered from where it is entered; it may be entered again.

    Raises
    ------
    ValueError
        Before anything runs: if an edit has another width than the model, was fitted on another
        model, layer or on scaled tokens, or strength, unit and positions do not fit. From a pass:
        if a mask, strength or directions are of other rows or positions.
    RuntimeError
        From a pass that is run past the hooks, as that of a compiled model.
    NotFittedError
        If an edit is not fitted.

    Warns
    -----
    UserWarning
        If the context ends and no token was edited; once, if what the model reads does not begin
        with the token that takes the attention sink, and the edit was fitted behind it.

    Examples
    --------
    ::

        with skact.steer(model, edit, strength=0.5, positions="generated"):
            model.generate(**tokenizer("Once upon a time", return_tensors="pt"))
    """
    from skact.steering._positions import as_positions

    where = as_positions(positions)
    several = isinstance(edit, list | tuple) and any(isinstance(one, _EDITS) for one in edit)
    edits = list(edit) if several else [edit]
    opened = open_model(model)
    strengths = _one_each("strength", strength, len(edits), several)
    acts: list[_Planned] = []
    for one, at, how_much in zip(
        edits, _one_each("layer", layer, len(edits), several), strengths, strict=True
    ):
        source = source_of(one)
        loaded = models.at_site(opened.loaded, site or (source and source.site) or "residual")
        made = raw_map(one, how_much, unit, loaded.width)
        blocks = blocks_of(at, one, source, loaded)
        said = None if source is None else source.convention
        acts += [_Planned((block, loaded.site), made, _kind(one), said) for block in blocks]
    return models.Reusable(lambda: _steering(opened, acts, where))


class _Planned(NamedTuple):
    """One edit at one block and site."""

    at: tuple[int, str]
    edit: EditMap
    kind: str
    convention: str | None = None


def _kind(edit: Any) -> str:
    if not isinstance(edit, _EDITS):
        return "a direction"
    return type(steps_of(edit)[-1] if isinstance(edit, Pipeline) else edit).__name__


def _name(planned: Sequence[_Planned], positions: Any) -> str:
    """Say what is done at one place, so that no other edit has the same name."""
    block, site = planned[0].at
    kinds = ", then ".join(one.kind for one in planned)
    where = f"block {block}" if site == "residual" else f"the {site} of block {block}"
    content = digest(*(one.edit for one in planned), positions)
    return f"steering by {kinds} at {where} ({content})"


def open_model(model: Any) -> models.Changeable:
    """Make whatever stands for a model ready to be steered."""
    if not isinstance(model, TransformerEmbedder):
        return models.changeable(model)
    loaded = clone(model).set_params(site="residual").reader.loaded
    return models.Changeable(loaded.base, loaded.base, loaded)


def _one_each(what: str, value: Any, n_edits: int, several: bool) -> list[Any]:
    if several and isinstance(value, list | tuple):
        if len(value) != n_edits:
            raise ValueError(
                f"{what} must have one entry per edit: got {len(value)} for {n_edits}."
            )
        return list(value)
    return [value] * n_edits


def blocks_of(layer: Any, edit: Any, source: Source | None, loaded: models.Loaded) -> list[int]:
    """List the blocks after which an edit acts, and refuse an edit of another model or layer.

    Parameters
    ----------
    layer, edit
        As in :func:`steer`, for one edit.
    source : Source or None
        Of the tokens that the edit was fitted on.
    loaded : Loaded
        The model.

    Returns
    -------
    blocks : list of int
        Their numbers.

    Raises
    ------
    ValueError
        If there is no such layer, or the edit or its gate was fitted on another model or layer.
    """
    if layer is None:
        if source is None or source.block is None:
            raise ValueError(
                "layer must be given: the edit was fitted on arrays that do not say which layer "
                "they are from."
            )
        layer = source.block
    whole = isinstance(layer, str) and layer == "all"
    n_blocks = len(loaded.places)
    blocks, many = models.resolve_layers(range(n_blocks) if whole else layer, n_blocks)
    if many and not whole:
        raise ValueError(
            f'layer must be one block, or "all", for each edit, got {layer!r} for one; a list of '
            "layers goes with a list of fitted edits or EditMaps, one each."
        )
    block = None if whole else blocks[0]
    here = Source(loaded.name, loaded.revision, block, site=cast(Site, loaded.site))
    check_source("edit", source, here)
    if isinstance(edit, Pipeline | BaseEdit):
        check_source("gate", gate_source(steps_of(edit)[-1]), here)
    return blocks


def source_of(edit: Any) -> Source | None:
    """Say where the raw tokens come from that an edit was fitted on; None if it is not known."""
    if not isinstance(edit, Pipeline | BaseEdit):
        return None
    steps = token_steps(edit)
    return getattr(steps[0], "source_", None) if steps else None


def raw_map(edit: Any, strength: Any, unit: Unit | None, width: int | None) -> EditMap:
    """Make the map by which an edit acts on the tokens of a model.

    Parameters
    ----------
    edit : edit, Pipeline, EditMap or array-like
        As in :func:`steer`.
    strength, unit
        As in :func:`steer`, for this edit.
    width : int or None
        Features of a token of the model, if there is one.

    Returns
    -------
    map : EditMap
        Of raw tokens.

    Raises
    ------
    ValueError, TypeError
        If they do not fit.
    """
    if isinstance(edit, EditMap):
        if strength is not None or unit is not None:
            raise ValueError("strength and unit belong to edits, an EditMap has its own; got both.")
        made = edit
    elif isinstance(edit, Pipeline | BaseEdit):
        made = _of_estimator(edit, strength, unit)
    else:
        made = _of_direction(edit, strength, unit, width)
    if width is not None and made.n_features != width:
        raise ValueError(
            f"edit changes tokens of {made.n_features} features, and the model has {width}."
        )
    return made


def _of_estimator(edit: Any, strength: Any, unit: Any) -> EditMap:
    steps = token_steps(edit)
    *scalers, last = steps or [None]
    if not isinstance(last, BaseEdit):
        raise TypeError(f"edit must end in an edit, such as Addition, not {type(last).__name__}.")
    check_scalers("edit", scalers, " before it")
    check_is_fitted(last)
    source = source_of(edit)
    if source is not None and source.scaling is not None:
        raise ValueError(
            f"edit was fitted on scaled tokens ({source}), and a model has raw ones; pass the "
            "Pipeline of the scaler and the edit."
        )
    made = (
        _per_sample(last, strength, unit)
        if np.ndim(strength)
        else last.edit_map(strength, unit=unit)
    )
    return fold_scalers(made, scalers)


def _per_sample(edit: BaseEdit, strength: Any, unit: Any) -> EditMap:
    made, strengths = edit.edit_map(1.0, unit=unit), _strengths(strength)
    if not made.is_constant:
        raise ValueError(
            f"strength has an entry per sample, which {type(edit).__name__} does not take: only "
            "edits that add a vector do."
        )
    return replace(made, shift=strengths[:, None] * made.shift)


def _strengths(strength: Any) -> Any:
    values = float_array(strength, "strength")
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"strength must be a finite number, or one per sample; got {strength!r}.")
    return values


def _of_direction(direction: Any, strength: Any, unit: Any, width: Any) -> EditMap:
    listed = isinstance(direction, list | tuple)
    if listed and any(isinstance(one, _EDITS) for one in direction):
        raise TypeError(
            f"edit must be one edit, got {len(direction)} in a {type(direction).__name__}; give "
            "them one after the other."
        )
    none = direction is None or (listed and not direction)
    if none or isinstance(direction, str | dict | set) or hasattr(direction, "get_params"):
        raise TypeError(
            "edit must be a fitted edit, a Pipeline that ends in one, an EditMap, or a direction, "
            f"got {direction!r}."
        )
    one = np.ndim(direction) == 1
    rows = as_rows(direction, width, "edit")
    if unit != "raw":
        raise ValueError(
            'edit is a direction, which knows no median norm of tokens: say unit="raw", or fit '
            "Addition(direction) on tokens of the layer."
        )
    if not rows.any():
        raise ValueError(
            "edit is a direction of 0, which leads nowhere; a strength of 0 may be given."
        )
    if strength is None:
        strength = 1.0
    if np.ndim(strength):
        rows = _strengths(strength)[:, None] * rows
        one = False
    else:
        rows = strength * rows
    return EditMap(rows[0] if one else rows)


@contextmanager
def _steering(
    opened: models.Changeable, planned: Sequence[_Planned], positions: Any
) -> Iterator[None]:
    by_place = {
        key: [one for one in planned if one.at == key]
        for key in dict.fromkeys(one.at for one in planned)
    }
    acts = {key: [_Act(one.edit, positions) for one in some] for key, some in by_place.items()}
    names = {key: _name(some, positions) for key, some in by_place.items()}

    said = {one.convention for one in planned}

    def change(key: tuple[int, str], running: models.Running, stream: Tensor) -> Tensor:
        if said and not running.start and _warned_of_sink(opened.loaded, said, running):
            said.clear()
        for act in acts[key]:
            stream = act(running, stream)
        return stream

    places = {(b, site): models.at_site(opened.loaded, site).places[b] for b, site in acts}
    with models.changing(opened, places, change, names) as passes:
        yield
    if not passes.n:
        warn(
            "no pass of the model was seen while it was steered, so nothing was edited; run the "
            "model that was passed to steer."
        )
    elif not any(act.acted for some in acts.values() for act in some):
        warn(f"steer edited no token in {passes.n} passes: none was at positions={positions!r}.")


def _warned_of_sink(loaded: models.Loaded, said: set[str | None], running: models.Running) -> bool:
    """Warn of a row that has its attention sink elsewhere than what the edits were fitted on."""
    ids, real = running.ids, running.is_real
    if ids is None or (real is not None and real.shape != ids.shape):
        return False
    for convention in said:
        found = models.lacking_sink(loaded, convention, ids, ids == ids if real is None else real)
        if found is not None:
            row, first = found
            warn(
                f"row {row} of what the steered model reads begins with {first!r}, and the edit "
                f"was fitted on the {convention}; put that token before it, or the attention sink "
                "falls on its first word."
            )
            return True
    return False


class _Act:
    """One edit at one layer, in one context."""

    def __init__(self, edit: EditMap, positions: Any) -> None:
        self.edit, self.positions = edit, positions
        self.acted = False
        self._twins: dict[Any, EditMap] = {}
        self._fired: Any = None  # rows in which a token fired that is in the cache

    def __call__(self, running: models.Running, stream: Tensor) -> Tensor:
        import torch

        from skact.steering._positions import chosen

        where = chosen(self.positions, running, stream)
        self.acted = self.acted or bool(where.any())
        edit = self._twin(running, stream)
        values = stream.to(torch.float64 if stream.dtype == torch.float64 else torch.float32)
        fires = edit.fires(values)
        if fires is not None:
            where = where & (self._sample_fires(running, fires) if edit.per_sample else fires)
        edited = (values + edit.change(values)).to(stream.dtype)
        return torch.where(where[..., None], edited, stream)

    def _twin(self, running: models.Running, stream: Tensor) -> EditMap:
        from skact.steering._positions import row_numbers

        key = stream.device, stream.dtype
        if key not in self._twins:
            self._twins[key] = self.edit.to(stream)
        edit = self._twins[key]
        if edit.shift.ndim == 1:
            return edit
        n_given = len(edit.shift)
        rows = row_numbers(running, len(stream), n_given, "edit, with an entry per sample,")
        return replace(edit, shift=edit.shift[rows.tolist()][:, None])

    def _sample_fires(self, running: models.Running, fires: Tensor) -> Tensor:
        if running.n_beams > 1:
            raise ValueError(
                'where="samples" follows what each row has read, and num_beams='
                f"{running.n_beams} lets rows change places; use num_beams=1."
            )
        if running.is_real is not None:
            fires = fires & running.is_real.to(fires.device)
        fired = fires.any(dim=1)
        if running.start and self._fired is not None and len(self._fired) == len(fired):
            fired = fired | self._fired
        self._fired = fired
        return fired[:, None]
