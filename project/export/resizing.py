"""The resizing of pictures in operations that a graph can have, equal to the last bit.

A detector's boxes move by a third of a pixel when its picture is resized by other software, so a
graph repeats the integer arithmetic of the software that the recipe names.
"""

import torch

_OPENCV_BITS = 11  # INTER_RESIZE_COEF_BITS of modules/imgproc/src/resize.cpp
_PILLOW_BITS = 22  # PRECISION_BITS of src/libImaging/Resample.c


def output_size(image: torch.Tensor, min_size: int, max_size: int) -> torch.Tensor:
    """Height and width as of Detectron2's ``ResizeShortestEdge``. int64, shape (2,).

    Args:
        image: shape (H, W, 3).
        min_size: what the short side becomes; 0 leaves it as it is.
        max_size: what the long side is at most.
    """
    size = torch._shape_as_tensor(image)[:2]  # stays a tensor in a trace
    if min_size == 0:
        return size
    exact = size.double()
    shortest = exact.min(dim=0, keepdim=True).values
    wanted, limit = _double(min_size), _double(max_size)
    # As there: the short side is not computed.
    scaled = torch.where(exact == shortest, wanted, exact * (wanted / shortest))
    longest = scaled.max(dim=0, keepdim=True).values
    scaled = torch.where(longest > limit, scaled * (limit / longest), scaled)
    return (scaled + 0.5).long()


def resize_as_opencv(image: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    """``cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)``.

    Args:
        image: uint8, shape (H, W, C).
        size: height and width, int64, shape (2,).

    Returns:
        uint8, shape (*size, C).
    """
    old = torch._shape_as_tensor(image)[:2]
    columns, column_weights = _opencv_taps(old[1:], size[1:], clamps_weights=True)
    rows, row_weights = _opencv_taps(old[:1], size[:1], clamps_weights=False)
    along_x = _sum_of_rows(image.transpose(0, 1).int(), columns, column_weights).transpose(0, 1)
    along_x = _shift_right(along_x, 4)
    upper, lower = (
        _shift_right(along_x[rows[:, tap]] * row_weights[:, tap, None, None], 16) for tap in (0, 1)
    )
    return _shift_right(upper + lower + 2, 2).byte()


def resize_as_pillow(image: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    """``PIL.Image.fromarray(image).resize(size, BILINEAR)``, which antialiases.

    Equal to Pillow's where both sides grow or both shrink, as here.

    Args:
        image: uint8, shape (H, W, C).
        size: height and width, int64, shape (2,).

    Returns:
        uint8, shape (*size, C).
    """
    old = torch._shape_as_tensor(image)[:2]
    columns, column_weights = _pillow_taps(old[1:], size[1:])
    rows, row_weights = _pillow_taps(old[:1], size[:1])
    # Pillow begins with x, but where rows that go are more than twice as many as columns that go.
    # (Found by trying, with Pillow 13: of 11,722 random sizes none is an exception.)
    rows_less, columns_less = (old - size).unbind()
    y_first = (rows_less > 0) & (rows_less > 2 * columns_less)
    return _two_passes(image.int(), columns, column_weights, rows, row_weights, y_first).byte()


def _opencv_taps(
    old: torch.Tensor, new: torch.Tensor, clamps_weights: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The two source pixels of each target pixel, and their weights. Shape (new, 2) each.

    Args:
        clamps_weights: whether a pixel at the edge has all the weight, as along x; along y, OpenCV
            takes the same row twice.
    """
    scale = _double(1) / (new.double() / old.double())
    position = ((torch.arange(new[0]).double() + 0.5) * scale - 0.5).float()
    first = position.floor()
    fraction = position - first
    if clamps_weights:
        is_inside = (first >= 0) & (first < (old - 1).float())
        fraction = torch.where(is_inside, fraction, torch.zeros_like(fraction))
    taps = torch.stack([first, first + 1], dim=1).long()
    weights = torch.stack([1.0 - fraction, fraction], dim=1) * (1 << _OPENCV_BITS)
    taps = torch.minimum(taps.clamp(min=0), old - 1)
    return taps, weights.round().int()


def _pillow_taps(old: torch.Tensor, new: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The source pixels of each target pixel, and their weights. Shape (new, taps) each."""
    one = _double(1)
    scale = old.double() / new.double()
    support = torch.maximum(scale, one)
    center = (torch.arange(new[0]).double() + 0.5) * scale
    first = (center - support + 0.5).clamp(min=0).floor()
    last = torch.minimum((center + support + 0.5).floor(), old.double())
    number = 2 * support.ceil().long() + 1
    taps = first[:, None] + torch.arange(number[0]).double()
    distance = (taps - center[:, None] + 0.5) * (one / support)
    weights = (1.0 - distance.abs()).clamp(min=0) * (taps < last[:, None]).double()
    weights = weights / weights.sum(dim=1, keepdim=True)
    weights = (weights * (1 << _PILLOW_BITS) + 0.5).floor().int()
    return torch.minimum(taps.long(), old - 1), weights


def _double(number: float) -> torch.Tensor:
    # Of shape (1,): the exporter computes with scalars in float32.
    return torch.tensor([number], dtype=torch.float64)


def _shift_right(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Of numbers that are not negative; ONNX shifts no signed integers."""
    return torch.div(values, 1 << bits, rounding_mode="trunc")


@torch.jit.script
def _sum_of_rows(image: torch.Tensor, taps: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The sum over t of ``image[taps[:, t]] * weights[:, t]``. int32, shape (len(taps), X, C).

    A loop, which a trace keeps: all taps of a phone's picture, a dozen, would take half a gigabyte.
    """
    total = image[taps[:, 0]] * weights[:, 0, None, None]
    for tap in range(1, taps.shape[1]):
        total = total + image[taps[:, tap]] * weights[:, tap, None, None]
    return total


@torch.jit.script
def _pillow_pass(image: torch.Tensor, taps: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Resize along the first axis. int32, shape (old, X, C) to (new, X, C)."""
    total = _sum_of_rows(image, taps, weights) + (1 << 21)  # half of 1 << _PILLOW_BITS
    return torch.div(total, 1 << 22, rounding_mode="trunc").clamp(max=255)


@torch.jit.script
def _two_passes(
    image: torch.Tensor,
    columns: torch.Tensor,
    column_weights: torch.Tensor,
    rows: torch.Tensor,
    row_weights: torch.Tensor,
    y_first: torch.Tensor,
) -> torch.Tensor:
    """Both sides, in one of two orders. A branch, which a trace keeps."""
    if bool(y_first):
        resized = _pillow_pass(image, rows, row_weights)
        return _pillow_pass(resized.transpose(0, 1), columns, column_weights).transpose(0, 1)
    resized = _pillow_pass(image.transpose(0, 1), columns, column_weights).transpose(0, 1)
    return _pillow_pass(resized, rows, row_weights)
