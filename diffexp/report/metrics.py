"""What is measured: names, order, direction, and one line of explanation each."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from diffexp.report.format import number, share

#: The currencies of the belief error, in the order in which they are shown.
CURRENCIES = ("eps", "x0", "v", "score")

#: Every error of a belief, by the name that a figure gives it: in each currency, and in each its excess.
ERRORS = {unit: f"val/belief_{unit}" for unit in CURRENCIES} | {f"excess, {u}": f"val/excess_{u}" for u in CURRENCIES}

MEANINGS = {
    "eps": "squared error of the eps that the network's answer implies, on the same fixed held-out "
    "(x0, t, eps) for every run; answering eps = 0 costs about 1",
    "x0": "the same belief read as a clean image: e^-lam times the eps-error at log-SNR lam, so it counts high noise",
    "v": "the same belief in v units: (1 + e^-lam) times the eps-error (where alpha^2 + sigma^2 = 1)",
    "score": "the same belief as a score: 1 / sigma^2 times the eps-error, so it counts low noise",
    "excess": "squared difference from the best possible belief, which is known for this data: the belief error "
    "without the part that nobody can avoid; 0 is perfect",
    "bits": "the variational bound on held-out images in bits per dimension: of 8-bit values, or of a density on the "
    "scale [-1, 1] where the data is not quantised (then it may be negative)",
    "fd": "Frechet distance between features of samples and of real images",
    "fid": "Frechet distance on the published Inception features",
    "kid": "kernel (MMD) distance on features, unbiased, so it can be slightly negative",
    "precision": "share of samples that lie among real images (higher is better)",
    "recall": "share of real images that lie among samples (higher is better)",
}

_HIGHER_IS_BETTER = ("precision", "recall", "density", "coverage", "accuracy")
_ERROR = re.compile(rf"val/(belief|excess)_({'|'.join(CURRENCIES)})")
_SAMPLE_ORDER = ("fid", "fd", "kid", "precision", "recall")


@dataclass(frozen=True)
class Metric:
    """A number that is comparable across the runs of a study.

    Attributes:
        key: Its name in run.json, for example "fd/classifier_1k".
    """

    key: str

    @property
    def currency(self) -> str | None:
        """eps, x0, v or score, for a belief error and for its excess over the optimum's."""
        found = _ERROR.fullmatch(self.key)
        return found[2] if found else None

    @property
    def excess(self) -> bool:
        """Whether it is a belief error's excess over the best possible."""
        return self.currency is not None and self.key.startswith("val/excess_")

    @property
    def family(self) -> str:
        """What kind of number it is: a currency, "excess", "bits", or the first part of its name."""
        if self.excess:
            return "excess"
        if self.currency:
            return self.currency
        return "bits" if self.key.endswith("bits_per_dim") else self.key.split("/")[0]

    @property
    def title(self) -> str:
        if self.currency:
            return f"{'excess' if self.excess else 'belief'} error, {self.currency}"
        if self.family == "bits":
            return "bits/dim"
        family, _, features = self.key.partition("/")
        return f"{family.upper() if len(family) <= 3 else family} {features.replace('_', ' ')}".strip()

    @property
    def meaning(self) -> str:
        return MEANINGS.get(self.family, "")

    @property
    def floor(self) -> str:
        """The key of the best that can be expected: what real images score, or the optimum where it is known."""
        return f"{self.key}/floor"

    @property
    def floor_count(self) -> str:
        """The key of how many real images the floor rests on, where they are fewer than the samples."""
        return f"{self.floor}_count"

    @property
    def unreliable(self) -> str:
        """The key that marks a metric of too few images for its features."""
        return f"{self.key}/unreliable"

    @property
    def of_samples(self) -> bool:
        return self.currency is None and self.family != "bits"

    @property
    def absolute(self) -> bool:
        """Whether only differences mean something: bits/dim has no zero that means perfection."""
        return self.family == "bits"

    def amount(self, gap: float) -> str:
        """A lead in words: "3.4 %", or "0.03 bits/dim"."""
        return f"{number(gap)} {self.title}" if self.absolute else share(gap)

    @property
    def higher_is_better(self) -> bool:
        return self.family in _HIGHER_IS_BETTER


def shown_metrics(metrics: Iterable[Metric]) -> list[Metric]:
    """Without the belief errors whose excess over the optimum is among them: it tells the same, with less scatter."""
    metrics = list(metrics)
    better = {metric.currency for metric in metrics if metric.excess}
    return [metric for metric in metrics if metric.excess or metric.currency not in better or not metric.currency]


def comparable_metrics(keys: Iterable[str]) -> list[Metric]:
    """Those of `keys` that may be compared across targets: errors of beliefs, bits/dim, metrics of samples.

    Losses are not among them: each is in units of its own.
    """
    metrics = [Metric(key) for key in set(keys) if _is_comparable(key)]
    return sorted(metrics, key=_order)


def _is_comparable(key: str) -> bool:
    metric = Metric(key)
    if metric.currency or metric.family == "bits":
        return True
    return key.count("/") == 1 and metric.family not in ("val", "train", "time", "test")


def _order(metric: Metric) -> tuple[int, int, str]:
    if metric.currency:
        return 0, CURRENCIES.index(metric.currency), metric.key.replace("excess", "with_excess")
    if not metric.of_samples:
        return 1, 0, metric.key
    known = metric.family in _SAMPLE_ORDER
    return 2, _SAMPLE_ORDER.index(metric.family) if known else len(_SAMPLE_ORDER), metric.key
