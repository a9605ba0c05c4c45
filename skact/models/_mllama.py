"""The image side of Llama-3.2-Vision (Mllama), made to look like any vision transformer.

The model reads an image as up to four tiles, and its processor cuts large images into that many.
Here each image is fitted into the first tile: aspect ratio kept, padded on the right and below.
The other tiles stay empty and masked, as the processor leaves them for a small image. They still
have to run: the attention mask of this model only parts empty positions from each other, so the
first tile sees them.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from skact.models._hooks import hooked

__all__ = ["FirstTile", "FirstTileProcessor"]


class FirstTile(nn.Module):
    """The vision model, for images of one tile.

    Parameters
    ----------
    vision : MllamaVisionModel
        The model; shared, not copied.

    Attributes
    ----------
    blocks : ModuleList
        The local blocks, then the global ones.
    n_read : int
        Positions of the first tile, which come first in the output of a block: CLS and patches.
        Those that fill the tile up to a multiple of eight, and the other tiles, follow.
    """

    def __init__(self, vision: Any) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([*vision.transformer.layers, *vision.global_transformer.layers])
        self.vision = vision
        self.config = vision.config
        self.n_read = int(vision.num_patches)

    def forward(
        self,
        pixel_values: Tensor,
        output_hidden_states: bool = False,
        return_dict: bool = True,
    ) -> SimpleNamespace:
        """Run the model.

        Parameters
        ----------
        pixel_values : Tensor of shape (n_samples, n_channels, height, width)
            One tile each.
        output_hidden_states : bool, default=False
            Whether to return what both encoders report after each block, in the first tile; an
            entry before them stands for their input.
        return_dict : bool, default=True
            Not used.

        Returns
        -------
        output : namespace
            With ``hidden_states``.
        """
        n_samples, device = len(pixel_values), pixel_values.device
        tiles = pixel_values.new_zeros(
            n_samples, 1, self.config.max_num_tiles, *pixel_values.shape[1:]
        )
        tiles[:, 0, 0] = pixel_values
        mask = torch.zeros(tiles.shape[:3], dtype=torch.long, device=device)
        mask[:, :, 0] = 1
        ratio = [list(r) for r in self.config.supported_aspect_ratios].index([1, 1]) + 1
        reported: list[Tensor] = []
        encoders = (self.vision.transformer, self.vision.global_transformer)
        readers = [(one, lambda m, a, output: reported.extend(output[1])) for one in encoders]
        with hooked(self, readers if output_hidden_states else ()):
            self.vision(
                pixel_values=tiles,
                aspect_ratio_ids=torch.full((n_samples, 1), ratio, device=device),
                aspect_ratio_mask=mask,
            )
        return SimpleNamespace(hidden_states=(None, *(s[:, : self.n_read] for s in reported)))


class FirstTileProcessor:
    """An image processor that cuts into tiles, told to use one.

    Parameters
    ----------
    processor : MllamaImageProcessor
        Left as it is; all its settings show through.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, images: Any, **options: Any) -> dict[str, Any]:
        """Process images, as ``pixel_values`` of shape (n_samples, n_channels, height, width)."""
        # One list per sample; a flat list would be one sample of many images.
        rows = [[image] for image in images]
        pixels = self.processor(images=rows, max_image_tiles=1, **options)["pixel_values"]
        return {"pixel_values": pixels[:, 0, 0]}

    def __getattr__(self, name: str) -> Any:
        if name == "processor":  # not there yet while it is copied or unpickled
            raise AttributeError(name)
        return getattr(self.processor, name)
