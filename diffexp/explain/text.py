"""What could be learned, in plain words with the numbers."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from diffexp.report.format import listed, number

if TYPE_CHECKING:
    from diffexp.explain.losses import Explained, Explanation

PREDICTABLE = "How can noise be predicted at all?"
FASTER = "Does the loss of one of them fall faster?"

LEVELS = "High noise is log-SNR below -4, low noise above 4, the middle between them."

_LEVELS = (("high noise", -6.0), ("middle noise", 0.0), ("low noise", 6.0))
_LINEAR_OVERFITS = 10  # images per dimension, below which the linear denoiser fits its own images too well
_SMALL = 0.1


def question(found: "Explanation", settings: Mapping[str, str]) -> str:
    """The title."""
    return f"How well can {listed(list(found.targets))} be predicted on {settings['data']}?"


def setting(found: "Explanation", settings: Mapping[str, str]) -> str:
    """What was asked, in one line."""
    low, high = found.time_range
    chosen = ", ".join(f"{key} {value}" for key, value in settings.items())
    return f"{chosen}, t from {low:g} to {high:g}; {found.dimension:,} dimensions, power {number(found.power)}"


def is_plain(settings: Mapping[str, str]) -> bool:
    """Whether the loss is each target's own squared error, without weighting."""
    return settings["space"] == "native" and settings["weighting"] == "uniform"


def optimum_of(found: "Explanation") -> str:
    """Whose optimum it is, for headings."""
    return "optimum" if found.images is None else f"optimum of these {found.images:,} images"


def whose_floor(found: "Explanation") -> str:
    """What the optimum stands for, and what it does not."""
    if found.images is None:
        return "The density of this data is known, so the optimum is the population's own: no network can do better."
    n = f"{found.images:,}"
    told = (
        f"The optimum is the floor of these {n} training images: what a network that knew them by heart would reach. "
        "It is not the floor of the population that they were drawn from, which lies higher. "
    )
    if found.r2_linear is None:
        return f"{told}The best linear denoiser is left out: {found.dimension:,} dimensions are too many for it."
    told += (
        "The best linear denoiser knows the mean and the covariance of these images and nothing else: so much can "
        "surely be learned. The population's optimum lies between the two"
    )
    if found.images < _LINEAR_OVERFITS * found.dimension:
        return (
            f"{told}; but {n} images are few for a covariance in {found.dimension:,} dimensions, so that the linear "
            "denoiser too does better on them than it would on others."
        )
    return f"{told} (the linear one is estimated on these {n} images)."


def predictable(found: "Explanation") -> list[str]:
    """How much of the noise x_t gives away, from high noise to low."""
    told = [
        "The noise eps is drawn without looking at the image or at t, but the network sees x_t = alpha x0 + sigma eps, "
        "and x_t holds it. Whatever is known of images is known of the noise: what looks like no image is noise.",
    ]
    last = -1
    for name, wanted in _LEVELS:
        at = min(range(len(found.log_snr)), key=lambda i: abs(found.log_snr[i] - wanted))
        if at == last:
            continue
        last = at
        noise = math.exp(-found.log_snr[at] / 2)
        place = f"At {name} (t = {found.times[at]:.3g}, the noise {noise:.3g} times as large as a signal of power 1)"
        parts = [f"the best multiple of x_t explains {percent(found.r2_multiple[at])} of eps"]
        if found.r2_linear is not None:
            parts.append(f"the best linear denoiser {percent(found.r2_linear[at])}")
        error = _error(100 * found.r2[at], 100 * found.r2_stderr[at])
        parts.append(f"the {optimum_of(found)} {percent(found.r2[at])}{error}")
        why = ": x_t / sigma is almost the noise itself" if name == "high noise" and noise > math.e**2 else ""
        told.append(f"{place} {listed(parts)}{why}.")
    return told


def of_target(name: str, found: "Explanation", plain: bool) -> list[str]:
    """Where its loss starts, how far it can fall and by what, and which noise it is paid for.

    Args:
        name: The target.
        found: All.
        plain: The loss is the target's own squared error, without weighting.
    """
    explained = found.targets[name]
    mean = explained.mean
    fall = mean.zero - mean.optimum
    least = f"{number(mean.optimum)}{_error(mean.optimum, mean.stderr)}"
    images = "" if found.images is None else f" on these {found.images:,} images"
    told = f"Its loss starts at {number(mean.zero)} when it answers zero and cannot go below {least}{images}"
    if mean.label_noise > mean.zero / 2:
        told += (
            f": {percent(mean.label_noise / mean.zero)} of it is noise that no network can see, and all that can be "
            f"learned lowers it by {percent(fall / mean.zero)}. A network that has learned nothing looks converged."
        )
    elif mean.label_noise > 0:
        told += (
            f", a fall of {percent(fall / mean.zero)}. Of what is left there "
            f"{percent(mean.label_noise / mean.optimum)} is noise that no network can see."
        )
    else:
        told += f", a fall of {percent(fall / mean.zero)}."
    return [told, _way(explained), *_smallness(explained, plain), _weight(explained, found)]


