"""Approximate years of stays: MIMIC-IV shifts each patient's dates, and gives a range of three years for one date."""

import pandas as pd


def approximate_years(
    group: pd.Series, anchor_year: pd.Series, year: pd.Series, last_year: int | None = None
) -> pd.DataFrame:
    """Return the range of true years for each shifted year.

    Args:
        group: the patient's anchor_year_group, such as `2011 - 2013`.
        anchor_year: the shifted year to which the group belongs.
        year: the shifted year in question, such as an admission's.
        last_year: the release's last year, which caps both ends of the range; None = no cap.

    Returns:
        earliest and latest (float, indexed as `group`); NaN if the group or the anchor year is unknown.

    Source: MIMIC-IV documentation, patients.anchor_year_group.

    >>> known = pd.Series(["2014 - 2016", "2017 - 2019", None]), pd.Series([2150, 2150, 2150])
    >>> approximate_years(*known, year=pd.Series([2149, 2151, 2150]), last_year=2019).values.tolist()
    [[2013.0, 2015.0], [2018.0, 2019.0], [nan, nan]]
    """
    ends = group.astype("str").str.extract(r"^\s*(?P<earliest>\d{4})\s*-\s*(?P<latest>\d{4})\s*$").astype(float)
    years = ends.add(year - anchor_year, axis="index")
    return years if last_year is None else years.clip(upper=last_year)
