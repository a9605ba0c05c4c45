r"""Attribution by gradients: at the input of the blocks, and at the layer itself.

At the input means at what enters the first transformer block, :math:`x` with one row per position,
because there a token is still one vector. With :math:`g` as a function of it, a method gives one
value per entry of :math:`x`, and a token takes the sum over its row: integrated gradients, FullGrad
and MFABA.

At the layer itself, for Grad-CAM, :math:`g` is a mean over the token embeddings, so that every
token has a gradient; behind a head that reads the CLS position alone, patches of the last block
have none.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skact.extras import need
from skact.localization._concept_game import MeanCosine
from skact.models import BlockInputs
from skact.rows import Array

__all__ = ["InputFunction", "full_grad", "grad_cam", "integrated_gradients", "mfaba"]


#: (n_copies, n_positions, n_features) -> (n_copies, n_targets)
Value = Callable[[Tensor], Tensor]


def integrated_gradients(
    value: Value, inputs: Tensor, baseline: Tensor, *, n_steps: int, batch_size: int
) -> Array:
    r"""Gradients along the straight path from a baseline [1]_.

    .. math:: A_i = \sum_d (x_{id} - x'_{id}) \int_0^1
              \frac{\partial g(x' + \alpha (x - x'))}{\partial x_{id}} \, d\alpha

    by Gauss-Legendre quadrature, in captum. Complete: the attributions of all positions add up to
    :math:`g(x) - g(x')`.

    Parameters
    ----------
    value : callable
        :math:`g`, from (n_copies, n_positions, n_features) to (n_copies, n_targets).
    inputs, baseline : Tensor of shape (n_positions, n_features)
        :math:`x` and :math:`x'`.
    n_steps : int
        Points of the quadrature.
    batch_size : int
        Points per forward pass.

    Returns
    -------
    attributions : ndarray of shape (n_positions, n_targets), dtype float64
        In units of :math:`g`.

    Raises
    ------
    ImportError
        If captum is not installed.

    References
    ----------
    .. [1] M. Sundararajan, A. Taly and Q. Yan, "Axiomatic Attribution for Deep Networks", ICML
       2017.
    """
    explainer = need("captum.attr", 'method="integrated_gradients"').IntegratedGradients(value)
    x, start = inputs[None], baseline[None]
    with torch.no_grad():
        n_targets = value(x).shape[1]
    return _columns(
        explainer.attribute(
            x,
            start,
            target=c,
            n_steps=n_steps,
            method="gausslegendre",
            internal_batch_size=batch_size,
        )[0].sum(dim=1)
        for c in range(n_targets)
    )


def full_grad(value: Value, inputs: Tensor, biases: Sequence[tuple[Tensor, Tensor]] = ()) -> Array:
    r"""Input gradients and bias gradients [1]_.

    .. math:: A_i = \sum_d \left| x_{id} \frac{\partial g}{\partial x_{id}} \right|
              + \sum_{b} \sum_k \left| b_k \frac{\partial g}{\partial o^b_{ik}} \right|

    over the modules with a bias :math:`b` in the blocks that are run, :math:`o^b` being what they
    put out. In a network of linear maps, biases and rectifiers the signed terms add up to
    :math:`g`; softmax, norms and GELU have no bias of their own here, so in a transformer they only
    come near.

    Parameters
    ----------
    value : callable
        :math:`g`, from (n_copies, n_positions, n_features) to (n_copies, n_targets).
    inputs : Tensor of shape (n_positions, n_features)
        :math:`x`.
    biases : list of (bias, output)
        Empty; filled whenever ``value`` is called, with outputs (1, n_positions, n_out).

    Returns
    -------
    attributions : ndarray of shape (n_positions, n_targets), dtype float64
        Not negative.

    References
    ----------
    .. [1] S. Srinivas and F. Fleuret, "Full-Gradient Representation for Neural Network
       Visualization", NeurIPS 2019.
    """
    x = inputs[None].clone().requires_grad_()
    values = value(x)[0]
    factors = [x.detach(), *(bias.detach() for bias, _ in biases)]
    outputs = [x, *(output for _, output in biases)]
    maps = []
    for each in values:
        gradients = torch.autograd.grad(each, outputs, retain_graph=True)
        terms = zip(factors, gradients, strict=True)
        maps.append(sum((f * d)[0].abs().sum(dim=1, dtype=torch.float64) for f, d in terms))
    return _columns(maps)


def mfaba(
    value: Value,
    inputs: Tensor,
    *,
    step: float,
    n_steps: int,
    clamp: Callable[[Tensor], Tensor] = lambda x: x,
) -> Array:
    r"""Gradients along the steepest path on which the concept is lost [1]_.

    .. math:: x^{(j+1)} = x^{(j)} - \eta \frac{\nabla g(x^{(j)})}{\lVert \nabla g(x^{(j)}) \rVert},
              \qquad A_i = \sum_j \sum_d \big(x^{(j)}_{id} - x^{(j+1)}_{id}\big)
              \frac{\partial g(x^{(j)})}{\partial x_{id}},

    the "sharp" form, each step brought back into the range of valid inputs. To first order the
    attributions add up to :math:`g(x) - g(x^{(K)})`. The published walk ends at the decision
    boundary of a classifier; :math:`g` is graded and has none, so all steps are taken.

    Parameters
    ----------
    value : callable
        :math:`g`, from (n_copies, n_positions, n_features) to (n_copies, n_targets).
    inputs : Tensor of shape (n_positions, n_features)
        :math:`x`.
    step : float
        Length :math:`\eta` of a step.
    n_steps : int
        Number of steps :math:`K`.
    clamp : callable, default=identity
        Brings a step back into the range of valid inputs.

    Returns
    -------
    attributions : ndarray of shape (n_positions, n_targets), dtype float64
        In units of :math:`g`.

    References
    ----------
    .. [1] Z. Zhu, H. Chen, J. Zhang, X. Wang, Z. Jin, M. Xue, D. Zhu and K.-K. R. Choo, "MFABA: A
       More Faithful and Accelerated Boundary-Based Attribution Method for Deep Neural Networks",
       AAAI 2024.
    """
    with torch.no_grad():
        n_targets = value(inputs[None]).shape[1]
    # One copy per target: each walks down its own.
    x = inputs.detach().expand(n_targets, *inputs.shape).clone()
    total = torch.zeros(x.shape[:2], dtype=torch.float64, device=x.device)
    for _ in range(n_steps):
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(value(x).diagonal().sum(), x)
        x = x.detach()
        length = gradient.flatten(1).norm(dim=1).clamp_min(1e-30)[:, None, None]
        following = clamp(x - step * gradient / length)
        total += ((x - following) * gradient).sum(dim=2, dtype=torch.float64)
        x = following
    return _columns(total)


def grad_cam(tokens: Array, value: Value) -> Array:
    r"""Token embeddings weighted by their mean gradient [1]_.

    .. math:: A_i = \max\Big(0, \sum_k \alpha_k z_{ik}\Big), \qquad
              \alpha_k = \frac1n \sum_i \frac{\partial g}{\partial z_{ik}}

    with the scaled token embeddings :math:`z` of the layer itself in place of the feature maps of a
    convolution. No gradient of the model is needed.

    Parameters
    ----------
    tokens : ndarray of shape (n_tokens, n_features)
        :math:`z`.
    value : callable
        :math:`g` as a function of them, from (1, n_tokens, n_features) to (1, n_targets).

    Returns
    -------
    attributions : ndarray of shape (n_tokens, n_targets), dtype float64
        Not negative.

    References
    ----------
    .. [1] R. R. Selvaraju, M. Cogswell, A. Das, R. Vedantam, D. Parikh and D. Batra, "Grad-CAM:
       Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017.
    """
    z = torch.tensor(tokens, dtype=torch.float32)[None].requires_grad_()
    with torch.enable_grad():
        values = value(z)[0]
    maps = []
    for each in values:
        (gradient,) = torch.autograd.grad(each, z, retain_graph=True)
        maps.append((z[0] @ gradient[0].mean(dim=0)).clamp_min(0))
    return _columns(maps)


class InputFunction:
    r"""One sample as a function :math:`g` of what enters the first block, and maps of it.

    The baseline :math:`x'` is the mean of the sample's tokens there. MFABA walks in the presence
    :math:`\alpha_i \in [0, 1]` of each token, as a function of which :math:`g` is read at
    :math:`x'_i + \alpha_i (x_i - x'_i)`: from all n tokens over a way of :math:`\sqrt n`, as long
    as that to the baseline. In the features themselves the steepest
    path mostly turns tokens that look like nothing, for which a cosine is easiest to change.

    Each map is an ndarray of shape (n_tokens, n_targets), dtype float64, and a RuntimeError if the
    model gives no gradients.

    Parameters
    ----------
    inputs : BlockInputs
        The sample.
    explained : MeanCosine
        What is read from it.
    batch_size : int
        Copies per forward pass.
    """

    def __init__(self, inputs: BlockInputs, explained: MeanCosine, batch_size: int) -> None:
        self.inputs = inputs
        self.explained = explained
        self.batch_size = batch_size
        self.values = inputs.values
        # Positions that are no token of the sample stay as they are, as in perturbation.
        self.baseline = self.values.clone()
        self.baseline[inputs.positions] = self.values[inputs.positions].mean(dim=0)
        self._works = False

    def check(self) -> None:
        """Try, once for all methods, whether the model gives gradients."""
        if not self._works:
            self.full_grad()
            self._works = True

    def integrated_gradients(self, n_steps: int) -> Array:
        """Map by integrated gradients, from the baseline."""
        with self._value() as (value, _):
            found = integrated_gradients(
                value, self.values, self.baseline, n_steps=n_steps, batch_size=self.batch_size
            )
        return found[self.inputs.positions]

    def full_grad(self) -> Array:
        """Map by input and bias gradients."""
        with self._value() as (value, biases):
            found = full_grad(value, self.values, biases)
        return found[self.inputs.positions]

    def mfaba(self, n_steps: int) -> Array:
        """Map by the walk in the presence of tokens."""
        x, baseline = self.values, self.baseline
        with self._value() as (value, _):
            found = mfaba(
                lambda presence: value(baseline + presence * (x - baseline)),
                x.new_ones(len(x), 1),
                step=len(self.inputs.positions) ** 0.5 / n_steps,
                n_steps=n_steps,
                clamp=lambda presence: presence.clamp(0, 1),
            )
        return found[self.inputs.positions]

    @contextmanager
    def _value(self) -> Iterator[tuple[Value, list[tuple[Tensor, Tensor]]]]:
        """Give the function, and the biases with their outputs in its last call."""
        with self.inputs.differentiable() as state, self.inputs.biases() as biases:

            def value(values: Tensor) -> Tensor:
                biases.clear()
                return self.explained(state(values))

            yield value, biases


def _columns(maps: Any) -> Array:
    """Put one map per target side by side."""
    return np.stack([one.detach().to("cpu", torch.float64).numpy() for one in maps], axis=1)
