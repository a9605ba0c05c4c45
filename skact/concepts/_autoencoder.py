"""Sparse autoencoders: a concept is a unit that fires on few tokens."""

from __future__ import annotations

import os
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from skact.arguments import PATH, Number, checked, instance
from skact.concepts._autoencoder_recipe import AutoencoderTraining, TrainingState
from skact.concepts._autoencoder_weights import (
    Activation,
    AutoencoderWeights,
    InputScaling,
    decode,
    encode,
    row_batches,
    scale_input,
)
from skact.concepts._base import BaseUnits
from skact.concepts._callbacks import EpochsMixin
from skact.concepts._reconstruction import ReconstructionMixin
from skact.concepts._statistics import token_mean
from skact.concepts._streaming import StreamingUnitsMixin
from skact.rows import Array, as_floats
from skact.tokens import Source, TokenArray
from skact.validation import check_tokens

__all__ = ["SparseAutoencoder"]


def _fitted(weights: AutoencoderWeights) -> dict[str, Any]:
    """Fitted attributes of an autoencoder with these weights."""
    return {
        "encoder_": weights.encoder,
        "encoder_bias_": weights.encoder_bias,
        "concept_vectors_": weights.decoder,
        "decoder_bias_": weights.decoder_bias,
        "activation_": weights.activation,
        "k_": weights.k,
        "threshold_": weights.threshold,
        "centred_": weights.centred,
        "input_scaling_": weights.input_scaling,
    }


