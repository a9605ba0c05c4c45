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

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import gen_batches
from tqdm import tqdm

from skact.concepts._autoencoder_model import Architecture, Autoencoder
from skact.concepts._autoencoder_recipe import AutoencoderTraining, TrainingState
from skact.concepts._autoencoder_weights import AutoencoderWeights
from skact.concepts._callbacks import Report
from skact.concepts._statistics import shuffled_runs, token_mean
from skact.concepts._stopping import count_stagnant
from skact.models import check_device
from skact.rows import Array
from skact.tokens import TokenArray
from skact.warning import warn

__all__ = ["TrainingResult", "train"]


@dataclass(frozen=True)
class TrainingResult:
    """Weights in the units of the tokens, the loss of each epoch, and the units that are dead."""

    weights: AutoencoderWeights
    loss_curve: Array
    n_dead: int
    state: TrainingState


def train(
    tokens: TokenArray,
    architecture: Architecture,
    training: AutoencoderTraining,
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
    architecture : Architecture
        What is trained.
    training : AutoencoderTraining
        How it is trained.
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
    check_device(training.device)
    rows = ScaledRows(tokens, training.device, state)
    model = Autoencoder(tokens.n_features, architecture, training, random)
    if weights is not None:
        rows.scale_into(model, weights)
    if state is not None:
        model.remember(state.moments)
    losses: list[float] = []
    best, n_stagnant = np.inf, 0
    fired = np.zeros(architecture.n_concepts, dtype=bool)
    with tqdm(total=training.max_epochs, disable=not training.progress, unit="epoch") as bar:
        for epoch in range(1, training.max_epochs + 1):
            loss, fired = _epoch(model, rows, training.batch_size, random)
            if not np.isfinite(loss):
                raise ValueError(
                    f"the loss is {loss} after epoch {epoch}; lower learning_rate="
                    f"{training.learning_rate}."
                )
            losses.append(loss)
            bar.update()
            bar.set_postfix(loss=f"{loss:.4g}", dead=int((~fired).sum()))
            best, n_stagnant = count_stagnant(loss, best, n_stagnant, training.tol)
            stopped = report is not None and report(partial(rows.unscaled, model))
            if stopped or n_stagnant >= training.patience:
                break
            if epoch == training.max_epochs:
                _warn_not_converged(training, losses)
                break
            if training.resample_dead and epoch % training.resample_dead == 0 and not fired.all():
                _restart_dead(model, rows, ~fired, training, random)
    return TrainingResult(
        rows.unscaled(model),
        np.array(losses),
        int((~fired).sum()),
        TrainingState(rows.mean, rows.scale, model.memory()),
    )


def _warn_not_converged(training: AutoencoderTraining, losses: list[float]) -> None:
    """Say that training ended before its loss did, where there was room for it to end."""
    if training.max_epochs > training.patience:
        warn(
            f"the autoencoder did not converge in max_epochs={training.max_epochs}: its loss still "
            f"fell, from {losses[-training.patience - 1]:.4g} to {losses[-1]:.4g} in the last "
            f"{training.patience} epochs.",
            ConvergenceWarning,
        )


class ScaledRows:
    """Tokens, centred and divided by one scalar a minibatch at a time."""

    def __init__(self, tokens: TokenArray, device: str, state: TrainingState | None) -> None:
        self.tokens = tokens
        self.held = tokens.may_be_held
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
    training: AutoencoderTraining,
    random: np.random.RandomState,
) -> None:
    """Start dead units anew at residuals of tokens drawn by their squared loss.

    In ReLU autoencoders the new encoder columns have a fifth of the mean norm of the living, so
    that they disturb little. Where units must win against the living, or pass a threshold, they
    have the whole of it.
    """
    units = np.flatnonzero(dead)
    n_candidates = min(rows.n_rows, max(4 * len(units), 8 * training.batch_size))
    candidates = random.choice(rows.n_rows, n_candidates, replace=False)
    losses, residuals = [], []
    for start in range(0, n_candidates, training.batch_size):
        loss, _, residual = model.losses(
            rows.batch(candidates[start : start + training.batch_size])
        )
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
    share = 0.2 if model.activation == "relu" else 1.0
    model.restart(torch.from_numpy(units[:n_drawn]), directions, share * norm)
