"""Random changes of colour and sharpness, of whole batches on the model's device.

Each operation takes the images of a batch and one number per image. The numbers follow from the sample's chance and the
epoch, as its crop does. They are drawn on the host, so nothing waits for a GPU. An image that is not drawn for an
operation stays as it was, bit for bit. The operations equal torchvision's to the last rounding, but work on floats from
end to end, where torchvision's operations on PIL images round to whole numbers after each.

Source of the sequence: Chen et al., ICML 2020 (SimCLR, appendix A), https://arxiv.org/abs/2002.05709
"""

# B images, H height, W width, T side of square images, R taps of a blur

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from curate.errors import require
from train.augment import chance
from train.augment.chance import Chances
from train.augment.upload import upload

GREY = (0.2989, 0.587, 0.114)  # what red, green and blue weigh in a pixel's lightness, as torchvision has it
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


@dataclass(frozen=True)
class ColorAugment:
    """Random changes of an image, in this order.

    Args:
        jitter: how far brightness, contrast, saturation (factors 1 - x to 1 + x) and hue (turns -x to x, 0.5 being
            half the circle) may go; the four follow each other in an order that is chance as well.
        jitter_share: of the images, to be jittered, in [0, 1].
        grey_share: of the images, to lose their colours.
        blur_share: of the images, to be blurred.
        blur_sigma: least and largest, in pixels.
        blur_span: width of the blur as a share of the image's side, made odd; with a tenth, images under 20 px stay
            sharp.
        solarize_share: of the images, to have what is lighter than the middle turned dark.
    """

    jitter: tuple[float, float, float, float] = (0.8, 0.8, 0.8, 0.2)
    jitter_share: float = 0.8
    grey_share: float = 0.2
    blur_share: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    blur_span: float = 0.1
    solarize_share: float = 0.0

    def __post_init__(self) -> None:
        for name in ("jitter_share", "grey_share", "blur_share", "blur_span", "solarize_share"):
            value = getattr(self, name)
            require(0 <= value <= 1, name, value, "a share, in [0, 1]")
        good = min(self.jitter) >= 0 and self.jitter[HUE] <= 0.5
        require(good, "jitter", self.jitter, "0 or more, and that of the hue at most 0.5")
        low, high = self.blur_sigma
        require(0 < low <= high, "blur_sigma", self.blur_sigma, "two numbers above 0, the smaller first")

    def __call__(self, images_B3TT: Tensor, draws: ColorDraws) -> Tensor:
        """Change a batch (float32, 0..1) as drawn; the input is overwritten."""
        images_B3TT = jitter(images_B3TT, draws.order, draws.factors)
        images_B3TT = greyed(images_B3TT, draws.grey)
        rows = np.flatnonzero(draws.sigma)
        radius = int(images_B3TT.shape[-1] * self.blur_span) // 2
        if len(rows) and radius:
            index = upload(rows, images_B3TT.device)
            images_B3TT.index_copy_(0, index, blurred(images_B3TT[index], draws.sigma[rows], radius))
        return solarized(images_B3TT, draws.solarize) if self.solarize_share else images_B3TT

    def draw(self, chances_B: Chances, epoch: int) -> ColorDraws:
        """Draw the changes of each image in an epoch."""

        def drawn(salt: str) -> np.ndarray:
            return chance.uniform(chances_B, epoch, f"photo/{salt}")

        reach = np.array(self.jitter)
        low = np.where(np.arange(4) == HUE, -reach, np.maximum(0, 1 - reach))
        high = np.where(np.arange(4) == HUE, reach, 1 + reach)
        factors_B4 = low + (high - low) * np.stack([drawn(f"factor/{op}") for op in range(4)], axis=1)
        spared_B = drawn("jitter") >= self.jitter_share
        factors_B4[spared_B] = (1, 1, 1, 0)
        least, most = self.blur_sigma
        sigma_B = least + (most - least) * drawn("sigma")
        return ColorDraws(
            order=np.argsort(np.stack([drawn(f"order/{op}") for op in range(4)], axis=1), axis=1),
            factors=factors_B4,
            grey=drawn("grey") < self.grey_share,
            sigma=np.where(drawn("blur") < self.blur_share, sigma_B, 0.0),
            solarize=drawn("solarize") < self.solarize_share,
        )


@dataclass(frozen=True)
class ColorDraws:
    """The drawn changes of each image of a batch.

    Args:
        order: B4, the operations (BRIGHTNESS, CONTRAST, SATURATION, HUE) one after the other.
        factors: B4, of brightness, contrast, saturation (1 for unchanged) and hue (0), in this order.
        grey: B, bool.
        sigma: B, of the blur in pixels; 0 for none.
        solarize: B, bool.
    """

    order: np.ndarray
    factors: np.ndarray
    grey: np.ndarray
    sigma: np.ndarray
    solarize: np.ndarray


def jitter(images_B3HW: Tensor, order_B4: np.ndarray, factors_B4: np.ndarray) -> Tensor:
    """Change brightness, contrast, saturation and hue of each image in its own order, in place."""
    device = images_B3HW.device
    for op_B in order_B4.T:
        factor_B = np.take_along_axis(factors_B4, op_B[:, None], axis=1)[:, 0]
        hue = np.flatnonzero((op_B == HUE) & (factor_B != 0))
        if len(hue):
            index = upload(hue, device)
            images_B3HW.index_copy_(0, index, shift_hue(images_B3HW[index], factor_B[hue]))
        factor_B = np.where(op_B == HUE, 1.0, factor_B)
        if (factor_B != 1).any():
            _blend(images_B3HW, op_B, factor_B)
    return images_B3HW


