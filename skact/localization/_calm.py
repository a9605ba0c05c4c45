r"""CALM: the position of the cue as a latent variable.

A class activation map is read from a classifier that never had positions in mind. CALM [1]_ puts
the position :math:`i` of the cue into the model,

.. math:: p(y_c \mid x) = \sum_i p(i \mid x)\, p(y_c \mid x, i),

trains it by the likelihood of sample labels alone, and the map is the joint probability
:math:`p(y_c = 1, i \mid x)` of the concept and the position. Its two heads are here

.. math:: p(i \mid x) = \frac{\operatorname{softplus}(w' z_i + w_0)}
                             {\sum_j \operatorname{softplus}(w' z_j + w_0)}, \qquad
          p(y_c = 1 \mid x, i) = \sigma\big(a_c \cos(z_i, t_c) + b_c\big)

with the scaled token embeddings :math:`z` and the target :math:`t_c`; concepts are not exclusive,
so that the softmax over classes is a logistic function per concept. The marginal likelihood is
maximised directly (the published CALM-ML), with a small squared penalty on :math:`w` and
:math:`a`.

Imports torch: import this module only where a model is at hand.

References
----------
.. [1] J. M. Kim, J. Choe, Z. Akata and S. J. Oh, "Keep CALM and Improve Visual Feature
   Attribution", ICCV 2021.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from skact.rows import Array, offsets_of, segments_of

__all__ = ["Heads", "calm", "fit_calm"]


_PENALTY = 1e-3
_MAX_ITER = 100


class Heads(NamedTuple):
    """The two heads.

    Parameters
    ----------
    position : ndarray of shape (n_features + 1,), dtype float64
        :math:`w` and :math:`w_0`.
    evidence : ndarray of shape (2, n_concepts), dtype float64
        :math:`a` and :math:`b`.
    """

    position: Array
    evidence: Array


def fit_calm(
    tokens: Array,
    lengths: Array,
    cosines: Array,
    present: Array,
    weight: Array | None = None,
) -> Heads:
    """Maximise the likelihood of sample labels.

    Parameters
    ----------
    tokens : ndarray of shape (n_tokens, n_features)
        Scaled tokens, sample after sample.
    lengths : ndarray of shape (n_samples,)
        Tokens of each sample.
    cosines : ndarray of shape (n_tokens, n_concepts)
        With the target of the sample; NaN where it has none, which leaves the pair of sample and
        concept out.
    present : ndarray of shape (n_samples, n_concepts), dtype bool
        Samples that hold the concept.
    weight : ndarray of shape (n_samples,), default=None
        How often each sample counts; None once.

    Returns
    -------
    heads : Heads
        The same for the same data.
    """
    n_samples, n_concepts = present.shape
    sample = torch.from_numpy(segments_of(lengths))
    known = np.isfinite(cosines[offsets_of(lengths)[:-1]])
    times = torch.from_numpy(known * np.float64(1 if weight is None else weight[:, None]))
    n_known = max(float(times.sum()), 1)
    sign = torch.from_numpy(np.where(present, 1.0, -1.0))
    z = torch.from_numpy(np.ascontiguousarray(tokens, np.float64))
    cos = torch.from_numpy(np.nan_to_num(cosines).astype(np.float64))
    position = torch.zeros(tokens.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    evidence = torch.zeros(2, n_concepts, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [position, evidence], max_iter=_MAX_ITER, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        strength = softplus(z @ position[:-1] + position[-1])
        total = torch.zeros(n_samples, dtype=torch.float64).index_add(0, sample, strength)
        prior = (strength / total[sample])[:, None]
        right = torch.sigmoid(sign[sample] * (evidence[0] * cos + evidence[1]))
        marginal = torch.zeros_like(sign).index_add(0, sample, prior * right)
        fit = -(times * torch.log(marginal.clamp_min(1e-12))).sum() / n_known
        penalised = fit + _PENALTY * (position[:-1].square().sum() + evidence[0].square().sum())
        penalised.backward()  # type: ignore[no-untyped-call]
        return penalised

    with torch.enable_grad():
        optimiser.step(loss)  # type: ignore[no-untyped-call]
    return Heads(position.detach().numpy(), evidence.detach().numpy())


def calm(tokens: Array, cosines: Array, heads: Heads) -> Array:
    """Joint probability of concept and position.

    Parameters
    ----------
    tokens : ndarray of shape (n_tokens, n_features)
        Scaled tokens of one sample.
    cosines : ndarray of shape (n_tokens, n_concepts)
        With its targets.
    heads : Heads
        From :func:`fit_calm`.

    Returns
    -------
    attributions : ndarray of shape (n_tokens, n_concepts), dtype float64
        In [0, 1]; a column adds up to the probability that the sample holds the concept.
    """
    strength = softplus(
        torch.from_numpy(tokens @ heads.position[:-1] + heads.position[-1]).double()
    )
    slope, offset = torch.from_numpy(heads.evidence)
    seen = logsigmoid(slope * torch.from_numpy(cosines).double() + offset).exp()
    return (strength[:, None] / strength.sum() * seen).numpy()
