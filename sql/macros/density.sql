-- purpose: Density of two coefficients of any set of single filters: a two-dimensional histogram over the range that all
--   coefficient histograms share. Reads the raw filters.
-- grain: one row per cell that is not empty
-- parameters: x, y: two components, 0 .. 8; keep: a condition over the columns of filter_meta, which filters count
--   (default true); bins: cells along each side (default 512)
-- columns: x, y: the components; x_bin, y_bin: 0 .. bins - 1; x_lo, x_hi, y_lo, y_hi: edges of the cell; n: filters in it
-- nulls: filters with NaN or infinite weights count nowhere
-- example: from density(0, 1, keep := model_id = 0, bins := 64)
create macro density(x, y, keep := true, bins := 512) as table
with chosen as (
    select w0, w1, w2, w3, w4, w5, w6, w7, w8
    from filter_meta
    where keep
),
peaks as (
    select
        *,
        greatest(abs(w0), abs(w1), abs(w2), abs(w3), abs(w4), abs(w5), abs(w6), abs(w7), abs(w8))::double as peak
    from chosen
),
-- peak 0 scales to 0: divided by 1 instead
scaled as (
    select [w0, w1, w2, w3, w4, w5, w6, w7, w8]::double[] as weights, coalesce(nullif(peak, 0), 1) as divisor
    from peaks
    where isfinite(peak)
),
axes as (
    select
        max(loading::double[]) filter (where component = x) as x_loading,
        max(loading::double[]) filter (where component = y) as y_loading
    from basis
),
-- v.(s - mean) as v.w / peak - v.mean
coefficients as (
    select
        list_dot_product(x_loading, weights) / divisor - list_dot_product(x_loading, mean::double[]) as x_coefficient,
        list_dot_product(y_loading, weights) / divisor - list_dot_product(y_loading, mean::double[]) as y_coefficient
    from scaled
    cross join axes
    cross join basis_mean
),
checked as (
    select
        case
            when bins between 1 and 4096 and bins = floor(bins) then bins::integer
            else error('bins must be a whole number between 1 and 4096')
        end as n_cells
),
-- named apart from the parameters
grid as (
    select
        lo,
        n_cells,
        (hi - lo) / n_cells as width
    from histogram_range
    cross join checked
    where
        case
            when x in (0, 1, 2, 3, 4, 5, 6, 7, 8) and y in (0, 1, 2, 3, 4, 5, 6, 7, 8) then true
            else error('a component is a whole number from 0 to 8')
        end
),
-- the nudge is that of layer_histograms: ties on an edge stay where they are
cells as (
    select
        greatest(0, least(n_cells - 1, floor((x_coefficient - lo) / width + 1e-9)))::integer as x_bin,
        greatest(0, least(n_cells - 1, floor((y_coefficient - lo) / width + 1e-9)))::integer as y_bin,
        count(*) as n
    from coefficients
    cross join grid
    group by x_bin, y_bin
)
select
    (x)::utinyint as x,
    (y)::utinyint as y,
    x_bin,
    y_bin,
    lo + x_bin * width as x_lo,
    lo + (x_bin + 1) * width as x_hi,
    lo + y_bin * width as y_lo,
    lo + (y_bin + 1) * width as y_hi,
    n
from cells
cross join grid
order by x_bin, y_bin;
