"""One coloured solid per image: the simplest scene in which a concept has a place.

CLEVR [1]_ scenes hold several solids with free colours, shapes and materials. The setting here is
its single-object case: one object per image, three colours times three shapes, so that every image
carries exactly two concepts and both are in the same, known pixels.

The solids are ray-cast. With an orthographic camera a pixel at ``(u, v)`` looks along the ray
``o + t d`` with ``o = u e_right + v e_up``; sphere, box and cylinder have closed-form first hits,
and the surface normal ``n`` there gives Lambert shading ``a + (1 - a) max(0, <n, l>)`` plus a small
white highlight. Several rays per pixel give the anti-aliased rim.

References
----------
.. [1] J. Johnson, B. Hariharan, L. van der Maaten, L. Fei-Fei, C. L. Zitnick and R. Girshick,
   "CLEVR: A Diagnostic Dataset for Compositional Language and Elementary Visual Reasoning",
   CVPR 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from sklearn.utils import Bunch, check_random_state

from skact.arguments import Number, checked

FloatArray: TypeAlias = npt.NDArray[np.float64]

_COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.82, 0.15, 0.13),
    "green": (0.16, 0.66, 0.20),
    "blue": (0.16, 0.28, 0.86),
}
_RAYS_PER_SIDE = 4
_AMBIENT = 0.35
_HIGHLIGHT = 0.2
_SMALLEST_IMAGE = 16
_SMALLEST_OBJECT = 4.0

_DESCR = """\
Coloured solids, one per image
------------------------------
Drawn by `skact.datasets.make_shapes`.

