"""Statistics with known answers, and numbers as they are shown."""

import math

import pytest
from scipy import stats

from diffexp.report.format import bounds, listed, share
from diffexp.report.statistics import holm, mean_over_seeds, paired_difference


def test_the_interval_of_three_seeds_is_that_of_a_t_table() -> None:
    found = mean_over_seeds([1.0, 2.0, 3.0])
    assert found is not None
    assert found.half_width is not None
    assert found.mean == 2.0
    assert found.half_width == pytest.approx(4.302652730 / math.sqrt(3), rel=1e-9)  # t_{2, 0.975}, s = 1


def test_the_interval_and_p_agree_with_scipys_t_test() -> None:
    values = [0.31, 0.29, 0.36, 0.27, 0.33]
    found, expected = mean_over_seeds(values), stats.ttest_1samp(values, 0.0)
    assert found is not None
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)


def test_a_paired_difference_agrees_with_scipys_paired_test_and_not_with_the_unpaired_one() -> None:
    one, two = [1.01, 2.03, 3.02, 4.05], [1.0, 2.0, 3.0, 4.0]
    found = paired_difference(dict(enumerate(one)), dict(enumerate(two)))
    paired = stats.ttest_rel(one, two)
    assert found is not None
    assert found.p == pytest.approx(paired.pvalue, rel=1e-6)
    assert found.low == pytest.approx(paired.confidence_interval(0.95).low, rel=1e-9)
    assert found.excludes_zero
    assert stats.ttest_ind(one, two).pvalue > 0.9


def test_only_seeds_on_both_sides_are_paired() -> None:
    found = paired_difference({0: 1.0, 1: 2.0, 7: 100.0}, {1: 1.5, 0: 0.0, 9: -100.0})
    assert found is not None
    assert (found.mean, found.n) == (0.75, 2)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_one_seed_has_no_interval_and_no_p() -> None:
    found = mean_over_seeds([0.3])
    assert found is not None
    assert (found.mean, found.low, found.high, found.p, found.n) == (0.3, None, None, None, 1)
    assert not found.excludes_zero
    assert mean_over_seeds([]) is None


def test_seeds_without_any_scatter_are_not_a_division_by_zero() -> None:
    same, zero = mean_over_seeds([0.1] * 3), mean_over_seeds([0.0] * 3)
    assert same is not None
    assert zero is not None
    assert (same.low, same.high) == pytest.approx((0.1, 0.1))
    assert zero.p == 1.0


def test_holm_steps_down_as_in_the_textbook() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_bounds_have_two_digits_of_their_half_width() -> None:
    found = mean_over_seeds([0.10, 0.11, 0.12])
    assert found is not None
    assert bounds(found) == "[0.085, 0.135]"


def test_parts_and_lists_are_short() -> None:
    assert [share(part) for part in (1e-6, 0.0089, 0.034, 0.6, 0.998, 7.43)] == [
        "less than 0.01 %", "0.89 %", "3.4 %", "60 %", "100 %", "a factor of 8.43"]  # fmt: skip
    assert listed(["a", "b", "c", "d"], most=2) == "a, b and 2 more"
