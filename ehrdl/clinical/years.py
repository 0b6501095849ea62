"""Approximate calendar years of hospital stays in MIMIC-IV, which shifts the dates of each patient.

For each patient, MIMIC-IV gives one shifted year (anchor_year), and a range of three true years for it
(anchor_year_group).
"""

import pandas as pd


def approximate_years(
    group: pd.Series, anchor_year: pd.Series, year: pd.Series, last_year: int | None = None
) -> pd.DataFrame:
    """Return the range of true calendar years for each shifted year.

    Args:
        group: the patient's anchor_year_group, such as `2011 - 2013`.
        anchor_year: the patient's anchor_year. It is a shifted year, and its true year is in `group`.
        year: the shifted year to convert, such as the year of an admission.
        last_year: the last year of data in the MIMIC-IV release. It caps both ends of the range; None = no cap.

    Returns:
        The columns earliest and latest (float), with the index of `group`. They are NaN if the group or the anchor year
        is unknown.

    Source: MIMIC-IV documentation, patients.anchor_year_group.

    >>> known = pd.Series(["2014 - 2016", "2017 - 2019", None]), pd.Series([2150, 2150, 2150])
    >>> approximate_years(*known, year=pd.Series([2149, 2151, 2150]), last_year=2019).values.tolist()
    [[2013.0, 2015.0], [2018.0, 2019.0], [nan, nan]]
    """
    ends = group.astype("str").str.extract(r"^\s*(?P<earliest>\d{4})\s*-\s*(?P<latest>\d{4})\s*$").astype(float)
    years = ends.add(year - anchor_year, axis="index")
    return years if last_year is None else years.clip(upper=last_year)
