"""From raw samples to token activations.

:class:`TransformerEmbedder` turns texts or images into the residual stream after chosen blocks of
a pretrained transformer, and labels given on characters or pixels into labels of its tokens.
:class:`ActivationStore` keeps activations on disk, so that no sample goes through a model twice.
Importing this package loads neither torch nor transformers; the first use of an embedder does.
"""

from skact.embedding._embedder import TransformerEmbedder
from skact.embedding._geometry import Patch
from skact.embedding._parallel import embed_to_store
from skact.embedding._text import Token
from skact.embedding.depth import depth_to_block
from skact.embedding.store import ActivationStore

__all__ = [
    "ActivationStore",
    "Patch",
    "Token",
    "TransformerEmbedder",
    "depth_to_block",
    "embed_to_store",
]