Every image shows one solid (cube, cylinder or sphere) in one colour (red, green or blue) at a
random place and in a random size on a grey background. The nine combinations are dealt in shuffled
rounds of nine. `data` are RGB images, `masks` the pixels of the object, once under its colour and
once under its shape, and `target` says which two of the six concepts an image carries.
"""


@checked(
    n_samples=[Number(Integral, 1, None, closed="left")],
    image_size=[Number(Integral, _SMALLEST_IMAGE, None, closed="left")],
    min_size=[Number(Real, 0, 1, closed="right")],
    max_size=[Number(Real, 0, 1, closed="right")],
    noise=[Number(Real, 0, None, closed="left")],
    random_state=["random_state"],
)
def make_shapes(
    n_samples: int = 90,
    *,
    image_size: int = 64,
    min_size: float = 0.35,
    max_size: float = 0.7,
    noise: float = 0.02,
    random_state: int | np.random.RandomState | None = None,
) -> Bunch:
    """Draw images of one coloured solid each, with the pixels of every concept.

    Colour (red, green, blue) and shape (cube, cylinder, sphere) are combined freely. The nine
    combinations are dealt in shuffled rounds: samples 0 to 8 hold each combination once, so do
    samples 9 to 17, and so on.

    Parameters
    ----------
    n_samples : int, default=90
        Number of images, at least 1.
    image_size : int, default=64
        Height and width of an image in pixels, at least 16.
    min_size, max_size : float, default=0.35 and 0.7
        Smallest and largest diameter of an object, as a fraction of the image's side:
        ``0 < min_size <= max_size <= 1``. The diameter is that of the circle in which the object
        fits; it has to be at least 4 pixels. Objects are never cut off.
    noise : float, default=0.02
        Standard deviation of the Gaussian noise added to every pixel and channel, where 1 is the
        way from black to white.
    random_state : int, RandomState instance or None, default=None
        Seed of all random choices. An int gives the same images on every call.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        With the attributes

        data : list of PIL.Image.Image
            `n_samples` RGB images of ``(image_size, image_size)`` pixels.
        masks : list of ndarray of shape (image_size, image_size, 6), dtype bool
            Pixels of each concept. A pixel belongs to the object if at least half of it is covered.
        target : ndarray of shape (n_samples, 6), dtype int64
            1 where an image carries the concept: one colour and one shape per row.
        target_names : list of str
            ``["red", "green", "blue", "cube", "cylinder", "sphere"]``.
        DESCR : str
            What the data are.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    TypeError
        If a parameter is not a number of the right kind.

    References
    ----------
    .. [1] J. Johnson et al., "CLEVR: A Diagnostic Dataset for Compositional Language and Elementary
       Visual Reasoning", CVPR 2017.

    Examples
    --------
    >>> from skact.datasets import make_shapes
    >>> shapes = make_shapes(9, image_size=32, random_state=0)
    >>> shapes.data[0].size, shapes.masks[0].shape
    ((32, 32), (32, 32, 6))
    >>> shapes.target.sum(axis=0)
    array([3, 3, 3, 3, 3, 3])
    """
    from PIL import Image

    _check_sizes(image_size, min_size, max_size)
    rng = check_random_state(random_state)
    n_colours, n_solids = len(_COLOURS), len(_SOLIDS)
    combinations = deal(n_samples, n_colours * n_solids, rng)
    colours, solids = np.divmod(combinations, n_solids)

    target = np.zeros((n_samples, n_colours + n_solids), dtype=np.int64)
    target[np.arange(n_samples), colours] = 1
    target[np.arange(n_samples), n_colours + solids] = 1

    images, masks = [], []
    for colour, solid, row in zip(colours, solids, target.astype(bool), strict=True):
        diameter = image_size * rng.uniform(min_size, max_size)
        picture, cover = _scene(
            list(_SOLIDS)[solid], list(_COLOURS.values())[colour], image_size, diameter, rng
        )
        picture += rng.normal(0.0, noise, picture.shape)
        images.append(Image.fromarray(np.rint(picture.clip(0, 1) * 255).astype(np.uint8)))
        masks.append((cover >= 0.5)[:, :, None] & row)
    return Bunch(
        data=images,
        masks=masks,
        target=target,
        target_names=[*_COLOURS, *_SOLIDS],
        DESCR=_DESCR,
    )


def shapes_model_path() -> str:
    """Return the folder of the small vision transformer that is shipped with the package.

    The model is a ViT [1]_ with 6 blocks, 4 heads, 64 features and patches of 8 x 8 pixels, trained
    from scratch on `make_shapes` images by ``benchmarks/train_shapes_vit.py``. It is small enough
    to show and test every step on images without any download.

    Returns
    -------
    path : str
        Folder with ``config.json``, ``model.safetensors`` and ``preprocessor_config.json``, as
        ``transformers.AutoModel.from_pretrained`` and
        ``transformers.AutoImageProcessor.from_pretrained`` read it.

    Raises
    ------
    FileNotFoundError
        If the installed package lacks the model's files.

    References
    ----------
    .. [1] A. Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition
       at Scale", ICLR 2021.

    Examples
    --------
    >>> import os
    >>> from skact.datasets import shapes_model_path
    >>> sorted(os.listdir(shapes_model_path()))
    ['config.json', 'model.safetensors', 'preprocessor_config.json']
    """
    folder = Path(__file__).resolve().parent / "shapes_vit"
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"The package lacks {folder / name}; install it again, or make the model with "
                f"benchmarks/train_shapes_vit.py."
            )
    return str(folder)


def _check_sizes(image_size: int, min_size: float, max_size: float) -> None:
    if min_size > max_size:
        raise ValueError(f"min_size={min_size!r} must not be larger than max_size={max_size!r}.")
    if min_size * image_size < _SMALLEST_OBJECT:
        raise ValueError(
            f"min_size={min_size!r} of image_size={image_size!r} is {min_size * image_size:.3g} "
            f"pixels; an object needs at least {_SMALLEST_OBJECT:g}."
        )


def deal(n_samples: int, n_cards: int, rng: np.random.RandomState) -> npt.NDArray[np.int64]:
    """Deal `n_cards` different cards in shuffled rounds until every sample has one."""
    n_rounds = -(-n_samples // n_cards)
    rounds = [rng.permutation(n_cards) for _ in range(n_rounds)]
    return np.concatenate(rounds)[:n_samples].astype(np.int64)


def _scene(
    solid: str,
    colour: tuple[float, float, float],
    image_size: int,
    diameter: float,
    rng: np.random.RandomState,
) -> tuple[FloatArray, FloatArray]:
    """Draw one noise-free picture (H, W, 3) and the object's cover (H, W), both in [0, 1]."""
    picture = _background(image_size, rng)
    centre = rng.uniform(diameter / 2, image_size - diameter / 2, size=2)
    tint = np.clip(np.asarray(colour) + rng.uniform(-0.05, 0.05, size=3), 0, 1)

    # Only the pixels around the object are ray-cast: the rest is background anyway.
    first = np.floor(centre - diameter / 2).astype(int).clip(0, image_size)
    last = np.ceil(centre + diameter / 2).astype(int).clip(0, image_size)
    shaded, hit = _cast(solid, tint, first, last, centre, diameter / 2, rng)

    cover = np.zeros((image_size, image_size))
    window = (slice(first[0], last[0]), slice(first[1], last[1]))
    cover[window] = hit
    picture[window] = picture[window] * (1 - hit[:, :, None]) + shaded
    return picture, cover


