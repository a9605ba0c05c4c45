"""From raw samples to token activations.

:class:`TransformerEmbedder` turns texts or images into the residual stream after chosen blocks of
a pretrained transformer, and labels given on characters or pixels into labels of its tokens. With a
store, no sample goes through a model twice. Importing this package loads neither torch nor
transformers; the first use of an embedder does.
"""

from skact.embedding._embedder import TransformerEmbedder
from skact.embedding._parallel import embed_to_store

__all__ = ["TransformerEmbedder", "embed_to_store"]
