"""The encoder that extraction runs: frames in, clip features out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tspcli.core.devices import sleeping_event
from tspcli.encoders import Precision, Runtime
from tspcli.encoders.backbones import BackboneSpec
from tspcli.encoders.fused import FastVideoResNet, inference_form
from tspcli.encoders.precision import DTYPES, arithmetic
from tspcli.encoders.preprocessing import Preprocessing
from tspcli.encoders.runtimes import GraphedForm, OpenVinoForm, static_form
from tspcli.encoders.shared_clips import SharedVideoResNet
from tspcli.encoders.tsp_model import TspModel
from tspcli.errors import UsageError
from tspcli.sampling import Sampling
from tspcli.sampling.pixels import FrameDtype, FrameSpec


class Encoder:
    """A backbone with its weights on a device, ready to encode clips.

    Made by :func:`load_encoder`.

    Attributes:
        spec: The backbone.
        backbone: Its name.
        feature_dim: Width D of the features.
        sampling: The clips that suit the weights.
        preprocessing: The frames that suit the weights.
        device: The device that computes; a CUDA device with its index.
        precision: The arithmetic, resolved (never ``auto``).
        runtime: The library that computes.
        frames_dtype: Whether scaled frames are rounded to 8 bits before they get here.
        class_names: Of the action head's outputs, if known.
        module: The model as loaded: a :class:`TspModel` in float32.
        form: The module that computes the features: the backbone itself, or a faster form of it.
        provenance: What a store records about the origin of its features.
    """

    def __init__(
        self,
        model: TspModel,
        spec: BackboneSpec,
        *,
        device: torch.device,
        precision: Precision,
        frames_dtype: FrameDtype,
        sampling: Sampling | None = None,
        preprocessing: Preprocessing | None = None,
        class_names: tuple[str, ...] | None = None,
        origin: dict[str, Any] | None = None,
        fast: bool = True,
        runtime: Runtime = "torch",
    ) -> None:
        self.spec = spec
        self.backbone = spec.name
        self.feature_dim = spec.feature_dim
        self.sampling = sampling or spec.sampling
        self.preprocessing = preprocessing or spec.preprocessing
        self.device = device
        self.precision: Precision = precision
        self.runtime: Runtime = runtime
        self.frames_dtype: FrameDtype = frames_dtype
        self.class_names = class_names
        self.module: TspModel = model.eval().requires_grad_(False)
        self.dtype = DTYPES[precision]
        self.form: nn.Module
        if runtime == "openvino":
            self.form = OpenVinoForm(self.module.features)
        elif fast:
            self.form = inference_form(self.module.features, device, self.dtype, spec.layer)
        else:
            self.form = self.module.features.to(device)
        if runtime == "compiled":
            self.form = static_form(self.form, device)
        self._shared: SharedVideoResNet | None = None
        if isinstance(self.form, FastVideoResNet):
            self._shared = SharedVideoResNet(self.form)
        self.module.to("cpu" if fast else device)
        self.provenance: dict[str, Any] = {
            "backbone": self.backbone,
            **(origin or {}),
            "preprocessing": self.preprocessing.to_dict(),
            "precision": precision,
            "frames_dtype": frames_dtype,
        }

    @property
    def wants_full_batches(self) -> bool:
        """Whether filling up a batch costs less than encoding one of another size.

        For every new size cuDNN searches for its fastest algorithms, or the backbone is compiled.
        """
        return self.device.type != "cpu" or self.runtime == "compiled"

    @property
    def frame_spec(self) -> FrameSpec:
        """The frames that :meth:`prepare` takes."""
        return self.preprocessing.frame_spec(self.frames_dtype)

    def prepare(self, frames: Tensor) -> Tensor:
        """Normalise frames, once each, on the device.

        Args:
            frames: (N, h, w, 3) as described by :attr:`frame_spec`, values 0..255, uint8 or
                float32. They have been copied when this returns, even if their memory is pinned.

        Returns:
            (N, 3, h, w) on the device, in the dtype that it computes in.
        """
        return self.preprocessing.normalize(frames.to(self.device), self.dtype)

    def encode(self, clips: Tensor) -> Tensor:
        """Features of clips.

        Args:
            clips: (B, 3, T, h, w) of prepared frames, in any memory order.

        Returns:
            (B, D) float32 on the CPU.

        Raises:
            UsageError: If the backbone cannot take clips of T frames, or fp16 overflows.
            RuntimeError, MemoryError: If the batch is too large for the device
                (:func:`~tspcli.encoders.precision.is_out_of_memory`); a smaller one can be tried.
        """
        return self.encode_async(clips)()

    def encode_async(self, clips: Tensor) -> Callable[[], Tensor]:
        """Start to encode clips without waiting for a GPU to finish.

        Args:
            clips: As for :meth:`encode`, which raises the same errors.

        Returns:
            A function that waits and returns the rows, (B, D) float32 on the CPU.
        """
        self.spec.check_clip_length(clips.shape[2])
        with torch.inference_mode(), arithmetic(self.device, self.precision):
            return self._arriving(self.form(clips.to(self.device, self.dtype)))

    def _arriving(self, features: Tensor) -> Callable[[], Tensor]:
        """Start to copy features to the CPU; the function returned waits for them."""
        done: torch.Event | None = None
        rows = features.float()
        if self.device.type != "cpu":
            on_device, rows = rows, torch.empty(rows.shape, pin_memory=True)
            rows.copy_(on_device, non_blocking=True)
            done = sleeping_event(self.device)
            done.record(torch.accelerator.current_stream(self.device))
        else:
            rows = rows.cpu()

        def wait() -> Tensor:
            if done is not None:
                done.synchronize()
            if self.precision == "fp16" and not torch.isfinite(rows).all():
                raise UsageError(
                    "The features exceed the range of fp16 numbers.",
                    remedy="Use --precision bf16 or fp32.",
                    option="precision",
                    value="fp16",
                )
            return rows

        return wait

    def release(self) -> None:
        """Free a GPU's memory that is kept for later batches."""
        if isinstance(self.form, GraphedForm):
            self.form.release()
        if self.device.type != "cpu":
            torch.accelerator.empty_cache()

    def supports_series(self, sampling: Sampling) -> bool:
        """Whether :meth:`encode_series` takes clips that overlap like this, and is faster."""
        return (
            self._shared is not None
            and isinstance(self.form, FastVideoResNet)  # neither compiled nor recorded
            and sampling.is_regular
            and sampling.is_plain
            and sampling.stride <= self._shared.largest_stride
            and sampling.clip_length > 2 * self._shared.lost
        )

    def encode_series(self, frames: Tensor, sampling: Sampling) -> Tensor:
        """Features of overlapping clips; what they have in common is computed once.

        The same as :meth:`encode` of the clips, up to rounding.

        Args:
            frames: (S, 3, h, w) prepared frames, S = (clips - 1) * stride + clip_length.
            sampling: How clips are cut from them; :meth:`supports_series` has to be true for it.

        Returns:
            (clips, D) float32 on the CPU.
        """
        return self.encode_series_async(frames, sampling)()

    def encode_series_async(self, frames: Tensor, sampling: Sampling) -> Callable[[], Tensor]:
        """:meth:`encode_series` without waiting for a GPU to finish, as :meth:`encode_async`."""
        assert self._shared is not None
        self.spec.check_clip_length(sampling.clip_length)
        with torch.inference_mode(), arithmetic(self.device, self.precision):
            frames = frames.to(self.device, self.dtype)
            return self._arriving(self._shared(frames, sampling.clip_length, sampling.stride))

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Features of clips given as frames: :meth:`prepare`, then :meth:`encode`.

        Args:
            frames: (B, T, h, w, 3), values 0..255.

        Returns:
            (B, D) float32 on the CPU.
        """
        count, length = frames.shape[:2]
        prepared = self.prepare(frames.flatten(0, 1))
        clips = prepared.unflatten(0, (count, length)).transpose(1, 2)
        return self.encode(clips)

    def classify(self, features: Tensor) -> Tensor | None:
        """Logits (B, classes) of the action head for features (B, D); None without such a head."""
        with torch.inference_mode():
            weight = next(self.module.parameters())
            return self.module.action_logits(features.float().to(weight.device))
