"""The names of the numbers in a run's files, written and read in one place.

val/belief_eps                squared prediction error in eps units, uniform in t over the time range
val/belief_eps/lam_2_4        the same in the band of log-SNR [2, 4)
val/excess_x0                 squared distance from the optimal prediction, in x0 units
fd/classifier_1k/floor        what real images score
"""

import re
from dataclasses import dataclass
from math import inf

#: Units of the prediction error, in the order in which they are shown.
CURRENCIES = ("eps", "x0", "v", "score")

#: Edges of the bands of log-SNR per which errors are reported.
BAND_EDGES = tuple(range(-20, 22, 2))

#: What "high", "middle" and "low" noise mean, everywhere: log-SNR from ... to ...
NOISE_REGIONS = {"high": (-inf, -4.0), "middle": (-4.0, 4.0), "low": (4.0, inf)}

#: `NOISE_REGIONS` in a sentence.
NOISE_REGIONS_TEXT = "High noise is log-SNR below -4, low noise above 4, the middle between them."

_BAND = re.compile(r"(?P<name>.+)/lam_(?P<low>-?[\d.]+)_(?P<high>-?[\d.]+)")
_ERROR = re.compile(rf"val/(?P<kind>belief|excess)_(?P<currency>{'|'.join(CURRENCIES)})")


@dataclass(frozen=True)
class ErrorKey:
    """A prediction error's name, taken apart.

    Attributes:
        kind: "belief" (the error itself) or "excess" (its distance from the optimal prediction).
        currency: One of `CURRENCIES`.
        band: (low, high) in log-SNR; None for the total.
    """

    kind: str
    currency: str
    band: tuple[float, float] | None = None


def band_key(name: str, low: int | float, high: int | float) -> str:
    """The name of `name` in the band [low, high) of log-SNR."""
    return f"{name}/lam_{low:g}_{high:g}"


def split_band(key: str) -> tuple[str, tuple[float, float] | None]:
    """A key without its band, and the band; None for a key that is no band's."""
    found = _BAND.fullmatch(key)
    return (found["name"], (float(found["low"]), float(found["high"]))) if found else (key, None)


def is_band(key: str) -> bool:
    """Whether the key is that of one band of log-SNR."""
    return split_band(key)[1] is not None


def parse_error_key(key: str) -> ErrorKey | None:
    """A prediction error's key taken apart; None for any other number."""
    name, band = split_band(key)
    found = _ERROR.fullmatch(name)
    return ErrorKey(found["kind"], found["currency"], band) if found else None
