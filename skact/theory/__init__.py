r"""Scalar dynamics of a head that is aligned with a concept, on plain arrays.

Take a concept vector :math:`v` and the activations :math:`a_i = \langle v, h_i \rangle` of the
tokens of one sequence. Where a head's weights are :math:`W_Q^\top W_K = \alpha v v^\top + E_{QK}`
and :math:`W_V = \beta v v^\top + E_V`, one layer moves the activations by

.. math:: a_i' = a_i + \beta \sum_j \mathrm{softmax}_j(\kappa a_i a_j + \epsilon_{ij})\, a_j
          + \xi_i, \qquad \kappa = \alpha / \sqrt{d_{head}},

with noise :math:`\epsilon, \xi` from all that is not aligned (Goldberg, Kim, Stein, Wong, "The
SuperActivator Mechanism", section on theory). Without noise it is one map for all tokens,
:math:`\phi(x) = x + \beta m(x)`, and everything about it follows from the cumulant generating
function of the activations, :math:`K(s) = \log \mathrm{mean}_j e^{s a_j}`: :math:`m(x) =
K'(\kappa x)`, and the variance and third central moment under the attention of :math:`x` are
:math:`K''` and :math:`K'''` there.

What these statements do not say:

- The noiseless map keeps the order of tokens, so inside one sequence nothing is separated that was
  not; separation that grows with depth shows where sequences are pooled.
- Gaussian activations have :math:`K''' = 0`: all gaps grow alike, and no tail is favoured.
- Margins between the largest activations grow, but :math:`|a_i|` need not: a token's attention may
  loosen from one layer to the next.
- Under a causal mask each token has keys of its own, so there is no shared map, and order may turn.
- The sharper bound on noisy gaps is one on growth under **noisy** attention; around the growth
  without noise it is :math:`2 \beta R \tanh(e / 2)` in place of :math:`\beta R \tanh e`.

Arrays hold activations (..., n_tokens) of one or many sequences; nothing here imports the rest of
the package.
"""

from skact.theory._bounds import (
    Range,
    concentration_bound,
    equalization_bounds,
    equalization_ratio,
    gap_threshold,
    noise_term,
    off_pole_mass,
    pole_margins,
    softmax_stability,
)
from skact.theory._dynamics import (
    Cumulants,
    attention,
    cumulants,
    curvature,
    gap_variance,
    gaps,
    growth_factor,
    layer_map,
    mean_activation,
    pair_variance,
    update,
)
from skact.theory._simulation import Simulation, simulate

__all__ = [
    "Cumulants",
    "Range",
    "Simulation",
    "attention",
    "concentration_bound",
    "cumulants",
    "curvature",
    "equalization_bounds",
    "equalization_ratio",
    "growth_factor",
    "gap_threshold",
    "gap_variance",
    "gaps",
    "layer_map",
    "mean_activation",
    "noise_term",
    "off_pole_mass",
    "pair_variance",
    "pole_margins",
    "simulate",
    "softmax_stability",
    "update",
]
