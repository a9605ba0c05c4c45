"""Sparse autoencoders in torch: weights, loss, and steps of Adam."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from skact.concepts._autoencoder_recipe import AutoencoderTraining
from skact.concepts._autoencoder_weights import Activation
from skact.rows import Array

__all__ = ["Architecture", "Autoencoder"]


@dataclass(frozen=True)
class Architecture:
    """Units, activation and penalty; see SparseAutoencoder for their meaning."""

    n_concepts: int
    activation: Activation
    k: int
    l1: float
    l0: float
    afa: float
    threshold: float
    bandwidth: float


class Autoencoder:
    """Weights, their loss, and steps of Adam on them."""

    def __init__(
        self,
        n_features: int,
        architecture: Architecture,
        training: AutoencoderTraining,
        random: np.random.RandomState,
    ) -> None:
        n_units = architecture.n_concepts
        self.activation, self.k = architecture.activation, architecture.k
        self.l1, self.l0, self.afa = architecture.l1, architecture.l0, architecture.afa
        self.bandwidth = architecture.bandwidth
        directions = random.normal(size=(n_units, n_features))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)

        def parameter(values: Array) -> torch.Tensor:
            tensor = torch.tensor(values, dtype=torch.float32, device=training.device)
            return tensor.requires_grad_()

        self.decoder = parameter(directions)
        self.encoder = parameter(np.ascontiguousarray(directions.T))
        self.encoder_bias = parameter(np.zeros(n_units))
        self.decoder_bias = parameter(np.zeros(n_features))
        self.log_threshold = parameter(np.full(n_units, np.log(architecture.threshold)))
        self.initial_log_threshold = float(np.log(architecture.threshold))
        self.optimizer = torch.optim.Adam(self.parameters(), lr=training.learning_rate)

    def parameters(self) -> list[torch.Tensor]:
        weights = [self.encoder, self.encoder_bias, self.decoder, self.decoder_bias]
        return [*weights, self.log_threshold] if self.activation == "jumprelu" else weights

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Activations, and the penalty of each token."""
        centred = x - self.decoder_bias
        pre = centred @ self.encoder + self.encoder_bias
        if self.activation == "topk":
            top = pre.topk(self.k, dim=1)
            f = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
            return f, torch.zeros(len(x), device=x.device)
        if self.activation == "jumprelu":
            threshold = self.log_threshold.exp()
            f = _jumprelu(pre, threshold, self.bandwidth)
            return f, self.l0 * _step(pre, threshold, self.bandwidth).sum(dim=1)
        if self.activation == "afa":
            wanted = centred.norm(dim=1)
            f = _to_norm(pre.relu(), wanted)
            return f, self.afa * (f.norm(dim=1) - wanted).square()
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


def _to_norm(f: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Keep the largest activations of each token, as many as come nearest to its norm."""
    sizes, units = f.detach().sort(dim=1, descending=True, stable=True)
    norms = sizes.square().cumsum(dim=1).sqrt()
    n_kept = (norms - wanted.detach()[:, None]).abs().argmin(dim=1, keepdim=True) + 1
    kept = torch.arange(f.shape[1], device=f.device) < n_kept
    return f * torch.zeros_like(f).scatter(1, units, kept.to(f.dtype))


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
