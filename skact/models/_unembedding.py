"""What turns the last state of a model into logits of words.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["output_head", "tied_head"]

_WRITERS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


def output_head(model: nn.Module) -> Any:
    """Return the unembedding of a model.

    Parameters
    ----------
    model : Module
        The whole model.

    Returns
    -------
    head : Module or None
        None if it has none.
    """
    return getattr(model, "get_output_embeddings", lambda: None)()


def tied_head(base: nn.Module) -> Any:
    """Return the embedding of a model that was loaded without its head, if the head shares it.

    Parameters
    ----------
    base : Module
        The model, of which the config says what its files hold.

    Returns
    -------
    head : Module or None
        None if the files hold no head, or one with weights of its own.
    """
    config: Any = getattr(base, "config", None)
    writes = any(kind.endswith(_WRITERS) for kind in getattr(config, "architectures", None) or ())
    tied = writes and getattr(config, "tie_word_embeddings", False)
    return base.get_input_embeddings() if tied else None  # type: ignore[operator]
