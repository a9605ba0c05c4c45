"""The heads of attention: what each of them writes into the residual stream.

What a head writes is its slice of what enters the output projection, times its slice of that
projection. :class:`~skact.embedding.TransformerEmbedder` with ``site="heads"`` keeps the first,
which is many times smaller than all writes together; here it is multiplied when it is read.
:func:`head_alignment` tells how much of the weights of a head lies along a concept, and
:func:`gap_growth` whether gaps between activations grow as these weights predict.
:class:`HeadPursuit` finds the words that explain what a head writes, and :func:`scale_heads` makes
heads write more or less.
Importing this package loads neither torch nor transformers.
"""

from skact.heads._alignment import head_alignment
from skact.heads._growth import gap_growth
from skact.heads._omp import SimultaneousOMP
from skact.heads._pursuit import HeadPursuit
from skact.heads._scaling import bake_heads, random_heads, scale_heads
from skact.heads._writes import HeadWrites, head_writes

__all__ = [
    "HeadPursuit",
    "HeadWrites",
    "SimultaneousOMP",
    "bake_heads",
    "gap_growth",
    "head_alignment",
    "head_writes",
    "random_heads",
    "scale_heads",
]
