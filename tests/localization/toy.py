"""The toy model of the reference numbers: each patch through one layer, mixed with the mean."""

import numpy as np
import torch


class Toy:
    """z_i = h_i + mean(h) / 2, h = tanh((x - 1/2) W + b); g is the mean cosine with a target."""

    def __init__(self, data):
        self.x = torch.tensor(data["in_x"][0], dtype=torch.float64)
        self.weight = torch.tensor(data["in_W"], dtype=torch.float64)
        self.bias = torch.tensor(data["in_b"], dtype=torch.float64)
        self.targets = torch.tensor(data["in_targets"], dtype=torch.float64)
        self.c = int(data["in_c"])

    def tokens(self, x):
        hidden = torch.tanh((x - 0.5) @ self.weight + self.bias)
        return hidden + hidden.mean(dim=-2, keepdim=True) / 2

    def cosine(self, x):
        unit = torch.nn.functional.normalize(self.targets, dim=1)
        return (torch.nn.functional.normalize(self.tokens(x), dim=-1) @ unit.T).mean(dim=-2)

    def product(self, x):
        return (self.tokens(x) @ self.targets.T).mean(dim=-2)

    def game(self, baseline=0.0):
        toy = self

        class Game:
            n_players, n_targets, players = len(toy.x), len(toy.targets), np.arange(len(toy.x))

            def __call__(self, masks):
                kept = torch.from_numpy(masks)[:, :, None]
                return toy.cosine(torch.where(kept, toy.x, baseline)).numpy()

        return Game()