def faster(found: "Explanation", plain: bool) -> list[str]:
    """Why loss curves of different targets cannot be compared; arguments as in `of_target`."""
    starts = [f"{name} {number(explained.mean.zero)}" for name, explained in found.targets.items()]
    told = [
        f"Answering zero costs {listed(starts)}. That is how large the target is"
        f"{'' if plain else ' and how it is weighted'}, not how well it is predicted: a loss curve "
        "that lies lower, or is flat sooner, is no sign of learning faster."
    ]
    if plain:
        name, least = min(((n, x.mean.zero) for n, x in found.targets.items()), key=lambda pair: pair[1])
        told.append(
            f"A fresh network whose answers have variance q starts at q above the loss of answering zero, and loses q "
            f"by learning to be silent. For {name} with q = 1 that is {percent(1 / (1 + least))} of the first loss: "
            "the steep part of its curve, and none of it is denoising. (Networks here start at q = 0: their last layer "
            "is zero.)"
        )
    beyond = [f"{name} {percent(_beyond(x))}" for name, x in found.targets.items()]
    told.append(
        f"Of the fall from there to the optimum, so much is left once x_t is scaled: {listed(beyond)}. Only that takes "
        "any knowledge of what images look like."
    )
    if len(found.targets) > 1:
        told.append(
            "x_t being known, every one of these optimal answers follows from the same E[eps | x_t]: none is easier "
            "to know than another. The targets differ in scale, in the noise levels that their loss pays for, and in "
            "fresh noise, which changes no expected gradient and makes each gradient noisier. Compare networks by "
            "their error in eps at equal noise (val/belief_eps), not by their losses."
        )
    return told


def table(found: "Explanation") -> tuple[list[str], list[list[str]]]:
    """(headings, one row for each target), of expected losses and of shares."""
    linear = found.r2_linear is not None
    head = ["target", "answering zero", "best multiple of x_t", *(["best linear"] if linear else []), optimum_of(found),
            "label noise", "learnable", "of it beyond scaling x_t"]  # fmt: skip
    rows: list[list[str]] = []
    for name, explained in found.targets.items():
        mean = explained.mean
        losses = [mean.zero, mean.multiple, *([mean.linear] if mean.linear is not None else [])]
        optimum = f"{number(mean.optimum)}{_error(mean.optimum, mean.stderr)}"
        label = number(mean.label_noise) if mean.label_noise else "0"
        shares = [percent(1 - mean.optimum / mean.zero), percent(_beyond(explained))]
        rows.append([name, *map(number, losses), optimum, label, *shares])
    return head, rows


def legend(found: "Explanation") -> str:
    """How the table is to be read."""
    error = " +-: standard error of the Monte Carlo estimate." if any(found.r2_stderr) else ""
    return (
        "Expected training loss per dimension. Label noise: the part of each that is fresh noise in the target. "
        f"Learnable: from answering zero to the {optimum_of(found)}.{error}"
    )


def percent(share: float) -> str:
    """ "98.5 %", with as many digits as tell it from 0 and from 100 %."""
    rest = 1 - share
    if share <= 0 or rest < 5e-7:
        return f"{100 * max(share, 0):.0f} %"
    places = min(max(-1 - math.floor(math.log10(rest)), 1), 4)
    return f"{100 * share:.3g} %" if share < 0.1 else f"{100 * share:.{places}f} %"


def _way(explained: "Explained") -> str:
    """Which part of the fall costs which knowledge."""
    mean = explained.mean
    fall = mean.zero - mean.optimum
    if fall <= 1e-9 * mean.zero:
        return "There is nothing to learn: answering zero is optimal."
    way = percent((mean.zero - mean.multiple) / fall)
    told = f"Scaling x_t brings it to {number(mean.multiple)}, {way} of the way there"
    if mean.linear is not None:
        told += f", the best linear denoiser to {number(mean.linear)}, {percent((mean.zero - mean.linear) / fall)}"
    return f"{told}."


def _smallness(explained: "Explained", plain: bool) -> list[str]:
    zero = explained.mean.zero
    if not plain or zero > _SMALL:
        return []
    return [f"The numbers are small because the target is: its root mean square is {math.sqrt(zero):.2g}."]


def _weight(explained: "Explained", found: "Explanation") -> str:
    high, middle, low = map(percent, explained.shares)
    told = (
        f"Of what it pays for errors in eps, {high} lies at high noise, {middle} in the middle and {low} at low noise"
    )
    if all(math.isclose(a, b, abs_tol=2e-3) for a, b in zip(explained.shares, found.time_shares, strict=True)):
        return f"{told}: every time counts alike."
    return f"{told}, where the training times have {listed([percent(share) for share in found.time_shares])}."


def _beyond(explained: "Explained") -> float:
    """What of the fall is left once x_t is scaled."""
    mean = explained.mean
    fall = mean.zero - mean.optimum
    return (mean.multiple - mean.optimum) / fall if fall > 1e-9 * mean.zero else 0.0


def _error(value: float, stderr: float) -> str:
    """ " +-0.0001" where it would show in four digits."""
    return f" +-{stderr:.1g}" if stderr > 1e-4 * abs(value) else ""
