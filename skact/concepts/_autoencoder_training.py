"""Training of sparse autoencoders, in torch.

Minibatches are gathered from the tokens as they lie; only the minibatch is centred, scaled and
turned into float32. Tokens that take more than half of scikit-learn's ``working_memory`` are read
in blocks, made of runs of samples in random order, and shuffled within a block. Weights live in the
scaled units while they train and are folded back into the tokens' own units at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.utils import gen_batches
from tqdm import tqdm

from skact.concepts._autoencoder_weights import Activation, AutoencoderWeights
from skact.concepts._callbacks import Report
from skact.concepts._statistics import shuffled_runs, token_mean
from skact.concepts._stopping import count_stagnant
from skact.rows import Array, may_hold
from skact.tokens import TokenArray

__all__ = ["Recipe", "TrainingResult", "TrainingState", "train"]


@dataclass(frozen=True)
class Recipe:
    """Settings of :func:`train`; see SparseAutoencoder for their meaning."""

    n_concepts: int
    activation: Activation
    k: int
    l1: float
    l0: float
    threshold: float
    bandwidth: float
    learning_rate: float
    batch_size: int
    max_epochs: int
    tol: float
    patience: int
    resample_dead: int | None
    device: str
    progress: bool


@dataclass(frozen=True)
class TrainingResult:
    """Weights in the units of the tokens, the loss of each epoch, and the units that are dead."""

    weights: AutoencoderWeights
    loss_curve: Array
    n_dead: int
    state: TrainingState


@dataclass(frozen=True)
class TrainingState:
    """What training goes on from, besides the weights: the scaling, and what Adam remembers."""

    mean: Array
    scale: float
    moments: list[tuple[float, Array, Array]]


def train(
    tokens: TokenArray,
    recipe: Recipe,
    random: np.random.RandomState,
    *,
    weights: AutoencoderWeights | None = None,
    state: TrainingState | None = None,
    report: Report | None = None,
) -> TrainingResult:
    """Train an autoencoder.

    Parameters
    ----------
    tokens : TokenArray of shape (n_samples, n_features)
        Training tokens.
    recipe : Recipe
        Settings.
    random : RandomState
        Draws initial directions, orders and tokens of new starts.
    weights : AutoencoderWeights, default=None
        Where to begin; None draws them.
    state : TrainingState, default=None
        What was left by the training that ended with these weights.
    report : callable, default=None
        Called after each epoch with what gives the weights; tells whether to stop.

    Returns
    -------
    result : TrainingResult
        Weights after the last epoch.

    Raises
    ------
    ValueError
        If the loss is not finite.
    """
    rows = ScaledRows(tokens, recipe.device, state)
    model = Autoencoder(tokens.n_features, recipe, random)
    if weights is not None:
        rows.scale_into(model, weights)
    if state is not None:
        model.remember(state.moments)
    losses: list[float] = []
    best, n_stagnant = np.inf, 0
    fired = np.zeros(recipe.n_concepts, dtype=bool)
    with tqdm(total=recipe.max_epochs, disable=not recipe.progress, unit="epoch") as bar:
        for epoch in range(1, recipe.max_epochs + 1):
            loss, fired = _epoch(model, rows, recipe.batch_size, random)
            if not np.isfinite(loss):
                raise ValueError(
                    f"the loss is {loss} after epoch {epoch}; lower learning_rate="
                    f"{recipe.learning_rate}."
                )
            losses.append(loss)
            bar.update()
            bar.set_postfix(loss=f"{loss:.4g}", dead=int((~fired).sum()))
            best, n_stagnant = count_stagnant(loss, best, n_stagnant, recipe.tol)
            stopped = report is not None and report(partial(rows.unscaled, model))
            if stopped or n_stagnant >= recipe.patience or epoch == recipe.max_epochs:
                break
            if recipe.resample_dead and epoch % recipe.resample_dead == 0 and not fired.all():
                _restart_dead(model, rows, ~fired, recipe, random)
    return TrainingResult(
        rows.unscaled(model),
        np.array(losses),
        int((~fired).sum()),
        TrainingState(rows.mean, rows.scale, model.memory()),
    )


class ScaledRows:
    """Tokens, centred and divided by one scalar a minibatch at a time."""

    def __init__(self, tokens: TokenArray, device: str, state: TrainingState | None) -> None:
        self.tokens = tokens
        self.held = may_hold(4 * tokens.n_tokens * tokens.n_features)
        self.values = tokens.flat() if self.held else None
        self.n_rows = tokens.n_tokens
        self.device = device
        if state is not None:
            self.mean, self.scale = state.mean, state.scale
            return
        mean = token_mean(tokens)
        square = 0.0
        for values in tokens.float_chunks():
            square += float(np.sum((values - mean) ** 2))
        self.mean = mean.astype(np.float32)
        self.scale = float(np.sqrt(square / self.n_rows)) or 1.0

    def batch(self, positions: Array) -> torch.Tensor:
        """Scaled tokens at some of the positions 0 ... n_rows - 1."""
        # In ascending order a mapped file is read forwards.
        positions = np.sort(positions)
        if self.values is None:
            return self._scaled(self.tokens.rows(positions))
        return self._scaled(self.values[positions])

    def epoch(self, batch_size: int, random: np.random.RandomState) -> Iterator[torch.Tensor]:
        """All tokens in minibatches, in an order drawn anew."""
        if self.held:
            order = random.permutation(self.n_rows)
            for batch in gen_batches(self.n_rows, batch_size):
                yield self.batch(order[batch])
            return
        for _, block in self.tokens[shuffled_runs(self.tokens, random)].blocks():
            order = random.permutation(len(block))
            for batch in gen_batches(len(block), batch_size):
                yield self._scaled(block[np.sort(order[batch])])

    def _scaled(self, rows: Array) -> torch.Tensor:
        values = np.array(rows, dtype=np.float32)
        values -= self.mean
        values /= self.scale
        return torch.from_numpy(values).to(self.device)

    def scale_into(self, model: Autoencoder, weights: AutoencoderWeights) -> None:
        """Set a model to weights in the units of the tokens; undoes ``unscaled``."""
        values = {
            "encoder": weights.encoder,
            "encoder_bias": weights.encoder_bias / self.scale,
            "decoder": weights.decoder,
            "decoder_bias": (weights.decoder_bias - self.mean) / self.scale,
        }
        if weights.threshold is not None:
            values["log_threshold"] = np.log(weights.threshold / self.scale)
        with torch.no_grad():
            for name, value in values.items():
                getattr(model, name).copy_(torch.from_numpy(np.ascontiguousarray(value)))

    def unscaled(self, model: Autoencoder) -> AutoencoderWeights:
        """Fold mean and scale into the weights; decoder rows keep their norm."""

        def array(tensor: torch.Tensor, scale: float = 1.0) -> Array:
            return tensor.detach().cpu().numpy().astype(np.float32) * np.float32(scale)

        jump = model.activation == "jumprelu"
        return AutoencoderWeights(
            encoder=array(model.encoder),
            encoder_bias=array(model.encoder_bias, self.scale),
            decoder=array(model.decoder),
            decoder_bias=array(model.decoder_bias, self.scale) + self.mean,
            activation=model.activation,
            k=model.k if model.activation == "topk" else None,
            threshold=array(model.log_threshold.exp(), self.scale) if jump else None,
        )


class Autoencoder:
    """Weights, their loss, and steps of Adam on them."""

    def __init__(self, n_features: int, recipe: Recipe, random: np.random.RandomState) -> None:
        n_units = recipe.n_concepts
        self.activation, self.k = recipe.activation, recipe.k
        self.l1, self.l0, self.bandwidth = recipe.l1, recipe.l0, recipe.bandwidth
        directions = random.normal(size=(n_units, n_features))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)

        def parameter(values: Array) -> torch.Tensor:
            tensor = torch.tensor(values, dtype=torch.float32, device=recipe.device)
            return tensor.requires_grad_()

        self.decoder = parameter(directions)
        self.encoder = parameter(np.ascontiguousarray(directions.T))
        self.encoder_bias = parameter(np.zeros(n_units))
        self.decoder_bias = parameter(np.zeros(n_features))
        self.log_threshold = parameter(np.full(n_units, np.log(recipe.threshold)))
        self.initial_log_threshold = float(np.log(recipe.threshold))
        self.optimizer = torch.optim.Adam(self.parameters(), lr=recipe.learning_rate)

    def parameters(self) -> list[torch.Tensor]:
        weights = [self.encoder, self.encoder_bias, self.decoder, self.decoder_bias]
        return [*weights, self.log_threshold] if self.activation == "jumprelu" else weights

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Activations, and the penalty of each token."""
        pre = (x - self.decoder_bias) @ self.encoder + self.encoder_bias
        if self.activation == "topk":
            top = pre.topk(self.k, dim=1)
            f = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
            return f, torch.zeros(len(x), device=x.device)
        if self.activation == "jumprelu":
            threshold = self.log_threshold.exp()
            f = _jumprelu(pre, threshold, self.bandwidth)
            return f, self.l0 * _step(pre, threshold, self.bandwidth).sum(dim=1)
        f = pre.relu()
        return f, self.l1 * f.sum(dim=1)

    def losses(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Loss of each token, activations, and residuals."""
        f, penalty = self.encode(x)
        residual = x - (f @ self.decoder + self.decoder_bias)
        return residual.square().sum(dim=1) + penalty, f, residual

    def step(self, x: torch.Tensor) -> tuple[float, torch.Tensor]:
        """One step of Adam; the summed loss before it, and which units fired."""
        with torch.enable_grad():
            losses, f, _ = self.losses(x)
            self.optimizer.zero_grad()
            torch.autograd.backward(losses.mean())
        with torch.no_grad():
            # Only the part of the gradient that turns the rows; their norm stays 1.
            gradient = self.decoder.grad
            assert gradient is not None
            gradient -= (gradient * self.decoder).sum(dim=1, keepdim=True) * self.decoder
            self.optimizer.step()
            self.decoder /= self.decoder.norm(dim=1, keepdim=True)
            return float(losses.sum()), (f > 0).any(dim=0)

    def memory(self) -> list[tuple[float, Array, Array]]:
        """Return what Adam remembers of each parameter."""
        states = [self.optimizer.state[parameter] for parameter in self.parameters()]
        return [
            (
                float(state["step"]),
                state["exp_avg"].cpu().numpy(),
                state["exp_avg_sq"].cpu().numpy(),
            )
            for state in states
        ]

    def remember(self, moments: list[tuple[float, Array, Array]]) -> None:
        """Let Adam go on from what another one remembered."""
        for parameter, (step, first, second) in zip(self.parameters(), moments, strict=True):
            self.optimizer.state[parameter] = {
                "step": torch.tensor(step),
                "exp_avg": torch.tensor(first, device=parameter.device),
                "exp_avg_sq": torch.tensor(second, device=parameter.device),
            }

    @torch.no_grad()
    def restart(self, units: torch.Tensor, directions: torch.Tensor, norm: float) -> None:
        """Give some units new directions and forget what Adam knows of them."""
        self.decoder[units] = directions
        self.encoder[:, units] = norm * directions.T
        self.encoder_bias[units] = 0
        self.log_threshold[units] = self.initial_log_threshold
        for parameter in self.parameters():
            if parameter is self.decoder_bias:
                continue
            for moment in ("exp_avg", "exp_avg_sq"):
                state = self.optimizer.state[parameter][moment]
                by_unit = state.T if parameter is self.encoder else state
                by_unit[units] = 0


def _epoch(
    model: Autoencoder, rows: ScaledRows, batch_size: int, random: np.random.RandomState
) -> tuple[float, Array]:
    """Pass over all tokens once; the mean loss, and which units fired."""
    total = 0.0
    fired = torch.zeros(len(model.decoder), dtype=torch.bool, device=rows.device)
    for batch in rows.epoch(batch_size, random):
        loss, active = model.step(batch)
        total += loss
        fired |= active
    return total / rows.n_rows, fired.cpu().numpy()


@torch.no_grad()
def _restart_dead(
    model: Autoencoder,
    rows: ScaledRows,
    dead: Array,
    recipe: Recipe,
    random: np.random.RandomState,
) -> None:
    """Start dead units anew at residuals of tokens drawn by their squared loss.

    In ReLU autoencoders the new encoder columns have a fifth of the mean norm of the living, so
    that they disturb little. Where units must win against the living, or pass a threshold, they
    have the whole of it.
    """
    units = np.flatnonzero(dead)
    n_candidates = min(rows.n_rows, max(4 * len(units), 8 * recipe.batch_size))
    candidates = random.choice(rows.n_rows, n_candidates, replace=False)
    losses, residuals = [], []
    for start in range(0, n_candidates, recipe.batch_size):
        loss, _, residual = model.losses(rows.batch(candidates[start : start + recipe.batch_size]))
        losses.append(loss.cpu().numpy().astype(np.float64))
        residuals.append(residual)
    weight = np.concatenate(losses) ** 2 * (torch.cat(residuals).norm(dim=1) > 0).cpu().numpy()
    n_drawn = min(len(units), int(np.count_nonzero(weight)))
    if n_drawn == 0:
        return
    drawn = random.choice(n_candidates, n_drawn, replace=False, p=weight / weight.sum())
    directions = torch.cat(residuals)[torch.from_numpy(drawn)]
    directions /= directions.norm(dim=1, keepdim=True)
    living = model.encoder[:, torch.from_numpy(~dead)].norm(dim=0)
    norm = float(living.mean()) if len(living) else 1.0
    share = 0.2 if recipe.activation == "relu" else 1.0
    model.restart(torch.from_numpy(units[:n_drawn]), directions, share * norm)


def _near(pre: torch.Tensor, threshold: torch.Tensor, bandwidth: float) -> torch.Tensor:
    """Rectangle kernel: 1 within half a bandwidth of the threshold."""
    return ((pre - threshold).abs() < bandwidth / 2).to(pre.dtype)


class _JumpReLU(torch.autograd.Function):
    """Pre-activations above the threshold; its pseudo-derivative is -threshold / bandwidth."""

    @staticmethod
    def forward(ctx: Any, pre: Any, threshold: Any, bandwidth: float) -> Any:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return pre * (pre > threshold)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        pre, threshold = ctx.saved_tensors
        near = _near(pre, threshold, ctx.bandwidth)
        to_threshold = -(threshold / ctx.bandwidth) * (near * gradient).sum(dim=0)
        return gradient * (pre > threshold), to_threshold, None


class _Step(torch.autograd.Function):
    """1 above the threshold; its pseudo-derivative by the threshold is -1 / bandwidth."""

    @staticmethod
    def forward(ctx: Any, pre: Any, threshold: Any, bandwidth: float) -> Any:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return (pre > threshold).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        pre, threshold = ctx.saved_tensors
        near = _near(pre, threshold, ctx.bandwidth)
        return None, -(near * gradient).sum(dim=0) / ctx.bandwidth, None


# torch leaves `apply` without types.
_jumprelu: Any = _JumpReLU.apply
_step: Any = _Step.apply
