-- purpose: Principal components of any set of single filters, scaled. Reads the raw filters; for whole layers pca gives
--   the same from the rollups at once.
-- grain: one row per group and component (0 .. 8, falling eigenvalue)
-- parameters: axis: an expression over the columns of filter_meta, its values are the groups; keep: a condition on the
--   same columns, which filters count (default true)
-- columns: grp; component; eigenvalue: variance along the component; explained_variance_ratio: its share of the
--   variance (0 where there is none); cumulative_ratio: the shares up to here; loading: the component, 9 weights
--   row by row, length 1, the entry with the largest magnitude positive, the first of those that tie
-- nulls: filters where axis is NULL form no group, nor do those with NaN or infinite weights
-- example: from filter_pca(w4 > 0, keep := model_id = 0) select * exclude loading
create macro filter_pca(axis, keep := true) as table
with chosen as (
    select axis as grp, w0, w1, w2, w3, w4, w5, w6, w7, w8
    from filter_meta
    where keep
),
peaks as (
    select
        *,
        greatest(abs(w0), abs(w1), abs(w2), abs(w3), abs(w4), abs(w5), abs(w6), abs(w7), abs(w8))::double as peak
    from chosen
    where grp is not null
),
-- peak 0 scales to 0: divided by 1 instead
scaled as (
    select
        grp,
        [w0, w1, w2, w3, w4, w5, w6, w7, w8]::double[] as weights,
        coalesce(nullif(peak, 0), 1) as divisor
    from peaks
    where isfinite(peak)
),
-- a row of the covariance matrix at a time: nine rows a filter and not 81
rows as (
    select
        grp,
        i,
        weights[i] / divisor as weight,
        list_transform(weights, lambda w: w / divisor) as s
    from scaled cross join range(1, 10) as numbers(i)
),
covered as (
    -- a single filter has no variance
    select grp, list_transform(flatten(list(entries order by i)), lambda e: coalesce(e, 0)) as covariance
    from (
        select
            grp,
            i,
            [
                covar_samp(weight, s[1]), covar_samp(weight, s[2]), covar_samp(weight, s[3]),
                covar_samp(weight, s[4]), covar_samp(weight, s[5]), covar_samp(weight, s[6]),
                covar_samp(weight, s[7]), covar_samp(weight, s[8]), covar_samp(weight, s[9])
            ] as entries
        from rows
        group by grp, i
    )
    group by grp
)
from components_of('covered');
