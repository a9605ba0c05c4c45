"""What a setup asks for beside detection."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["ANALYSES", "LOCALIZERS", "MADE", "Analyses", "Localization", "Prompting"]

#: Data that are made, not read.
MADE = ("shapes", "paragraphs")
#: Attribution methods, and the budget that each takes.
LOCALIZERS: dict[str, tuple[str, ...]] = {
    "direct": (),
    "lime": ("masks",),
    "kernel_shap": ("masks",),
    "rise": ("masks",),
    "shapiq": ("masks",),
    "integrated_gradients": ("steps",),
    "grad_cam": (),
    "full_grad": (),
    "calm": (),
    "mfaba": ("steps",),
}
#: Analyses, in the order in which they are made.
ANALYSES = (
    "score_distributions",
    "separability",
    "coverage",
    "sparsity_curve",
    "best_sparsity",
    "depth_curve",
    "best_layers",
    "superactivator_counts",
    "superactivator_positions",
)


@dataclass(frozen=True)
class Prompting:
    """Whether a generative model, asked about concepts, says Yes.

    Parameters
    ----------
    model : str, default=""
        Name or folder of a chat model; without it, the model of the setup.
    scores : list of str, default=["answer", "logits"]
        What it is asked for: an answer that it writes, or the log-odds of Yes.
    texts : int, default=200
        Samples of cal, and of test, drawn with the seed.
    prompt : str, default=""
        The question, with ``{concept}``; without it, that of :class:`skact.PromptDetector`.
    """

    model: str = ""
    scores: list[str] = field(default_factory=lambda: ["answer", "logits"])
    texts: int = 200
    prompt: str = ""


@dataclass(frozen=True)
class Localization:
    """Where attribution methods find concepts.

    Parameters
    ----------
    layer : float, default=0.5
        Depth in (0, 1], or block.
    methods : list of str
        Names in :data:`LOCALIZERS`; default all.
    targets : list of str, default=["global", "local"]
        What is explained.
    per_concept : int, default=8
        Samples of each concept in cal, and in test.
    masks : int, default=200
        Masks of perturbation methods; samples of more than half as many players are left out.
    steps : int, default=16
        Steps of gradient paths.
    points : int, default=16
        Steps of insertion and deletion curves.
    unit : str, default="token"
        What is one player of a perturbation method, as :class:`skact.localization.RISE` takes it.
    cell_size, n_segments : int, default=2, 50
        Patches along the side of a square of ``unit = "grid"``, and superpixels of "segments".
    """

    layer: float = 0.5
    methods: list[str] = field(default_factory=lambda: list(LOCALIZERS))
    targets: list[str] = field(default_factory=lambda: ["global", "local"])
    per_concept: int = 8
    masks: int = 200
    steps: int = 16
    points: int = 16
    unit: str = "token"
    cell_size: int = 2
    n_segments: int = 50


@dataclass(frozen=True)
class Analyses:
    """The paper's analyses, by linear separators at the layers of the setup.

    Parameters
    ----------
    names : list of str
        Names in :data:`ANALYSES`; default all.
    fewest : int, default=5
        Samples in train, cal and test that a concept must have to take part.
    """

    names: list[str] = field(default_factory=lambda: list(ANALYSES))
    fewest: int = 5
