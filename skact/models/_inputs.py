"""One sample as a differentiable function of what enters the first block.

Gradients are taken there, where a token is one vector. Only the blocks up to the deepest one asked
for are run.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from skact.models._alone import alone, evaluating
from skact.models._hooks import DeepEnoughError, hooked, n_read, reading
from skact.models._loaded import Loaded
from skact.rows import Array

__all__ = ["BlockInputs", "frozen"]

Inputs = dict[str, Tensor]


class BlockInputs:
    """A sample as a differentiable function of what enters the first block.

    Parameters
    ----------
    loaded : Loaded
        The model.
    block : int
        Block after which it is read.
    inputs : dict
        What the model reads: one sample.
    positions : ndarray of shape (n_tokens,)
        Positions that are tokens of the sample.

    Attributes
    ----------
    values : Tensor of shape (n_positions, n_features)
        What enters the first block.

    Raises
    ------
    ValueError
        If later states of the model depend on more than what enters its first block.
    """

    def __init__(self, loaded: Loaded, block: int, inputs: Inputs, positions: Array) -> None:
        self.loaded = loaded
        self.block = block
        self.inputs = inputs
        self.positions = positions
        if loaded.entry is None:
            raise ValueError(
                f"the states of the model {loaded.name!r} are not functions of what enters its "
                "first block alone, so gradients cannot be taken there; use a method that "
                "perturbs samples."
            )
        self._entry = loaded.entry
        seen: list[Tensor] = []

        def read(_: int, tensor: Tensor) -> None:
            seen.append(self._entry.stream(tensor.detach(), None).clone())
            raise DeepEnoughError

        with (
            reading(loaded.base, {0: self._entry}, read),
            evaluating(loaded.base),
            torch.no_grad(),
            suppress(DeepEnoughError),
        ):
            loaded.base(**inputs)
        self.values = seen[0][0]

    @contextmanager
    def differentiable(self) -> Iterator[Callable[[Tensor], Tensor]]:
        """Prepare the model for gradients with respect to what enters the first block.

        Yields
        ------
        state : callable
            Takes inputs of the first block (n_copies, n_positions, n_features), returns the
            residual stream at the tokens (n_copies, n_tokens, n_features), with gradients.
            On leaving the context the model is as it was, and no parameter has a gradient.

        Raises
        ------
        RuntimeError
            On use, if the model gives no gradients.
        """
        loaded, place = self.loaded, self.loaded.places[self.block]
        current: dict[str, Tensor] = {}

        def replace(module: nn.Module, args: Any, kwargs: Any) -> Any:
            if "values" not in current:  # blocks that share weights come again
                return args, kwargs
            values = current.pop("values").permute(self._entry.axes)
            if args:
                return (values, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": values}

        def read(_: int, tensor: Tensor) -> None:
            current["state"] = place.stream(tensor, n_read(loaded.base, self.inputs))
            raise DeepEnoughError

        def state(values: Tensor) -> Tensor:
            current["values"] = values
            copies = {
                name: v.expand(len(values), *v.shape[1:]) if isinstance(v, Tensor) else v
                for name, v in self.inputs.items()
            }
            with suppress(DeepEnoughError):
                loaded.base(**copies)
            stream = current.pop("state")
            if values.requires_grad and not stream.requires_grad:
                raise RuntimeError(
                    f"the residual stream of the model {loaded.name!r} has no gradient; the model "
                    "is quantised, or detaches it"
                )
            return stream[:, self.positions]

        with (
            hooked(loaded.base, before=[(self._entry.module, replace)]),
            reading(loaded.base, {0: place}, read),
            evaluating(loaded.base),
            frozen(loaded.base),
            torch.enable_grad(),
        ):
            try:
                yield state
            finally:
                current.clear()

    @contextmanager
    def biases(self) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """Watch all modules with a bias in the blocks that are run.

        Yields
        ------
        seen : list of (bias, output)
            Filled by a forward pass within :meth:`differentiable`: the bias (n_out,) and what the
            module put out (n_copies, n_positions, n_out), for every module that works position by
            position.
        """
        seen: list[tuple[Tensor, Tensor]] = []
        n_positions = len(self.values)

        def read(module: nn.Module, args: Any, output: Any) -> None:
            by_position = isinstance(output, Tensor) and output.ndim == 3
            if by_position and output.shape[1:] == (n_positions, len(module.bias)):  # type: ignore[arg-type]
                seen.append((module.bias, output))  # type: ignore[arg-type]

        modules = [
            module
            for module in self.loaded.blocks[: self.block + 1].modules()
            if isinstance(getattr(module, "bias", None), Tensor) and module.bias.ndim == 1
        ]
        with hooked(self.loaded.base, [(module, read) for module in modules]):
            yield seen


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Let no parameter have a gradient, and leave each as it was."""
    with alone(model) as undo:
        for parameter in model.parameters():
            if parameter.requires_grad:
                undo.callback(parameter.requires_grad_, True)
                parameter.requires_grad_(False)
        yield
