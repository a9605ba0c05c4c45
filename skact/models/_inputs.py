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

from skact.models._hooks import DeepEnoughError, block_state, hooked
from skact.models._hub import evaluating
from skact.models._loaded import Loaded
from skact.rows import Array

__all__ = ["BlockInputs"]

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
    """

    def __init__(self, loaded: Loaded, block: int, inputs: Inputs, positions: Array) -> None:
        self.loaded = loaded
        self.block = block
        self.inputs = inputs
        self.positions = positions
        seen: list[Tensor] = []

        def read(module: nn.Module, args: Any, kwargs: Any) -> None:
            seen.append(_first(args, kwargs).detach().clone())
            raise DeepEnoughError

        with (
            hooked(before=[(loaded.blocks[0], read)]),
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
        loaded = self.loaded
        current: dict[str, Tensor] = {}

        def replace(module: nn.Module, args: Any, kwargs: Any) -> Any:
            if args:
                return (current["values"], *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": current["values"]}

        def read(module: nn.Module, args: Any, output: Any) -> None:
            current["state"] = block_state(output, loaded.base)
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
            hooked(after=[(loaded.blocks[self.block], read)], before=[(loaded.blocks[0], replace)]),
            evaluating(loaded.base),
            _frozen(loaded.base),
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
            for block in self.loaded.blocks[: self.block + 1]
            for module in block.modules()
            if isinstance(getattr(module, "bias", None), Tensor) and module.bias.ndim == 1
        ]
        with hooked(after=[(module, read) for module in modules]):
            yield seen


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Let no parameter have a gradient, and leave each as it was."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _first(args: Any, kwargs: Any) -> Tensor:
    return args[0] if args else kwargs["hidden_states"]