class SparseAutoencoder(EpochsMixin, StreamingUnitsMixin, ReconstructionMixin, BaseUnits):
    r"""A concept is a unit of an autoencoder that reconstructs each token from few units.

    .. math:: f(z) = \sigma\big((z - b_{dec}) W_{enc} + b_{enc}\big), \qquad
              \hat z = f(z) W_{dec} + b_{dec}

    with rows of :math:`W_{dec}` of norm 1 [1]_. The activation :math:`\sigma` and the loss are

    - ``"relu"``: :math:`\max(0, p)` and
      :math:`\lVert z - \hat z \rVert^2 + \lambda_1 \sum_j f_j` [2]_;
    - ``"topk"``: the k largest pre-activations of the token, where positive, and
      :math:`\lVert z - \hat z \rVert^2` [3]_;
    - ``"jumprelu"``: :math:`p` where it exceeds the unit's threshold :math:`\theta_j`, else 0, and
      :math:`\lVert z - \hat z \rVert^2 + \lambda_0 \lVert f \rVert_0`. The thresholds learn from
      pre-activations within :math:`\epsilon / 2` of them (straight-through estimator) [4]_;
    - ``"afa"``: as many of the largest :math:`f_j = \max(0, p_j)` as make
      :math:`\sqrt{\sum_j (f_j \lVert w_j \rVert)^2}` come nearest to
      :math:`\lVert z - b_{dec} \rVert`, at least one, so that each token has a number of its own,
      and :math:`\lVert z - \hat z \rVert^2 + \lambda_a (\lVert f \rVert - \lVert z - b_{dec}
      \rVert)^2` [5]_.

    While it trains, tokens are centred at their mean and divided by their root mean square distance
    from it, so that the settings below mean the same at every layer and the loss starts near 1;
    the scalar is folded into the weights afterwards. ``transform`` gives :math:`f(z)`, computed
    without torch, and ``inverse_transform`` :math:`\hat z`. The paper [1]_ uses published
    autoencoders, CLIP-Scope (65,536 units, k = 32) and Gemma-Scope (16k units); see
    :meth:`from_pretrained`. Scores are dense, 4 bytes for each token and unit.

    Parameters
    ----------
    n_concepts : int, default=64
        Units; more than features are allowed, and usual.
    activation : {"relu", "topk", "jumprelu", "afa"}, default="relu"
        :math:`\sigma`.
    k : int, default=32
        Units of a token that may fire; less than ``n_concepts``. For "topk".
    l1 : float, default=0.1
        :math:`\lambda_1`, for "relu".
    l0 : float, default=0.02
        :math:`\lambda_0`, for "jumprelu".
    afa : float, default=0.03
        :math:`\lambda_a`, for "afa".
    threshold : float, default=0.1
        Initial :math:`\theta`, for "jumprelu".
    bandwidth : float, default=0.1
        :math:`\epsilon`, for "jumprelu".
    training : AutoencoderTraining, default=None
        Step size, minibatches, epochs, when to stop, and what becomes of dead units. None stands
        for its defaults; with an object, a search reaches its settings as
        ``training__learning_rate``, say.
    random_state : int, RandomState instance or None, default=None
        Draws the initial directions, the order of tokens and the tokens of new starts.

    Attributes
    ----------
    concept_vectors_ : ndarray of shape (n_units, n_features), dtype float32
        :math:`W_{dec}`.
    concept_names_ : ndarray of shape (n_units,), dtype object
        Names of the units.
    encoder_ : ndarray of shape (n_features, n_units), dtype float32
        :math:`W_{enc}`.
    encoder_bias_ : ndarray of shape (n_units,), dtype float32
        :math:`b_{enc}`.
    decoder_bias_ : ndarray of shape (n_features,), dtype float32
        :math:`b_{dec}`.
    threshold_ : ndarray of shape (n_units,), dtype float32, or None
        :math:`\theta`, for "jumprelu".
    activation_ : str
        The activation that was fitted or loaded.
    k_ : int or None
        Units of a token that may fire, for "topk".
    centred_ : bool
        Whether :math:`b_{dec}` is subtracted before encoding; some published ones do not.
    input_scaling_ : {"none", "constant_norm", "layer_norm"}
        How tokens are scaled one by one before encoding; other than "none" only if loaded, and then
        ``inverse_transform`` gives scaled tokens, as activations do not tell the scale.
    loss_curve_ : ndarray of shape (n_iter,), dtype float64
        Mean loss over the tokens of each epoch, in units of the tokens' mean squared distance from
        their mean. Absent if loaded.
    n_iter_ : int
        Epochs trained. Absent if loaded.
    n_dead_ : int
        Units that fired on no token in the last epoch. Absent if loaded.
    n_features_in_ : int
        Features of a token.
    source_ : Source or None
        Model, layer and scaling of the training tokens.

    References
    ----------
    .. [1] Goldberg, Kim, Stein, Wong, "The SuperActivator Mechanism: Transformers Concentrate
       Reliable Concept Signals in the Tail", section on concept vectors.
    .. [2] Bricken et al., "Towards Monosemanticity: Decomposing Language Models With Dictionary
       Learning", 2023.
    .. [3] Gao et al., "Scaling and evaluating sparse autoencoders", 2024.
    .. [4] Rajamanoharan et al., "Jumping Ahead: Improving Reconstruction Fidelity with JumpReLU
       Sparse Autoencoders", 2024.
    .. [5] Lee et al., "Evaluating and Designing Sparse Autoencoders by Approximating
       Quasi-Orthogonality", 2025.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import SparseAutoencoder
    >>> rng = np.random.default_rng(0)
    >>> X = [rng.normal(size=(20, 8)) for _ in range(10)]
    >>> method = SparseAutoencoder(n_concepts=12, activation="topk", k=3, random_state=0).fit(X)
    >>> scores = method.transform(X)
    >>> scores.shape, int((scores[0] > 0).sum(axis=1).max()) <= 3
    ((10, 12), True)
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "n_concepts": [Number(Integral, 1, None, closed="left")],
        "activation": [StrOptions({"relu", "topk", "jumprelu", "afa"})],
        "k": [Number(Integral, 1, None, closed="left")],
        "l1": [Number(Real, 0, None, closed="left")],
        "l0": [Number(Real, 0, None, closed="left")],
        "afa": [Number(Real, 0, None, closed="left")],
        "threshold": [Number(Real, 0, None, closed="neither")],
        "bandwidth": [Number(Real, 0, None, closed="neither")],
        "training": [instance("an AutoencoderTraining()", AutoencoderTraining), None],
        "random_state": ["random_state"],
    }

    encoder_: Array
    encoder_bias_: Array
    decoder_bias_: Array
    threshold_: Array | None
    activation_: Activation
    k_: int | None
    centred_: bool
    input_scaling_: InputScaling
    loss_curve_: Array
    n_iter_: int
    n_dead_: int
    n_features_in_: int
    source_: Source | None
    _state: TrainingState | None

    def __init__(
        self,
        n_concepts: int = 64,
        activation: Activation = "relu",
        *,
        k: int = 32,
        l1: float = 0.1,
        l0: float = 0.02,
        afa: float = 0.03,
        threshold: float = 0.1,
        bandwidth: float = 0.1,
        training: AutoencoderTraining | None = None,
        random_state: Any = None,
    ) -> None:
        self.n_concepts = n_concepts
        self.activation = activation
        self.k = k
        self.l1 = l1
        self.l0 = l0
        self.afa = afa
        self.threshold = threshold
        self.bandwidth = bandwidth
        self.training = training
        self.random_state = random_state

    def _validate_params(self) -> None:
        super()._validate_params()
        self._training()._validate_params()
        if self.activation == "topk" and self.k >= self.n_concepts:
            raise ValueError(
                f"k={self.k} must be less than n_concepts={self.n_concepts}; else no unit is ever "
                "left out."
            )

    def _training(self) -> AutoencoderTraining:
        return AutoencoderTraining() if self.training is None else self.training

    def _max_epochs(self) -> int:
        return self._training().max_epochs

    def _fit_vectors(self, tokens: TokenArray) -> Array:
        self._train(tokens, self._training(), report=self._report)
        # What Adam remembers is kept only between calls of partial_fit.
        self._state = None
        return self.concept_vectors_

    def _update(self, tokens: TokenArray, first: bool) -> Array:
        one_epoch = clone(self._training()).set_params(max_epochs=1)
        if first:
            self._train(tokens, one_epoch)
            return self.concept_vectors_
        weights = self._weights_to_go_on_from()
        # A loaded one has neither: nothing is known of its training.
        before, state = getattr(self, "loss_curve_", []), getattr(self, "_state", None)
        self._train(tokens, one_epoch, weights=weights, state=state)
        self.loss_curve_ = np.concatenate([before, self.loss_curve_])
        self.n_iter_ = len(self.loss_curve_)
        return self.concept_vectors_

    def _weights_to_go_on_from(self) -> AutoencoderWeights:
        """Refuse weights of another kind than the parameters ask for."""
        weights = self._weights()
        shape = (self.n_concepts, self.activation)
        plain = weights.centred and weights.input_scaling == "none"
        if shape != (len(weights.decoder), weights.activation) or not plain:
            raise ValueError(
                f"partial_fit goes on with {len(weights.decoder)} units of activation "
                f"{weights.activation!r} and a centred, unscaled input, as trained here; got "
                f"n_concepts={self.n_concepts}, activation={self.activation!r}, "
                f"centred_={weights.centred}, input_scaling_={weights.input_scaling!r}."
            )
        return weights

    def _train(self, tokens: TokenArray, training: AutoencoderTraining, **start: Any) -> None:
        # torch is imported by whoever trains, not by `import skact`.
        from skact.concepts._autoencoder_model import Architecture
        from skact.concepts._autoencoder_training import train

        settings = {name: getattr(self, name) for name in Architecture.__annotations__}
        random = check_random_state(self.random_state)
        result = train(tokens, Architecture(**settings), training, random, **start)
        self._set_weights(result.weights)
        self._state = result.state
        self.loss_curve_ = result.loss_curve
        self.n_iter_ = len(result.loss_curve)
        self.n_dead_ = result.n_dead

    def _attributes(self, vectors: Any) -> dict[str, Any]:
        names = self._names(len(vectors.decoder))
        return {**_fitted(vectors), "concept_names_": names}

    def _set_weights(self, weights: AutoencoderWeights) -> None:
        self.__dict__.update(_fitted(weights))

    def _weights(self) -> AutoencoderWeights:
        return AutoencoderWeights(
            encoder=self.encoder_,
            encoder_bias=self.encoder_bias_,
            decoder=self.concept_vectors_,
            decoder_bias=self.decoder_bias_,
            activation=self.activation_,
            k=self.k_,
            threshold=self.threshold_,
            centred=self.centred_,
            input_scaling=self.input_scaling_,
        )

    def _score(self, values: Array) -> Array:
        return encode(values, self._weights())

    @classmethod
    @checked(path=[PATH], source=[instance("a Source(...)", Source), None])
    def from_pretrained(cls, path: str | os.PathLike[str], *, source: Source | None = None) -> Self:
        r"""Load a published autoencoder; the result is fitted.

        Three formats are told apart by their files and keys. None of them is read by unpickling:

        - Gemma-Scope: ``params.npz``. JumpReLU; :math:`b_{dec}` is not subtracted from the input.
        - SAELens: ``cfg.json`` and ``sae_weights.safetensors`` with ``W_enc``. Standard, topk and
          jumprelu; ``apply_b_dec_to_input`` and ``normalize_activations`` are honoured.
        - TopK as EleutherAI and OpenAI name the weights: ``cfg.json`` with ``k``, and
          ``sae.safetensors`` with ``encoder.weight``. :math:`b_{dec}` is subtracted. OpenAI's own
          were trained on layer-normed tokens: ``"normalize": true`` in ``cfg.json`` says so.

        Parameters
        ----------
        path : str or path-like
            The folder that holds these files, or the file of weights.
        source : Source, default=None
            Model and layer the autoencoder was trained on. If given, tokens of others are refused.

        Returns
        -------
        autoencoder : SparseAutoencoder
            Fitted, with ``n_concepts``, ``activation`` and ``k`` set to what was loaded.

        Raises
        ------
        FileNotFoundError
            If there is no such path.
        ValueError
            If no known file is there, a file is damaged, a key is missing, has a wrong shape or
            is not finite, or the configuration asks for something that is not supported. File and
            key are named.
        """
        from skact.concepts._autoencoder_files import read_weights

        weights = read_weights(path)
        loaded = cls(n_concepts=len(weights.decoder), activation=weights.activation)
        if weights.k is not None:
            loaded.k = weights.k
        loaded._set_weights(weights)
        loaded._set_vectors(weights.decoder)
        loaded.n_features_in_ = len(weights.decoder_bias)
        loaded.source_ = source
        return loaded

    def _reconstruct(self, scores: Array) -> Array:
        return decode(scores, self._weights())

    def reconstruction_score(self, X: Any) -> float:
        r"""Share of the tokens' variance that the reconstructions explain.

        .. math:: 1 - \frac{\sum_i \lVert z_i - \hat z_i \rVert^2}
                          {\sum_i \lVert z_i - \bar z \rVert^2}

        over all tokens of X with mean :math:`\bar z`: 1 for perfect reconstructions, 0 for the mean
        alone. Any scaling of single tokens is undone first.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Tokens.

        Returns
        -------
        score : float
            At most 1. Where all tokens are equal: 1 if they are reconstructed exactly, else 0.

        Raises
        ------
        NotFittedError, ValueError, TypeError
            Before ``fit``, if X does not fit what was given to ``fit``, or if it is no activations.
        """
        check_is_fitted(self)
        tokens = check_tokens(self, X, reset=False)
        weights = self._weights()
        mean = token_mean(tokens)
        residual = total = 0.0
        for _, block in tokens.blocks():
            for rows in row_batches(len(block), sum(weights.encoder.shape)):
                values = as_floats(block[rows])
                _, shift, scale = scale_input(values, weights.input_scaling)
                rebuilt = decode(encode(values, weights), weights) * scale + shift
                residual += float(np.sum((values - rebuilt) ** 2, dtype=np.float64))
                total += float(np.sum((values - mean) ** 2, dtype=np.float64))
        if total == 0:
            return float(residual == 0)
        return 1 - residual / total

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags
