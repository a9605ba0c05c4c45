"""The embedder: raw texts or images in, token activations out."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import StrOptions

from skact import models
from skact.arguments import PATH, Number, check_concepts, check_entries, checked, instance
from skact.base import SharedModelMixin, TokensOutMixin
from skact.embedding._reader import Reader
from skact.embedding._stored import StoredSamples
from skact.models import DetachedPair, check_spans, check_texts
from skact.rows import Array
from skact.samples import as_list
from skact.store import ActivationStore
from skact.tokens import LayerStack, TokenArray
from skact.warning import warn

__all__ = ["TransformerEmbedder"]

_IMAGE_FILE = re.compile(r"\S\.(jpe?g|png|gif|bmp|tiff?|webp)$", re.IGNORECASE)


class TransformerEmbedder(SharedModelMixin, TokensOutMixin, BaseEstimator):
    """Token activations of a pretrained transformer, for texts or images.

    The activations of token i at layer b are the **residual stream after block b**: the output of
    the block, before any final norm, for the last block too; or another ``site`` of the block.
    Special tokens and padding are no tokens of a sample. All layers asked for come from one forward
    pass, which ends after the deepest of them. Nothing is learnt: ``fit`` only checks.

    Parameters
    ----------
    model : str, Path or tuple, default="sentence-transformers/all-MiniLM-L6-v2"
        Name on the Hugging Face hub, local folder, GGUF file (needs ``skact[gguf]``), or a loaded
        pair ``(model, tokenizer or image processor)``. It is loaded on first use, once per process,
        and shared by clones. Of a model with a head the model below is used; of one with two towers
        (CLIP) the tower of the modality. A loaded pair stays where it is and in its dtype, and is
        left unchanged. Its weights are not pickled: an unpickled embedder finds the same model in
        this process, or in the pair's name or folder, or refuses.
    layer : int, float, or sequence of those, default=-1
        Block number in [0, n_blocks), negative number from the end, or depth in (0, 1] (see
        :func:`~skact.depth_to_block`): 1 is the second block and 1.0 the last. A sequence gives a
        :class:`~skact.tokens.LayerStack` with the distinct blocks.
    site : {"residual", "attention", "mlp", "heads"}, default="residual"
        What of a block is read: the residual stream after it, what its attention or its MLP adds to
        the stream, or its heads, that is what enters the output projection of attention (``n_heads
        * head_dim`` features, which :func:`~skact.heads.head_writes` turns into what each head
        writes). See Notes.
    modality : {"auto", "text", "image"}, default="auto"
        What samples are. "auto" goes by the model; one that reads both is used for images, unless
        the pair has a tokenizer only.
    pooling : {"cls", "mean", "last"} or None, default=None
        One vector per sample: its CLS position, the mean of its tokens, or its last token. None
        keeps the tokens.
    special_tokens : bool, default=False
        Whether special tokens, and the positions around the patches (CLS, registers), count as
        tokens.
    batch_size : int, default=32
        Samples of mean length per forward pass. A batch holds as many positions as these have
        together, padding included, so more short samples or fewer long ones, and at least one.
        Halved when memory does not suffice.
    max_length : int or None, default=None
        Positions that a text is cut to, special tokens and sink included. None takes the limit of
        the model, or of the sentences it was trained for where it states that.
    sink : {"auto"}, str, int or None, default="auto"
        Token that the model reads before each text and that counts for none: a decoder without BOS
        puts its attention sink there and not on the first word. "auto" gives one to causal models
        whose tokenizer begins a text with nothing of its own, and finds by trying which of its
        special tokens serves best. A str or an id names one, None switches it off. Before a chat it
        stands only where the template, or a cut, leaves no control token at the beginning.
    chat_tokens : {"all", "last"} or str, default="all"
        Turns that count where samples are chats: all, the last one, or those of a role, such as
        "assistant". The model reads the whole chat; its markup never counts.
    crop : {"auto", "whole", "processor"}, default="auto"
        What of an image the model is shown. "whole": all of it, resized with its proportions so
        that each side has whole patches, and about as many patches in all as the processor makes;
        for models that take images of any size, by themselves (DINOv2, DINOv3) or by
        interpolating their positions (CLIP, ViT, SigLIP). "processor": what the image processor
        makes of it, which may cut off its sides. "auto": the whole image for models that take any
        size by themselves, else what the processor makes, with a warning if that hides more than
        a tenth of an image.
    max_patches : int, default=1024
        Patches of a whole image at most.
    device : str, default="auto"
        Where a named model runs; "auto" takes CUDA where there is some.
    dtype : {"auto", "float32", "float16", "bfloat16"}, default="auto"
        Precision of a named model; "auto" is that of the checkpoint, and float32 on a CPU.
    store : ActivationStore, str, Path or None, default=None
        Where activations are kept, a path meaning ``ActivationStore(path)``. Only what it lacks
        goes through the model, and the output shows its files instead of lying in memory.
    revision : str or None, default=None
        Commit, tag or branch of a named model.
    trust_remote_code : bool, default=False
        Whether to run code that comes with the model. Needs a full commit hash as ``revision``.
    progress : bool, default=False
        Whether to show a progress bar, in tokens.

    Raises
    ------
    ValueError, TypeError, OSError
        On first use, if parameters, model and samples do not fit each other; a faulty sample is
        named by its number before anything is embedded, or with a store, which keeps what came
        before it, at the latest when its turn comes.

    Notes
    -----
    What a branch **adds** is read behind all that belongs to the branch: its own norm (Gemma-2), a
    factor (DINOv2). It is checked when a model is first read there that input + attention + MLP =
    output, or, where norms stand behind the sums (BERT), LN(LN(input + attention) + MLP) = output,
    to 1e-4 of what is added; and that heads add up to what the projection puts out, to 1e-5. A
    model in which this does not hold is refused.

    Texts are tokenised without padding, sorted by length and padded on the right, so the
    tokenizer's padding side has no influence, and a batch gives what its samples give alone.
    Patches that hold nothing but padding are no tokens. Llama-3.2-Vision sees an image fitted into
    one tile; for texts, its cross-attention blocks are not counted.
    Photographs, as files or opened by PIL, are turned upright by their EXIF orientation; alpha is
    laid over white. Images of a batch are opened and made small one by one; what PIL has opened
    stays in memory, so large photographs are better given as paths.

    References
    ----------
    Goldberg, Kim, Stein, Wong: The SuperActivator Mechanism, section on token activations.

    Examples
    --------
    >>> from skact.embedding import TransformerEmbedder
    >>> TransformerEmbedder(layer=[0.25, 0.5, 1.0])
    TransformerEmbedder(layer=[0.25, 0.5, 1.0])
    """

    _parameter_constraints: dict[str, Any] = {
        "model": [
            instance(
                "a name, a folder or a loaded pair (model, tokenizer or image processor)",
                *(str, Path, tuple, DetachedPair),
            )
        ],
        "layer": "no_validation",
        "site": [StrOptions({"residual", "attention", "mlp", "heads"})],
        "modality": [StrOptions({"auto", "text", "image"})],
        "pooling": [StrOptions({"cls", "mean", "last"}), None],
        "special_tokens": ["boolean"],
        "batch_size": [Number(Integral, 1, None, closed="left")],
        "max_length": [Number(Integral, 1, None, closed="left"), None],
        "sink": [str, Number(Integral, 0, None, closed="left"), None],
        "chat_tokens": [str],
        "crop": [StrOptions({"auto", "whole", "processor"})],
        "max_patches": [Number(Integral, 1, None, closed="left")],
        "device": [str],
        "dtype": [StrOptions({"auto", "float32", "float16", "bfloat16"})],
        "store": [instance("an ActivationStore(...)", ActivationStore), PATH, None],
        "revision": [str, None],
        "trust_remote_code": ["boolean"],
        "progress": ["boolean"],
    }

    def __init__(
        self,
        model: Any = "sentence-transformers/all-MiniLM-L6-v2",
        layer: int | float | Sequence[int | float] = -1,
        *,
        site: str = "residual",
        modality: str = "auto",
        pooling: str | None = None,
        special_tokens: bool = False,
        batch_size: int = 32,
        max_length: int | None = None,
        sink: str | int | None = "auto",
        chat_tokens: str = "all",
        crop: str = "auto",
        max_patches: int = 1024,
        device: str = "auto",
        dtype: str = "auto",
        store: ActivationStore | str | Path | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        progress: bool = False,
    ) -> None:
        self.model = model
        self.layer = layer
        self.site = site
        self.modality = modality
        self.pooling = pooling
        self.special_tokens = special_tokens
        self.batch_size = batch_size
        self.max_length = max_length
        self.sink = sink
        self.chat_tokens = chat_tokens
        self.crop = crop
        self.max_patches = max_patches
        self.device = device
        self.dtype = dtype
        self.store = store
        self.revision = revision
        self.trust_remote_code = trust_remote_code
        self.progress = progress

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the parameters and the kind of container; nothing is learnt or loaded.

        Parameters
        ----------
        X : sequence of n_samples texts or images
            As in :meth:`transform`.
        y : ignored
            Not used.

        Returns
        -------
        self : TransformerEmbedder
            The embedder.
        """
        self._check_params()
        as_list(X)
        return self

    def transform(self, X: Any) -> TokenArray | LayerStack | Array:
        """Embed samples.

        Parameters
        ----------
        X : sequence of n_samples texts or images
            List, tuple, 1-D array, Series or other column, or table with one column, of strings or
            of images: paths, files open in binary mode, PIL images, uint8 arrays (height, width[,
            channels]) or float arrays in [0, 1]. A 4-D array holds images of one size. Or a list of
            chats, each a list of {"role": str, "content": str}.

        Returns
        -------
        activations : TokenArray, LayerStack or ndarray of shape (n_samples, n_features)
            What is read at the site of the block, float32 (float16 for tokens of a model that runs
            in float16); a LayerStack for a list of layers. With ``pooling``, an ndarray of dtype
            float32, or a LayerStack with one token per sample. With a store, what is no ndarray
            is mapped from its files, in its dtype.

        Raises
        ------
        ValueError, TypeError, OSError
            If parameters, model and samples do not fit each other.
        """
        samples, reader, blocks, many = self._start_pass(X)
        if self.store is None:
            layers = reader.embed(samples, blocks, self.progress)
        else:
            store = self._open_store()
            layers = StoredSamples(store, reader, samples, blocks, self.progress).read()
        if many:
            return LayerStack(layers)
        (tokens,) = layers.values()
        return tokens if self.pooling is None else np.array(tokens.flat(), np.float32)

    @checked(with_spans=["boolean"])
    def prepare(
        self, X: Any, *, with_spans: bool = False
    ) -> models.TextInputs | models.ImageInputs:
        """Make samples ready for the model, and run nothing.

        Parameters
        ----------
        X : sequence of n_samples texts or images
            As in :meth:`transform`.
        with_spans : bool, default=False
            Whether the characters of tokens will be asked for; nothing for images.

        Returns
        -------
        inputs : TextInputs or ImageInputs
            With ``loaded``, the model; ``lengths`` and ``n_tokens``, int64 of shape (n_samples,),
            the positions and tokens of each sample; ``batch``, which makes what the model reads of
            some samples; and ``tokens``, which names their tokens.

        Raises
        ------
        ValueError, TypeError
            If a sample is not of the model's modality or has no token.
        """
        samples, reader = self._start(X)
        return reader.prepare(samples, with_spans=with_spans)

    def tokens_of(self, X: Any) -> list[list[models.Token]] | list[list[models.Patch]]:
        """Say what each token is.

        Parameters
        ----------
        X : sequence of n_samples texts or images
            As in :meth:`transform`.

        Returns
        -------
        tokens : list of list of Token or Patch
            For each sample its tokens in the order of :meth:`transform`: the characters they
            cover, or the pixels. Special tokens, where they were asked for, cover nothing.

        Raises
        ------
        ValueError
            If the tokenizer does not know the characters of its tokens.
        """
        return self.prepare(X, with_spans=True).tokens()

    def align_spans(
        self, texts: Any, spans: Any, concepts: Sequence[Any] | None = None
    ) -> TokenArray:
        """Turn labelled spans of characters into labels of tokens.

        A token is labelled if its characters overlap the span ``[start, end)``. Special tokens
        never are. A span of which truncation leaves nothing labels nothing.

        Parameters
        ----------
        texts : sequence of n_samples str
            The texts.
        spans : sequence of n_samples sequences of (start, end, label)
            Labelled spans of each text, in code points. For chats (message, start, end, label),
            within the content of the message.
        concepts : sequence or None, default=None
            The labels to use, one column each; others are passed over. None takes all labels
            that occur, sorted.

        Returns
        -------
        labels : TokenArray of shape (n_samples, n_concepts), dtype bool
            With the tokens of :meth:`transform`, and the concepts as feature names.

        Raises
        ------
        ValueError, TypeError
            If a span is empty, leaves its text, is not cut by ints or has no label, or the lengths
            differ.
        """
        concepts = None if concepts is None else check_concepts(concepts)
        samples, reader = self._start(texts, need="text")
        if models.are_chats(samples):
            labelled = models.chat_spans(samples, spans)
            return reader.label(
                samples, *check_spans(models.chat_texts(samples), labelled, concepts)
            )
        return reader.label(samples, *check_spans(check_texts(samples), spans, concepts))

    def align_masks(
        self, images: Any, masks: Any, concepts: Sequence[Any] | None = None
    ) -> TokenArray:
        """Turn masks of pixels into labels of patches.

        The mask goes through the geometric transform of its own image: resized, cropped and
        padded alike. A patch is labelled if any mask pixel falls into it.

        Parameters
        ----------
        images : sequence of n_samples images
            The images.
        masks : sequence of n_samples array-like of shape (height, width[, n_concepts])
            Bool, or 0 and 1, of the size of the image. Read one at a time, so any object with
            ``len`` and integer indexing will do.
        concepts : sequence or None, default=None
            Names of the columns.

        Returns
        -------
        labels : TokenArray of shape (n_samples, n_concepts), dtype bool
            With the tokens of :meth:`transform`; tokens that are no patch are not labelled.

        Raises
        ------
        ValueError
            If a mask does not have the size of its image, or the lengths differ.
        """
        concepts = None if concepts is None else check_concepts(concepts)
        samples, reader = self._start(images, need="image")
        masks = check_entries("masks", masks, len(samples), "image")
        return reader.label(samples, masks, concepts)

    def truncated(self, X: Any) -> Array:
        """Tell which texts are longer than the model reads, and lose their end.

        Parameters
        ----------
        X : sequence of n_samples texts
            As in :meth:`transform`.

        Returns
        -------
        truncated : ndarray of shape (n_samples,), dtype bool
            Whether a text is cut to ``max_length``, or to the limit of the model.
        """
        inputs = self.prepare(X)
        return np.asarray(inputs.is_cut)

    def missing(self, X: Any) -> Array:
        """Tell which samples the store does not hold.

        Parameters
        ----------
        X : sequence of n_samples texts or images
            As in :meth:`transform`.

        Returns
        -------
        missing : ndarray of shape (n_samples,), dtype bool
            Whether a layer that :meth:`transform` gives is not in the store.

        Raises
        ------
        ValueError
            If there is no store.
        """
        return self._in_store(X).missing()

    def distinct(self, X: Any) -> Array:
        """Give the numbers of the samples that a store keeps: equal ones once.

        Parameters
        ----------
        X : sequence of n_samples texts or images
            As in :meth:`transform`.

        Returns
        -------
        numbers : ndarray of shape (n_distinct,), dtype int64
            The first sample of each group of equal ones, ascending.

        Raises
        ------
        ValueError
            If there is no store.
        """
        return self._in_store(X).distinct()

    def forget(self, X: Any) -> int:
        """Remove samples from the store for good, at all layers of all models.

        For a person who asks for it: nothing of the samples stays in the files of the store; see
        :meth:`~skact.store.ActivationStore.forget` for what that means.

        Parameters
        ----------
        X : sequence of n_samples texts or images
            As in :meth:`transform`, each in the form in which it was embedded: an image given as a
            file and as an array are two samples.

        Returns
        -------
        n_samples : int
            How many of them, duplicates once, were in the store.

        Raises
        ------
        ValueError
            If there is no store.
        """
        return self._in_store(X).forget()

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """Name the features of a token.

        Parameters
        ----------
        input_features : ignored
            Not used.

        Returns
        -------
        names : ndarray of shape (n_features,), dtype object
            "transformerembedder0" and so on.
        """
        self._check_params()
        prefix, width = type(self).__name__.lower(), models.at_site(self._load(), self.site).width
        return np.array([f"{prefix}{i}" for i in range(width)], dtype=object)

    @property
    def n_blocks(self) -> int:
        """Number of transformer blocks of the model, which is loaded for it."""
        self._check_params()
        return len(self._load().blocks)

    @property
    def reader(self) -> Reader:
        """The model, which is loaded for it, as this embedder reads it."""
        self._check_params()
        loaded = self._load()
        return Reader(
            models.at_site(loaded, self.site),
            by_weights=isinstance(self.model, tuple | DetachedPair),
            pooling=self.pooling,
            special_tokens=self.special_tokens,
            batch_size=self.batch_size,
            max_length=self.max_length,
            sink=models.find_sink(loaded, self.sink),
            crop=self.crop,
        )

    def _check_params(self) -> None:
        self._validate_params()
        if not self.chat_tokens.strip():
            raise ValueError('chat_tokens must be "all", "last" or a role, got an empty text.')
        self._check_remote_code()
        if isinstance(self.model, tuple) and len(self.model) != 2:
            raise ValueError(
                "model must be a pair (model, tokenizer or image processor), got a tuple of "
                f"{len(self.model)}."
            )

    def _load(self) -> models.Loaded:
        return models.load(
            self.model,
            modality=self.modality,
            device=self.device,
            dtype=self.dtype,
            revision=self.revision,
            trust_remote_code=self.trust_remote_code,
            crop=self.crop,
            max_patches=self.max_patches,
        )

    def _start(self, X: Any, need: str | None = None) -> tuple[list[Any], Reader]:
        """Check the parameters, and load the model."""
        reader, samples = self.reader, as_list(X)
        if models.are_chats(samples):
            if reader.loaded.modality == "text":
                models.check_chats(samples, reader.loaded.processor)
            reader = replace(reader, chat_tokens=self.chat_tokens)
        if reader.loaded.modality == "text":
            _warn_of_paths(samples, reader.loaded.name)
        if need not in (None, reader.loaded.modality):
            raise ValueError(
                f"{'spans' if need == 'text' else 'masks'} belong to {need}s, but the model "
                f"{reader.loaded.name!r} is used for {reader.loaded.modality}s."
            )
        return samples, reader

    def _start_pass(self, X: Any) -> tuple[list[Any], Reader, list[int], bool]:
        """Check all that can be checked before samples are read."""
        samples, reader = self._start(X)
        loaded = reader.loaded
        blocks, many = models.resolve_layers(self.layer, len(loaded.blocks))
        if self.pooling == "cls" and reader.sink is not None:
            raise ValueError(
                f'pooling="cls" reads the first position, where sink={self.sink!r} stands; use '
                'sink=None, or "mean" or "last".'
            )
        if self.pooling == "cls" and not loaded.has_cls:
            raise ValueError(
                f'pooling="cls" needs a CLS position, which the model {loaded.name!r} does not '
                'have; use "mean" or "last".'
            )
        return samples, reader, blocks, many

    def _in_store(self, X: Any) -> StoredSamples:
        """Name samples and layers as the store does."""
        samples, reader, blocks, _ = self._start_pass(X)
        return StoredSamples(self._open_store(), reader, samples, blocks, self.progress)

    def _open_store(self) -> ActivationStore:
        if self.store is None:
            raise ValueError("store is None; give the embedder a store: set_params(store=...).")
        return (
            self.store if isinstance(self.store, ActivationStore) else ActivationStore(self.store)
        )

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        if isinstance(self.model, tuple):
            return {**state, "model": models.detach(self.model, self.modality)}
        return state

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags


def _warn_of_paths(samples: list[Any], model: str) -> None:
    """Warn where all texts are called as files of images are."""
    paths = [sample for sample in samples if isinstance(sample, str) and _IMAGE_FILE.search(sample)]
    if len(paths) == len(samples):
        warn(
            f"all {len(samples)} samples end as names of image files do, such as "
            f"{reprlib.repr(paths[0])}, but the model {model!r} is used for texts: it reads the "
            'names, not the images. Take a model of images, or modality="image" with one that '
            "reads both."
        )
