"""Mask images as they come: what a picture holds, before anybody asks what it means (`mask_rules`)."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from rts_batch.errors import PromptError
from rts_batch.manifest.mask_looks import numbers_regions, present_values
from rts_batch.masks import MAX_PIXELS

FORMATS: Final = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
LOSSY: Final = ("JPEG", "WEBP")
"""What does not keep every value; a lossless WebP cannot be told from another."""

REMEDY: Final = "draw the target white (255) on black (0), or number each target's pixels by its object_id"


@dataclass(frozen=True, kw_only=True)
class MaskImage:
    """A decoded picture. Which of the fields it has says what kind it is."""

    greys: NDArray[np.int32] | None = None
    """`[H, W]`; of a black and white picture 0 and 255."""
    indices: NDArray[np.int32] | None = None
    """`[H, W]`: into the palette, where it has one; then it has colours, too."""
    colours: NDArray[np.uint8] | None = None
    """`[H, W, 3]`."""
    opacity: NDArray[np.int32] | None = None
    """`[H, W]`, where it is not the same everywhere."""
    exact: bool = True
    """Whether the file keeps every value as it was written."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        picture = self.greys if self.greys is not None else self.colours
        assert picture is not None
        return picture.shape[0], picture.shape[1]


def open_mask_image(data: bytes) -> MaskImage:
    """Decode the bytes of a PNG, JPEG, WebP, BMP, TIFF or GIF.

    Raises:
        PromptError: it is none of these, damaged, too large, or several pictures.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise PromptError(f"the mask is {image.width}×{image.height} pixels, more than any video has")
            if getattr(image, "n_frames", 1) > 1:
                raise PromptError("the mask is several pictures in one file; give the one of the prompt's frame")
            return _decode(image, shades=_shades(data))
    except PromptError:
        raise
    except Exception as error:  # Pillow raises half a dozen kinds for damaged files
        raise PromptError(f"the mask {_what_else(data, error)}") from error


def _what_else(data: bytes, error: Exception) -> str:
    """Say why bytes are no picture."""
    if data.lstrip()[:1] in (b"{", b"["):
        return 'is text, not a picture; an RLE stands in the manifest itself: {"size": [height, width], "counts": "…"}'
    if isinstance(error, UnidentifiedImageError):
        return f"is not a picture that can be read ({', '.join(FORMATS)}), or is damaged at its beginning"
    return f"is a picture that is damaged or of an unknown kind: {error}"


def _shades(data: bytes) -> int:
    """How far apart Pillow puts the greys of a PNG that has 2 or 4 bits of them; 1 of any other file."""
    depth, colour = data[24:26] if data.startswith(b"\x89PNG") and len(data) > 25 else (8, 0)
    return 255 // (2**depth - 1) if colour == 0 and depth in (2, 4) else 1


def _decode(image: Image.Image, shades: int) -> MaskImage:
    exact = image.format not in LOSSY
    image.load()  # of a TIFF this turns it already, as the tag says
    ImageOps.exif_transpose(image, in_place=True)
    opacity = _opacity(image)
    if image.mode in ("P", "PA"):
        indices = np.asarray(image.getchannel("P") if image.mode == "PA" else image).astype(np.int32)
        colours = np.asarray(image.convert("RGB"))
        return MaskImage(indices=indices, colours=colours, opacity=opacity)
    if image.mode in ("1", "L", "LA", "La", "I", "F") or image.mode.startswith("I;16"):
        greys = _whole_values(image)
        return MaskImage(greys=_as_stored(greys, shades), opacity=opacity, exact=exact)
    colours = np.asarray(image.convert("RGB"))
    if (colours == colours[:, :, :1]).all():
        return MaskImage(greys=colours[:, :, 0].astype(np.int32), opacity=opacity, exact=exact)
    return MaskImage(colours=colours, opacity=opacity, exact=exact)


def _whole_values(image: Image.Image) -> NDArray[np.int32]:
    """Return greys as whole numbers, fractions from 0 to 1 as 0 to 255; of a black and white picture 0 and 255."""
    if image.mode == "1":
        return np.asarray(image).astype(np.int32) * 255
    values = np.asarray(image.getchannel(0) if image.mode in ("LA", "La") else image)
    fractions = np.issubdtype(values.dtype, np.floating) and bool((values % 1 != 0).any())
    if not 0 <= values.min() <= values.max() < 2**31 or (fractions and values.max() > 1.001):  # rounding
        kind = "fractions" if fractions else "values"
        raise PromptError(f"the mask's {kind} go from {values.min():g} to {values.max():g}; {REMEDY}")
    whole: NDArray[np.int32] = np.rint(values * 255 if fractions else values).astype(np.int32)
    return whole


def _as_stored(greys: NDArray[np.int32], shades: int) -> NDArray[np.int32]:
    """Return greys that were spread over 0 to 255 as the numbers in the file, unless they draw one target in white."""
    if shades == 1 or (255 in greys and (set(present_values(greys)) <= {0, 255} or not numbers_regions(greys))):
        return greys
    return greys // shades


def _opacity(image: Image.Image) -> NDArray[np.int32] | None:
    """Return the opacity `[H, W]` of a picture that is not as opaque everywhere, None of another."""
    if not image.has_transparency_data or image.mode.startswith("I"):
        return None
    opacity = np.asarray(image.convert("RGBA"))[:, :, 3].astype(np.int32)
    if opacity.min() < opacity.max():
        return opacity
    if opacity.max() == 0:
        raise PromptError("the mask is transparent everywhere")
    return None
