"""What an attribution method by perturbation explains: a function of which tokens are kept."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from skact.arguments import Such
from skact.rows import Array

__all__ = ["A_GAME", "Game", "Remembered"]


class Game(Protocol):
    """A cooperative game whose players are the tokens of one sample.

    Attributes
    ----------
    n_players : int
        Tokens, or groups of them, that can be taken away.
    n_targets : int
        Explained values, one per concept; all come from the same forward passes.
    players : ndarray of shape (n_tokens,), dtype int64
        Player that each token of the sample belongs to; ``arange(n_tokens)`` unless players are
        words, squares of patches or superpixels.
    """

    @property
    def n_players(self) -> int:
        """Tokens, or groups of them, that can be taken away."""

    @property
    def n_targets(self) -> int:
        """Explained values."""

    @property
    def players(self) -> Array:
        """Player of each token."""

    def __call__(self, masks: Array) -> Array:
        """Value of coalitions.

        Parameters
        ----------
        masks : ndarray of shape (n_masks, n_players), dtype bool
            True where the player is kept.

        Returns
        -------
        values : ndarray of shape (n_masks, n_targets), dtype float64
            The same for the same masks; NaN for a target that the sample does not have.
        """


class Remembered:
    """A game that is asked for each coalition once, so that methods share what they ask for.

    Parameters
    ----------
    game : Game
        The game.
    """

    def __init__(self, game: Game) -> None:
        self.game = game
        self.n_players, self.n_targets, self.players = game.n_players, game.n_targets, game.players
        self._values: dict[bytes, Array] = {}

    def __call__(self, masks: Array) -> Array:
        """Value of coalitions, as of the game."""
        keys = [row.tobytes() for row in np.packbits(masks, axis=1)]
        new = {key: i for i, key in enumerate(keys) if key not in self._values}
        if new:
            values = self.game(masks[list(new.values())])
            self._values.update(zip(new, values, strict=True))
        return np.stack([self._values[key] for key in keys])


def _is_game(value: Any) -> bool:
    return callable(value) and hasattr(value, "n_players") and hasattr(value, "n_targets")


#: What a function that explains a game accepts.
A_GAME = Such("a game, callable and with n_players and n_targets", _is_game)
