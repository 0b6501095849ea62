"""Numbers the hospital stays of a MEDS dataset that has no ids for them: 1, 2, … within each subject.

A run of consecutive admissions is paired, in order, with the discharges that follow the run. Stays may therefore
overlap by some hours. If there are too few discharges, the first admissions of the run have none. A stay without a
discharge ends before the next admission.
"""

_OPENS = "(c.code = 'ADMISSION' OR starts_with(c.code, 'ADMISSION//'))"
_CLOSES = "(c.code = 'DISCHARGE' OR starts_with(c.code, 'DISCHARGE//'))"
#: Later than any time, and still within the integer range when doubled [µs since 1970].
_NEVER = "4_000_000_000_000_000_000"

#: Makes the table `places` from {rows} and the table `codes`. It tells which stay each moment belongs to. Places count
#: half microseconds: 2t stands for events at t, and 2t + 1 for an admission at t. An event at the end of a stay belongs
#: to that stay, and an admission to the stay that it begins. Any other event belongs to the open stay with the latest
#: admission.
NUMBER_STAYS = f"""
    CREATE TEMP TABLE paired AS
    WITH bounds AS (
        SELECT DISTINCT CAST(e.subject_id AS BIGINT) AS subject_id, epoch_us(CAST(e.time AS TIMESTAMP)) AS t,
            {_OPENS} AS opens
        FROM {{rows}} AS e JOIN codes AS c ON CAST(e.code AS VARCHAR) = c.source
        WHERE e.time IS NOT NULL AND ({_OPENS} OR {_CLOSES})),
    first AS (
        SELECT *, opens AND NOT coalesce(lag(opens) OVER in_order, false) AS starts
        FROM bounds WINDOW in_order AS (PARTITION BY subject_id ORDER BY t, opens)),
    runs AS (
        SELECT *, sum(CAST(starts AS INT)) OVER (PARTITION BY subject_id ORDER BY t, opens) AS run FROM first),
    ranked AS (
        SELECT subject_id, run, t, opens,
            row_number() OVER (PARTITION BY subject_id, run, opens ORDER BY t) AS place,
            count(*) FILTER (opens) OVER (PARTITION BY subject_id, run) AS n_opens,
            count(*) FILTER (NOT opens) OVER (PARTITION BY subject_id, run) AS n_closes
        FROM runs),
    admitted AS (
        SELECT subject_id, run, t, place - greatest(n_opens - n_closes, 0) AS place,
            row_number() OVER in_order AS number, lead(t, 1, {_NEVER}) OVER in_order AS next
        FROM ranked WHERE opens WINDOW in_order AS (PARTITION BY subject_id ORDER BY t))
    SELECT a.subject_id, a.number, a.t, coalesce(d.t, a.next - 1) AS ends
    FROM admitted AS a LEFT JOIN (FROM ranked WHERE NOT opens) AS d
        ON a.subject_id = d.subject_id AND a.run = d.run AND a.place = d.place;

    CREATE TEMP TABLE places AS
    WITH points AS (SELECT DISTINCT subject_id, unnest([t, ends]) AS p FROM paired),
    pieces AS (
        SELECT subject_id, p, lead(p, 1, {_NEVER}) OVER (PARTITION BY subject_id ORDER BY p) AS q FROM points)
    SELECT subject_id, 2 * p AS first, 2 * p AS last,
        coalesce(arg_min(number, t) FILTER (ends = p), arg_max(number, t)) AS stay
    FROM pieces JOIN paired USING (subject_id) WHERE t <= p AND p <= ends GROUP BY subject_id, p
    UNION ALL
    SELECT subject_id, 2 * t + 1, 2 * t + 1, number FROM paired
    UNION ALL
    SELECT subject_id, 2 * p + 2, 2 * q - 1, arg_max(number, t)
    FROM pieces JOIN paired USING (subject_id) WHERE t <= p AND q <= ends GROUP BY subject_id, p, q
"""
#: Joins the stay of a row `e` with the code `c` as `s.stay`.
JOIN_STAY = f"""
    LEFT JOIN places AS s ON e.subject_id = s.subject_id
        AND 2 * epoch_us(CAST(e.time AS TIMESTAMP)) + CAST({_OPENS} AS INT) BETWEEN s.first AND s.last
"""