def _blend(images_B3HW: Tensor, op_B: np.ndarray, factor_B: np.ndarray) -> None:
    """Mix each image with black (brightness), its mean grey (contrast) or its grey self (saturation), in place.

    One pass for all three; a factor of 1 leaves an image as it is, to the bit, as 1 * x + 0 * y does.
    """
    device = images_B3HW.device
    weight_B111 = _column(factor_B, device)
    rest_B = 1 - factor_B
    grey_B1HW = grey(images_B3HW)
    mean_B111 = grey_B1HW.mean(dim=(2, 3), keepdim=True)
    grey_B1HW = grey_B1HW * _column(np.where(op_B == SATURATION, rest_B, 0.0), device)
    mean_B111 = mean_B111 * _column(np.where(op_B == CONTRAST, rest_B, 0.0), device)
    images_B3HW.mul_(weight_B111).add_(grey_B1HW + mean_B111).clamp_(0, 1)


def shift_hue(images_B3HW: Tensor, turn_B: np.ndarray) -> Tensor:
    """Turn each image's hues by a share of the colour circle.

    The hue lies on a circle of 6: red at 0, green at 2, blue at 4. A channel is the least of the three values, plus
    their range times how near the hue is to it: HSV to RGB without its six cases.
    """
    red, green, blue = images_B3HW.unbind(1)
    most_BHW = torch.maximum(torch.maximum(red, green), blue)  # on a CPU twice as fast as amax
    least_BHW = torch.minimum(torch.minimum(red, green), blue)
    range_BHW = most_BHW - least_BHW
    is_red, is_green = most_BHW == red, most_BHW == green
    hue_BHW = torch.where(is_red, green - blue, torch.where(is_green, blue - red, red - green))
    hue_BHW.div_(torch.where(range_BHW > 0, range_BHW, 1))
    hue_BHW.add_(torch.where(is_red, 0.0, torch.where(is_green, 2.0, 4.0)))
    hue_BHW.add_(_column(6 * turn_B, images_B3HW.device)[:, 0]).remainder_(6)
    turned_B3HW = torch.empty_like(images_B3HW)
    nearness = (
        (hue_BHW - 3).abs_().sub_(1),  # red, which lies at 0 and at 6
        (hue_BHW - 2).abs_().neg_().add_(2),
        (hue_BHW - 4).abs_().neg_().add_(2),
    )
    for channel, near_BHW in enumerate(nearness):
        torch.addcmul(least_BHW, range_BHW, near_BHW.clamp_(0, 1), out=turned_B3HW[:, channel])
    return turned_B3HW


def grey(images_B3HW: Tensor) -> Tensor:
    """Return the lightness of each pixel: B1HW."""
    red, green, blue = images_B3HW.unbind(1)
    return (GREY[0] * red + GREY[1] * green + GREY[2] * blue)[:, None]


def greyed(images_B3HW: Tensor, which_B: np.ndarray) -> Tensor:
    """Turn some images grey, in place."""
    rows = np.flatnonzero(which_B)
    if len(rows):
        index = upload(rows, images_B3HW.device)
        images_B3HW.index_copy_(0, index, grey(images_B3HW[index]).expand(-1, 3, -1, -1))
    return images_B3HW


def blurred(images_B3TT: Tensor, sigma_B: np.ndarray, radius: int) -> Tensor:
    """Blur each image by a Gaussian of its own width, mirrored at the edges, as two matrix products an image.

    Args:
        images_B3TT: floats.
        sigma_B: above 0, in pixels.
        radius: the kernel has 2 * radius + 1 taps; less than T.
    """
    side, device = images_B3TT.shape[-1], images_B3TT.device
    distance_R = np.arange(-radius, radius + 1)
    taps_BR = np.exp(-0.5 * (distance_R / sigma_B[:, None]) ** 2)
    taps_BR /= taps_BR.sum(axis=1, keepdims=True)
    weights_BR = upload(taps_BR.astype(np.float32), device)
    weights_B1TT = (weights_BR @ _taps(side, radius, device)).view(-1, 1, side, side)
    return weights_B1TT @ images_B3TT @ weights_B1TT.transpose(2, 3)


@lru_cache(maxsize=4)
def _taps(side: int, radius: int, device: torch.device) -> Tensor:
    """Return for each tap which input pixel it takes for each output pixel: R x T*T, of zeros and ones."""
    out_T1, tap_R = np.arange(side)[:, None], np.arange(2 * radius + 1)
    at_TR = np.abs(out_T1 + tap_R - radius)
    at_TR = np.where(at_TR >= side, 2 * (side - 1) - at_TR, at_TR)
    taken_RTT = np.zeros((2 * radius + 1, side, side), np.float32)
    taken_RTT[tap_R, out_T1, at_TR] = 1
    return upload(taken_RTT.reshape(2 * radius + 1, -1), device)


def solarized(images_B3HW: Tensor, which_B: np.ndarray) -> Tensor:
    """Invert the values of 0.5 and more, of some images."""
    turned_B3HW = (images_B3HW >= 0.5) & _column(which_B, images_B3HW.device)
    return torch.where(turned_B3HW, 1 - images_B3HW, images_B3HW)


def _column(values_B: np.ndarray, device: torch.device) -> Tensor:
    """Return one number an image, to be combined with B3HW: float32, or bool."""
    kind = values_B.dtype if values_B.dtype == bool else np.float32
    return upload(values_B.astype(kind), device).view(-1, 1, 1, 1)
