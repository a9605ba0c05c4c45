"""All of a model that decides its numbers, as plain content: for names, for pickles, for refusals.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from skact.models._hub import first_weight
from skact.models._outside import find_outside
from skact.models._processors import without
from skact.models._weights import active_adapters, fingerprint

__all__ = ["model_content", "model_state"]

# Settings that name things, or come after the blocks.
_NAMES = {
    "_name_or_path", "architectures", "dtype", "id2label", "label2id", "problem_type",
    "return_dict", "transformers_version", "use_cache",
}  # fmt: skip


def model_state(base: Any) -> dict[str, Any]:
    """Say what may change about a model while its weights stay, for JSON.

    Parameters
    ----------
    base : Module
        The model without head.

    Returns
    -------
    state : dict
        Active adapters, number format, and what works on it from ``outside`` and has no content.
    """
    return {
        "adapters": active_adapters(base),
        "dtype": str(first_weight(base).dtype).removeprefix("torch."),
        "outside": find_outside(base),
    }


def model_content(base: Any, *, thorough: bool = False) -> dict[str, Any]:
    """Say what a model is.

    Parameters
    ----------
    base : Module
        The model without head.
    thorough : bool, default=False
        Whether to look at all weights again; see :func:`fingerprint`.

    Returns
    -------
    content : dict
        For JSON: weights and buffers, config, class, and the structure of its modules.
    """
    settings = json.loads(base.config.to_json_string(use_diff=False))
    return {
        "class": type(base).__name__,
        "config": without(settings, _NAMES),
        # What modules say of themselves: their classes, sizes, epsilons, activations.
        "structure": hashlib.sha256(repr(base).encode()).hexdigest(),
        "weights": fingerprint(base, buffers=True, thorough=thorough),
    }
