"""Methods that read the tokens of a layer or gradients of the model, and the list of all ten.

The maths lies in functions on arrays; these objects hold settings, and what was learnt.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import TYPE_CHECKING, Self

from skact.arguments import Number
from skact.localization._game_methods import LIME, RISE, SHAPIQ, KernelSHAP
from skact.localization._method import AttributionMethod
from skact.rows import Array

if TYPE_CHECKING:
    from skact.localization._gradients import InputFunction
    from skact.localization._samples import Sample, Samples

__all__ = [
    "CALM",
    "METHODS",
    "MFABA",
    "DirectAlignment",
    "FullGrad",
    "GradCAM",
    "IntegratedGradients",
    "resolve_method",
]


class DirectAlignment(AttributionMethod):
    r"""The cosine of each token with the target, :math:`A_i = \cos(z_i, t)`.

    These are the terms of the explained function itself. One forward pass per sample.

    Examples
    --------
    >>> from skact.localization import DirectAlignment
    >>> DirectAlignment()
    DirectAlignment()
    """

    name = "direct"

    def _explain(self, sample: Sample, random_state: int) -> Array:
        return sample.alignment


class GradCAM(AttributionMethod):
    r"""Token embeddings of the layer, weighted by their mean gradient.

    .. math:: A_i = \max\Big(0, \sum_k \alpha_k z_{ik}\Big), \qquad
              \alpha_k = \frac1n \sum_i \frac{\partial g}{\partial z_{ik}}

    One forward pass per sample, and no gradient of the model.

    References
    ----------
    R. R. Selvaraju, M. Cogswell, A. Das, R. Vedantam, D. Parikh and D. Batra, "Grad-CAM: Visual
    Explanations from Deep Networks via Gradient-based Localization", ICCV 2017.

    Examples
    --------
    >>> from skact.localization import GradCAM
    >>> GradCAM()
    GradCAM()
    """

    name = "grad_cam"

    def _explain(self, sample: Sample, random_state: int) -> Array:
        from skact.localization._gradients import grad_cam

        return grad_cam(sample.tokens, sample.explained(scaled=True))


class CALM(AttributionMethod):
    r"""The joint probability of the concept and of the position of its cue.

    .. math:: A_i = p(i \mid x)\, p(y_c = 1 \mid x, i), \qquad
              p(i \mid x) \propto \operatorname{softplus}(w' z_i + w_0), \qquad
              p(y_c = 1 \mid x, i) = \sigma\big(a_c \cos(z_i, t_c) + b_c\big)

    with heads fitted by the likelihood of sample labels :math:`y_c`, in which pairs of a sample and
    a concept count the same,

    .. math:: \operatorname*{mean}_{x, c} \log \sum_i p(i \mid x)\, p(y_c \mid x, i)
              - 10^{-3} \big(\lVert w \rVert^2 + \lVert a \rVert^2\big).

    One forward pass per sample.

    Attributes
    ----------
    position_ : ndarray of shape (n_features + 1,), dtype float64
        Head of the position, :math:`w` and :math:`w_0`.
    evidence_ : ndarray of shape (2, n_concepts), dtype float64
        Head of the evidence, :math:`a` and :math:`b`.

    References
    ----------
    J. M. Kim, J. Choe, Z. Akata and S. J. Oh, "Keep CALM and Improve Visual Feature Attribution",
    ICCV 2021.

    Examples
    --------
    >>> from skact.localization import CALM
    >>> CALM()
    CALM()
    """

    name = "calm"
    needs_fit = True

    position_: Array
    evidence_: Array

    def fit(self, samples: Samples, present: Array, sample_weight: Array | None = None) -> Self:
        """Maximise the likelihood of sample labels.

        Parameters
        ----------
        samples : Samples
            Calibration samples.
        present : ndarray of shape (n_samples, n_concepts), dtype bool
            Samples that hold the concept.
        sample_weight : ndarray of shape (n_samples,), default=None
            How often each counts.

        Returns
        -------
        self : CALM
            Fitted.
        """
        from skact.localization._calm import fit_calm

        tokens = samples.tokens
        alignment = samples.columns(sample.alignment for sample in samples.mappable())
        heads = fit_calm(tokens.flat(), tokens.lengths, alignment, present, sample_weight)
        self.position_, self.evidence_ = heads
        return self

    def _explain(self, sample: Sample, random_state: int) -> Array:
        from skact.localization._calm import Heads, calm

        heads = Heads(self.position_, self.evidence_[:, sample.known])
        return calm(sample.tokens, sample.alignment, heads)


class GradientMethod(AttributionMethod):
    """A method that differentiates with respect to what enters the first block."""

    needs_gradients = True

    @abstractmethod
    def _attribute(self, function: InputFunction) -> Array:
        """Attributions of the tokens."""

    def _explain(self, sample: Sample, random_state: int) -> Array:
        with self._refusal():
            return self._attribute(sample.input_function)

    def _probe(self, sample: Sample) -> None:
        with self._refusal():
            sample.input_function.check()

    @contextmanager
    def _refusal(self) -> Iterator[None]:
        """Say which methods need no gradients, where a model gives none."""
        try:
            yield
        except RuntimeError as error:
            if not re.search("grad|derivative", str(error)):
                raise
            works = [name for name, method in _NAMED.items() if not method.needs_gradients]
            raise ValueError(
                f'method="{self.name}" needs gradients with respect to the input of the first '
                f"block, which this model does not give ({error}). Methods that work: {works}."
            ) from error


class IntegratedGradients(GradientMethod):
    r"""Gradients along the straight path from a baseline.

    .. math:: A_i = \sum_d (x_{id} - x'_{id}) \int_0^1
              \frac{\partial g(x' + \alpha (x - x'))}{\partial x_{id}} \, d\alpha

    The baseline :math:`x'` is the mean of the sample's tokens at the input of the first block.
    ``n_steps`` forward and backward passes per concept. Needs captum.

    Parameters
    ----------
    n_steps : int, default=50
        Points on the path.

    References
    ----------
    M. Sundararajan, A. Taly and Q. Yan, "Axiomatic Attribution for Deep Networks", ICML 2017.

    Examples
    --------
    >>> from skact.localization import IntegratedGradients
    >>> IntegratedGradients(n_steps=20)
    IntegratedGradients(n_steps=20)
    """

    name = "integrated_gradients"
    library = "captum.attr"

    _parameter_constraints = {"n_steps": [Number(Integral, 1, None, closed="left")]}

    def __init__(self, n_steps: int = 50) -> None:
        self.n_steps = n_steps

    def _attribute(self, function: InputFunction) -> Array:
        return function.integrated_gradients(self.n_steps)


class FullGrad(GradientMethod):
    r"""Input gradients and bias gradients.

    .. math:: A_i = \sum_d \left| x_{id} \frac{\partial g}{\partial x_{id}} \right|
              + \sum_{b} \sum_k \left| b_k \frac{\partial g}{\partial o^b_{ik}} \right|

    over the modules with a bias :math:`b` in the blocks that are run, with outputs :math:`o^b`. One
    forward pass per sample, and one backward per concept.

    References
    ----------
    S. Srinivas and F. Fleuret, "Full-Gradient Representation for Neural Network Visualization",
    NeurIPS 2019.

    Examples
    --------
    >>> from skact.localization import FullGrad
    >>> FullGrad()
    FullGrad()
    """

    name = "full_grad"

    def _attribute(self, function: InputFunction) -> Array:
        return function.full_grad()


class MFABA(GradientMethod):
    r"""Gradients along the steepest path on which the concept is lost.

    .. math:: \alpha^{(j+1)} = \alpha^{(j)}
              - \eta \frac{\nabla g(\alpha^{(j)})}{\lVert \nabla g(\alpha^{(j)}) \rVert}, \qquad
              A_i = \sum_j \big(\alpha^{(j)}_i - \alpha^{(j+1)}_i\big)
              \frac{\partial g(\alpha^{(j)})}{\partial \alpha_i}

    where :math:`\alpha_i` in [0, 1] is the presence of a token: what enters the first block lies
    between the mean of the sample's tokens (0) and the token (1). The walk starts at
    :math:`\alpha = 1`, stays in [0, 1], and its steps :math:`\eta = \sqrt n / n_{steps}` add up to
    the way from all n tokens to none. ``n_steps`` forward and backward passes per concept.

    Parameters
    ----------
    n_steps : int, default=50
        Steps of the walk.

    References
    ----------
    Z. Zhu, H. Chen, J. Zhang, X. Wang, Z. Jin, M. Xue, D. Zhu and K.-K. R. Choo, "MFABA: A More
    Faithful and Accelerated Boundary-Based Attribution Method for Deep Neural Networks", AAAI 2024.

    Examples
    --------
    >>> from skact.localization import MFABA
    >>> MFABA(n_steps=20)
    MFABA(n_steps=20)
    """

    name = "mfaba"

    _parameter_constraints = {"n_steps": [Number(Integral, 1, None, closed="left")]}

    def __init__(self, n_steps: int = 50) -> None:
        self.n_steps = n_steps

    def _attribute(self, function: InputFunction) -> Array:
        return function.mfaba(self.n_steps)


_NAMED: dict[str, type[AttributionMethod]] = {
    method.name: method
    for method in (
        DirectAlignment,
        GradCAM,
        CALM,
        LIME,
        KernelSHAP,
        RISE,
        SHAPIQ,
        IntegratedGradients,
        FullGrad,
        MFABA,
    )
}

#: Names of the methods.
METHODS = tuple(_NAMED)


def resolve_method(method: str | AttributionMethod) -> AttributionMethod:
    """Turn the parameter ``method`` into an object with valid settings.

    Parameters
    ----------
    method : str or AttributionMethod
        One of ``METHODS``, or an object.

    Returns
    -------
    method : AttributionMethod
        The object; with default settings for a name.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """
    found = _NAMED[method]() if isinstance(method, str) else method
    found._validate_params()
    return found
