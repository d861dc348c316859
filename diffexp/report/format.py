"""Numbers and lists as they stand in sentences and tables."""

import math
from collections.abc import Sequence

from diffexp.report.statistics import Mean


def number(value: float) -> str:
    """Four significant digits."""
    return _signed(f"{value:.4g}")


def count(value: int | float) -> str:
    """ "64,000"."""
    return f"{value:,.0f}"


def scaled(value: float) -> str:
    """ "4.12 G": three digits and the power of a thousand."""
    for power, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= power:
            return f"{value / power:.3g} {unit}"
    return f"{number(value)} "


def bounds(mean: Mean) -> str:
    """ "[0.0094, 0.0151]", to two digits of the interval's half width; "n = 1" for one seed."""
    if mean.low is None or mean.high is None:
        return "n = 1"
    half = mean.high - mean.mean
    places = 1 - math.floor(math.log10(half)) if half > 0 else 4
    if not 0 <= places <= 5:
        return f"[{_signed(f'{mean.low:.4g}')}, {_signed(f'{mean.high:.4g}')}]"
    return f"[{_signed(f'{mean.low:.{places}f}')}, {_signed(f'{mean.high:.{places}f}')}]"


def interval(mean: Mean) -> str:
    """ "0.012 [0.009, 0.015]"; "0.012" for one seed."""
    return number(mean.mean) if mean.low is None else f"{number(mean.mean)} {bounds(mean)}"


def spread(values: Sequence[float]) -> str:
    """ "1.3", or "1.3 to 2.1" where the values differ; "" for none."""
    if not values:
        return ""
    low, high = number(min(values)), number(max(values))
    return low if low == high else f"{low} to {high}"


def share(part: float) -> str:
    """ "3.4 %"; "a factor of 8.4" for a part that is added to a whole and larger than it."""
    if part >= 1:
        return f"a factor of {1 + part:.3g}"
    return "less than 0.01 %" if 0 < part < 1e-4 else f"{100 * part:.2g} %" if part < 0.995 else f"{100 * part:.0f} %"


def percent(part: float) -> str:
    """ "37 %", rounded down: 100 % is for the whole alone."""
    return f"{int(100 * part)} %"


def rounded_percent(part: float) -> str:
    """ "38 %"."""
    return f"{100 * part:.0f} %"


def log_snr_range(low: float, high: float) -> str:
    """ "log-SNR above 4", "log-SNR from -4 to 4"; a bound that is infinite is left out."""
    if low == -math.inf:
        return f"log-SNR below {high:g}"
    return f"log-SNR above {low:g}" if high == math.inf else f"log-SNR from {low:g} to {high:g}"


def age(seconds: float) -> str:
    """ "12 s", "3 min", "5 h", "4 d"."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def listed(words: Sequence[str], most: int = 1000) -> str:
    """ "a, b and c", and after `most` of them the number of the others."""
    words = [*words[:most], f"{len(words) - most} more"] if len(words) > most else words
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def counted(n: int, noun: str) -> str:
    """ "1 run", "2 runs"."""
    return f"{n} {noun}" + ("" if n == 1 else "s")


def precise_percent(part: float) -> str:
    """ "98.5 %", with as many digits as distinguish it from 0 and from 100 %."""
    rest = 1 - part
    if part <= 0 or rest < 5e-7:
        return f"{100 * max(part, 0):.0f} %"
    places = min(max(-1 - math.floor(math.log10(rest)), 1), 4)
    return f"{100 * part:.3g} %" if part < 0.1 else f"{100 * part:.{places}f} %"


def _signed(digits: str) -> str:
    """A true minus sign, but not within an exponent."""
    return digits.replace("-", "\N{MINUS SIGN}", 1) if digits.startswith("-") else digits
