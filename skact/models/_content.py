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

__all__ = ["model_content"]

# Settings that name things, or come after the blocks.
_NAMES = {
    "_name_or_path", "architectures", "dtype", "id2label", "label2id", "problem_type",
    "return_dict", "transformers_version", "use_cache",
}  # fmt: skip


def model_content(base: Any, *, thorough: bool = False) -> dict[str, Any]:
    """Say what a model does.

    Parameters
    ----------
    base : Module
        The model without head.
    thorough : bool, default=False
        Whether to look at all weights again; see :func:`fingerprint`.

    Returns
    -------
    content : dict
        For JSON: weights and buffers, adapters, number format, config, class, and the structure of
        its modules; ``outside`` lists what works on it and has no content.
    """
    settings = json.loads(base.config.to_json_string(use_diff=False))
    return {
        "adapters": active_adapters(base),
        "class": type(base).__name__,
        "config": without(settings, _NAMES),
        "dtype": str(first_weight(base).dtype).removeprefix("torch."),
        "outside": find_outside(base),
        # What modules say of themselves: their classes, sizes, epsilons, activations.
        "structure": hashlib.sha256(repr(base).encode()).hexdigest(),
        "weights": fingerprint(base, buffers=True, thorough=thorough),
    }
