"""Batches made on the device: nnU-Net's crops and augmentation, all samples at once.

nnU-Net's transforms work on one sample at a time, on a core of the CPU: 0.6 s for a
batch of 105 brain-tumour patches, for which a GPU takes 0.03 s to train on. Here the
cases lie on the device, a loading process draws what is random (`draws`), and each
transform is one operation on all the samples that it was drawn for. The results are
those of nnU-Net's transforms up to rounding, but for noise, which has its distribution.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from torch.nn import functional

from casesim.processes import card_memory
from casesim.training.cases import Cases
from casesim.training.draws import loader_patch

_OUTSIDE = -1  # nnU-Net's label of what is not in the image
_BLUR_TRUNCATE = 6  # `blur_dimension`
_SCORE = 1000  # `SpatialTransform`: what a label's full vote counts
# The network's feature maps need the most; planned for 8 GB, on a card that has more.
_SHARE_OF_MEMORY = 0.25
_EPSILON = 1e-7  # `GammaTransform`


class DeviceBatches:
    """Turns what was drawn for a batch into the batch.

    `masked` are the channels that are 0 outside the image's mask, `scales` those of
    deep supervision.
    """

    def __init__(
        self,
        cases: Cases,
        loader: nnUNetDataLoader,
        labels: Sequence[int],
        masked: Sequence[int],
        scales: Sequence[Sequence[float]],
        device: torch.device,
    ) -> None:
        self._device = device
        self._names = list(loader.indices)
        self._volumes = []
        for name in loader.indices:
            data, seg, *_ = cases.load_case(name)
            self._volumes.append(
                (
                    torch.as_tensor(data[:]).to(device),
                    torch.as_tensor(seg[:]).to(device),
                )
            )
        self._flat = loader.patch_size_was_2d
        self._start = loader_patch(loader)
        self._final = tuple(
            int(n) for n in loader.final_patch_size[1 if self._flat else 0 :]
        )
        self._labels = sorted({_OUTSIDE, 0, *labels})
        self._masked = list(masked)
        self._scales = scales
        places = [
            torch.linspace((1 - n) / 2, (n - 1) / 2, n, device=device)
            for n in self._final
        ]
        self._grid = torch.stack(torch.meshgrid(places, indexing="ij"), -1)
        self._half = torch.tensor([n / 2 for n in self._start], device=device)
        self._generator = torch.Generator(device)

    @staticmethod
    def fits(cases: Cases, device: torch.device) -> bool:
        """Whether the cases take a small part of what is free on the device."""
        return cases.nbytes <= _SHARE_OF_MEMORY * card_memory.available(device)

    def make(self, draws: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Batches as nnU-Net's loader gives them: `data` and `target`."""
        for drawn in draws:
            yield self(drawn)

    @torch.no_grad()
    def __call__(self, drawn: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """`data` (b, channel, ...), a `target` for each resolution, `keys` (b)."""
        there = {
            name: values.to(self._device, non_blocking=True)
            for name, values in drawn.items()
            if name not in ("case", "corner", "mirror", "seed")
        }
        data, seg = self._cut(drawn, there)
        self._generator.manual_seed(int(drawn["seed"]))
        for name in ("noise", "blur", "brightness", "contrast", "low_resolution"):
            self._apply(data, there, name)
        self._apply(data, there, "inverted_gamma")
        self._apply(data, there, "gamma")
        self._mirror(data, seg, drawn["mirror"])
        if self._masked:
            outside = seg[:, :1] < 0
            if len(self._masked) == data.shape[1]:
                data.masked_fill_(outside, 0)
            else:
                for channel in self._masked:
                    data[:, channel : channel + 1].masked_fill_(outside, 0)
        seg.clamp_(min=0)  # the label of what is outside becomes background
        keys = [self._names[case] for case in drawn["case"].tolist()]
        return {"data": data, "target": self._downsample(seg), "keys": keys}

    def _cut(
        self, drawn: Mapping[str, torch.Tensor], there: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The patches, turned and scaled where that was drawn."""
        number, channels = len(drawn["case"]), self._volumes[0][0].shape[0]
        data = torch.zeros((number, channels, *self._final), device=self._device)
        seg = torch.full(
            (number, 1, *self._final), _OUTSIDE, dtype=torch.int16, device=self._device
        )
        turned = {int(sample): i for i, sample in enumerate(drawn["affine_at"])}
        wide = torch.zeros((len(turned), channels, *self._start), device=self._device)
        wide_seg = torch.full(
            (len(turned), 1, *self._start),
            _OUTSIDE,
            dtype=torch.int16,
            device=self._device,
        )
        # Where the final patch begins in the one that was cut (`crop_tensor`).
        inner = [n // 2 - f // 2 for n, f in zip(self._start, self._final, strict=True)]
        cases, corners = drawn["case"].tolist(), drawn["corner"].tolist()
        for sample, (case, corner) in enumerate(zip(cases, corners, strict=True)):
            volume, labels = self._volumes[case]
            if self._flat:
                volume, labels = volume[:, corner[0]], labels[:, corner[0]]
                corner = corner[1:]
            if sample in turned:
                _copy(volume, corner, wide[turned[sample]])
                _copy(labels, corner, wide_seg[turned[sample]])
            else:
                corner = [a + b for a, b in zip(corner, inner, strict=True)]
                _copy(volume, corner, data[sample])
                _copy(labels, corner, seg[sample])
        if turned:
            at, grid = there["affine_at"], self._place(there["affine"])
            data[at] = functional.grid_sample(wide, grid, align_corners=False)
            seg[at] = self._sample_labels(wide_seg, grid)
        return data, seg

    def _place(self, matrices: torch.Tensor) -> torch.Tensor:
        """Sampling grids (n, ..., d) of matrices (n, d, d), as `SpatialTransform`'s."""
        number, dimensions = matrices.shape[:2]
        flat = self._grid.reshape(1, -1, dimensions)
        grid = flat @ matrices.transpose(1, 2)
        return (grid / self._half).flip(-1).view(number, *self._final, dimensions)

    def _sample_labels(self, seg: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        """The label with the largest interpolated vote; the nearest one where tied."""

        def sample(values: torch.Tensor, mode: str) -> torch.Tensor:
            return functional.grid_sample(values, grid, mode=mode, align_corners=False)

        nearest = sample(seg.float() - _OUTSIDE, "nearest") + _OUTSIDE
        best: torch.Tensor | None = None
        result = torch.empty_like(nearest)
        own = torch.full_like(nearest, -torch.inf, dtype=torch.float16)
        for label in self._labels:
            # What lies outside has the label `_OUTSIDE`; grid_sample takes it for 0.
            shift = 1.0 if label == _OUTSIDE else 0.0
            votes = ((seg == label).float() - shift) * _SCORE
            score = (sample(votes, "bilinear") + shift * _SCORE).half()
            own = torch.where(nearest == label, score, own)
            if best is None:
                best = score
                result.fill_(label)
            else:
                result.masked_fill_(score > best, label)
                best = torch.maximum(best, score)
        assert best is not None
        return torch.where(own == best, nearest, result).to(seg.dtype)

    def _apply(
        self, data: torch.Tensor, drawn: Mapping[str, torch.Tensor], name: str
    ) -> None:
        """One transform of the intensities, in place."""
        places, values = drawn[f"{name}_at"], drawn[name]
        if not len(places):
            return
        sample, channel = places.unbind(1)
        images = data[sample, channel]
        wide = values.view(len(values), -1, *(1,) * (len(self._final) - 1))
        if name == "noise":
            noise = torch.empty_like(images).normal_(generator=self._generator)
            images += wide * noise
        elif name == "blur":
            for axis in range(len(self._final)):
                images = blur(images, values[:, axis], axis + 1)
        elif name == "brightness":
            images *= wide
        elif name == "contrast":
            images = contrast(images, wide)
        elif name == "low_resolution":
            for axis in range(len(self._final)):
                images = lower_resolution(images, values[:, axis], axis + 1)
        else:
            images = gamma(images, wide, inverted=name == "inverted_gamma")
        data[sample, channel] = images

    def _mirror(
        self, data: torch.Tensor, seg: torch.Tensor, mirrored: torch.Tensor
    ) -> None:
        rows = mirrored.tolist()
        for axes in itertools.product((False, True), repeat=len(self._final)):
            chosen = [i for i, row in enumerate(rows) if tuple(row) == axes]
            if not chosen or not any(axes):
                continue
            at = torch.tensor(chosen)
            if self._device.type == "cuda":
                at = at.pin_memory().to(self._device, non_blocking=True)
            dims = [2 + axis for axis, yes in enumerate(axes) if yes]
            data[at] = data[at].flip(dims)
            seg[at] = seg[at].flip(dims)

    def _downsample(self, seg: torch.Tensor) -> list[torch.Tensor]:
        """The target at each resolution, as `DownsampleSegForDSTransform`'s."""
        targets = []
        for scale in self._scales:
            if all(factor == 1 for factor in scale):
                targets.append(seg)
                continue
            shape = [round(n * s) for n, s in zip(self._final, scale, strict=True)]
            lower = functional.interpolate(seg.float(), shape, mode="nearest-exact")
            targets.append(lower.to(seg.dtype))
        return targets


def _copy(volume: torch.Tensor, corner: Sequence[int], place: torch.Tensor) -> None:
    """Copy the part of a volume (channel, ...) that lies in a patch at `corner`."""
    source, target = [slice(None)], [slice(None)]
    for lower, size, extent in zip(
        corner, place.shape[1:], volume.shape[1:], strict=True
    ):
        first, last = max(lower, 0), min(lower + size, extent)
        if last <= first:
            return
        source.append(slice(first, last))
        target.append(slice(first - lower, last - lower))
    place[tuple(target)].copy_(volume[tuple(source)])


def blur(images: torch.Tensor, sigmas: torch.Tensor, axis: int) -> torch.Tensor:
    """Gaussian blur of each image (n, ...) with its own sigma, as `blur_dimension`."""
    wanted = sigmas * _BLUR_TRUNCATE + 0.5
    size = wanted.round()
    even = size.remainder(2) == 0
    size = torch.where(even, size + torch.where(wanted >= size, 1.0, -1.0), size)
    # As wide as a sigma of 1, the largest of nnU-Net's, asks for.
    half = _BLUR_TRUNCATE // 2
    offsets = torch.arange(-half, half + 1, device=images.device)
    kernels = torch.exp(-0.5 * (offsets / sigmas[:, None]) ** 2)
    kernels = kernels * (offsets.abs() <= (size[:, None] - 1) / 2)
    kernels = kernels / kernels.sum(1, keepdim=True)
    length = images.shape[axis]
    places = torch.arange(-half, length + half, device=images.device).abs()
    places = torch.where(places >= length, 2 * (length - 1) - places, places)
    padded = images.index_select(axis, places)
    result = torch.zeros_like(images)
    shape = (-1, *(1,) * (images.ndim - 1))
    for k in range(2 * half + 1):
        result += kernels[:, k].view(shape) * padded.narrow(axis, k, length)
    return result


def contrast(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """`ContrastTransform` that keeps each image's range; `factors` (n, 1, ...)."""
    dims = tuple(range(1, images.ndim))
    mean = images.mean(dims, keepdim=True)
    low, high = images.amin(dims, keepdim=True), images.amax(dims, keepdim=True)
    return ((images - mean) * factors + mean).clamp(low, high)


def gamma(
    images: torch.Tensor, exponents: torch.Tensor, inverted: bool
) -> torch.Tensor:
    """`GammaTransform` that keeps mean and standard deviation of each image."""
    dims = tuple(range(1, images.ndim))
    images = -images if inverted else images
    std, mean = torch.std_mean(images, dims, keepdim=True)
    low = images.amin(dims, keepdim=True)
    extent = images.amax(dims, keepdim=True) - low
    images = (images - low) / extent.clamp(min=_EPSILON)
    images = images.pow(exponents) * extent + low
    new_std, new_mean = torch.std_mean(images, dims, keepdim=True)
    images = (images - new_mean) * (std / new_std.clamp(min=_EPSILON)) + mean
    return -images if inverted else images


def lower_resolution(
    images: torch.Tensor, sizes: torch.Tensor, axis: int
) -> torch.Tensor:
    """Take every so many pixels along an axis, and interpolate between them.

    As torch's `interpolate` to `sizes` (n) with nearest-exact and back linearly, which
    go axis by axis.
    """
    length = images.shape[axis]
    fine = torch.arange(length, device=images.device, dtype=torch.float32)
    size = sizes[:, None]
    # Not `length / size`, which multiplies by a reciprocal: where a place is a whole
    # number, the last bit decides which pixel is taken.
    scale = torch.full_like(size, length) / size
    place = ((fine + 0.5) * (size / length) - 0.5).clamp(min=0)
    lower = place.floor()
    upper = torch.minimum(lower + 1, size - 1)
    share = place - lower
    shape = [len(images), *(1,) * (images.ndim - 1)]
    shape[axis] = length

    def take(coarse: torch.Tensor) -> torch.Tensor:
        source = ((coarse + 0.5) * scale).floor().clamp(0, length - 1)
        index = source.long().view(shape).expand(images.shape)
        return images.gather(axis, index)

    weight = share.view(shape)
    return take(lower) * (1 - weight) + take(upper) * weight