def _background(image_size: int, rng: np.random.RandomState) -> FloatArray:
    """Return a grey picture whose brightness rises slightly in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    slope = rng.uniform(0.02, 0.15)
    level = rng.uniform(0.42, 0.58)
    across = np.linspace(-0.5, 0.5, image_size)
    grey = level + slope * (np.cos(angle) * across[None, :] + np.sin(angle) * across[:, None])
    return np.repeat(grey[:, :, None], 3, axis=2)


def _cast(
    solid: str,
    tint: FloatArray,
    first: npt.NDArray[np.int64],
    last: npt.NDArray[np.int64],
    centre: FloatArray,
    radius: float,
    rng: np.random.RandomState,
) -> tuple[FloatArray, FloatArray]:
    """Ray-cast a window: light times cover, (h, w, 3), and cover, (h, w)."""
    elevation = np.deg2rad(rng.uniform(25, 40))
    # A box turned by 20 to 70 degrees shows three faces.
    turn = np.deg2rad(rng.uniform(20, 70))
    forward = np.array([0.0, np.cos(elevation), -np.sin(elevation)])
    upward = np.array([0.0, np.sin(elevation), np.cos(elevation)])
    light = np.array([-0.55, -0.6, 0.8]) + rng.uniform(-0.08, 0.08, size=3)
    light /= np.linalg.norm(light)

    n_rays = _RAYS_PER_SIDE
    rows = first[0] + (np.arange((last[0] - first[0]) * n_rays) + 0.5) / n_rays
    columns = first[1] + (np.arange((last[1] - first[1]) * n_rays) + 0.5) / n_rays
    v, u = np.meshgrid((centre[0] - rows) / radius, (columns - centre[1]) / radius, indexing="ij")
    origins = u[:, :, None] * np.array([1.0, 0.0, 0.0]) + v[:, :, None] * upward

    into = np.array(
        [[np.cos(turn), np.sin(turn), 0], [-np.sin(turn), np.cos(turn), 0], [0, 0, 1.0]]
    )
    normals = _SOLIDS[solid](origins @ into.T, into @ forward) @ into
    hit = normals.any(axis=2)

    lambert = _AMBIENT + (1 - _AMBIENT) * np.maximum(normals @ light, 0)
    halfway = light - forward
    halfway /= np.linalg.norm(halfway)
    highlight = _HIGHLIGHT * np.maximum(normals @ halfway, 0) ** 40
    shaded = (lambert[:, :, None] * tint + highlight[:, :, None]).clip(0, 1) * hit[:, :, None]
    return _average(shaded, n_rays), _average(hit[:, :, None].astype(float), n_rays)[:, :, 0]


def _average(fine: FloatArray, n_rays: int) -> FloatArray:
    height, width, n_channels = fine.shape
    blocks = fine.reshape(height // n_rays, n_rays, width // n_rays, n_rays, n_channels)
    return np.asarray(blocks.mean(axis=(1, 3)))


# Each solid fits into the unit ball. Its function takes ray origins (h, w, 3) and a direction (3,)
# and returns the outer unit normal where a ray first meets the solid, zero where it misses.


def _sphere_normals(origins: FloatArray, direction: FloatArray) -> FloatArray:
    along = origins @ direction
    inside = along**2 - (origins**2).sum(axis=2) + 1
    hit = inside > 0
    first = -along - np.sqrt(np.where(hit, inside, 0))
    return (origins + first[:, :, None] * direction) * hit[:, :, None]


def _cube_normals(origins: FloatArray, direction: FloatArray) -> FloatArray:
    half = 1 / np.sqrt(3)
    enter = (-half * np.sign(direction) - origins) / direction
    leave = (half * np.sign(direction) - origins) / direction
    hit = enter.max(axis=2) < leave.min(axis=2)
    return np.eye(3)[enter.argmax(axis=2)] * -np.sign(direction) * hit[:, :, None]


def _cylinder_normals(origins: FloatArray, direction: FloatArray) -> FloatArray:
    radius, half = 0.62, 0.76
    flat, flat_direction = origins[:, :, :2], direction[:2]
    square = flat_direction @ flat_direction
    middle = -(flat @ flat_direction) / square
    root = middle**2 - ((flat**2).sum(axis=2) - radius**2) / square
    reach = np.sqrt(np.maximum(root, 0))
    # The camera looks down, so a ray comes in through the top and leaves through the bottom.
    enter_top = (half - origins[:, :, 2]) / direction[2]
    leave_bottom = (-half - origins[:, :, 2]) / direction[2]
    enter_side, leave_side = middle - reach, middle + reach
    enter = np.maximum(enter_top, enter_side)
    hit = (root > 0) & (enter < np.minimum(leave_bottom, leave_side))

    at = origins + enter[:, :, None] * direction
    side = np.concatenate([at[:, :, :2] / radius, np.zeros_like(at[:, :, :1])], axis=2)
    top = np.array([0.0, 0.0, 1.0])
    return np.where((enter_top > enter_side)[:, :, None], top, side) * hit[:, :, None]


_SOLIDS: dict[str, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "cube": _cube_normals,
    "cylinder": _cylinder_normals,
    "sphere": _sphere_normals,
}
