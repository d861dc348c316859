"""Names of numbers: what is written is read back, and nothing else is taken for it."""

import pytest

from diffexp.runs.metric_keys import BAND_EDGES, NOISE_REGIONS, ErrorKey, band_key, is_band, parse_error_key, split_band


@pytest.mark.parametrize(("low", "high"), [(-20, -18), (-2, 0), (4, 6), (0.5, 1.5)])
def test_a_band_is_read_back(low: int | float, high: int | float) -> None:
    assert split_band(band_key("val/belief_eps", low, high)) == ("val/belief_eps", (low, high))


def test_the_names_are_those_of_stored_runs() -> None:
    assert band_key("val/belief_eps", -12, -10) == "val/belief_eps/lam_-12_-10"


@pytest.mark.parametrize(
    ("key", "parsed"),
    [
        ("val/belief_eps", ErrorKey("belief", "eps")),
        ("val/excess_x0", ErrorKey("excess", "x0")),
        ("val/belief_score/lam_-2_0", ErrorKey("belief", "score", (-2.0, 0.0))),
        ("val/belief_other", None),
        ("val/loss", None),
        ("val/belief_eps/stderr", None),
        ("fd/classifier_1k", None),
    ],
)
def test_prediction_errors_are_told_from_other_numbers(key: str, parsed: ErrorKey | None) -> None:
    assert parse_error_key(key) == parsed


def test_a_metric_of_ones_own_is_no_band() -> None:
    assert not is_band("val/lam_error")
    assert is_band("own/thing/lam_2_4")


def test_regions_cover_every_noise_level_once() -> None:
    (first, *_), ends = sorted(NOISE_REGIONS.values()), sorted(high for _, high in NOISE_REGIONS.values())
    assert first[0] == -float("inf")
    assert ends[-1] == float("inf")
    assert [low for low, _ in sorted(NOISE_REGIONS.values())][1:] == ends[:-1]
    assert all(edge in BAND_EDGES for edge in (-4, 4))
