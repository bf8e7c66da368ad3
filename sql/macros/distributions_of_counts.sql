-- purpose: Densities and probabilities of histograms that a table or a CTE holds: the one place where empty bins get
--   their probability.
-- grain: one row per group, component (0 .. 8) and bin (0 .. 69), empty bins included
-- parameters: counts: the name, as text, of a table, view or CTE with the columns grp, component, bin and n, without
--   rows for empty bins
-- columns: grp; component; bin; bin_lo, bin_hi: its edges; n: filters in it; density: share of the group's filters per
--   unit of the coefficient; probability: density, with 1.1920929e-07 (float32 eps) where it is 0, divided by its sum
-- nulls: groups without filters have no rows
-- example: with one as (select layer_id as grp, * from layer_histograms where layer_id = 0) from distributions_of_counts('one')
create macro distributions_of_counts(counts) as table
with filled as (
    select grp, component, bin, n
    from query_table(counts)
),
totals as (
    select grp, component, sum(n) as total, count(*) as n_filled
    from filled
    group by grp, component
),
edges as (
    select
        (unnest(range(bins)))::utinyint as bin,
        lo + bin * (hi - lo) / bins as bin_lo,
        lo + (bin + 1) * (hi - lo) / bins as bin_hi,
        (hi - lo) / bins as width,
        bins as n_bins,
        1.1920929e-07::double as empty_density
    from histogram_range
)
select
    grp,
    component,
    bin,
    bin_lo,
    bin_hi,
    coalesce(n, 0) as n,
    coalesce(n / (total * width), 0) as density,
    -- empty bins only: in a large group a density may be below eps. The densities of the others sum to 1 / width
    coalesce(n / (total * width), empty_density) / (1 / width + (n_bins - n_filled) * empty_density) as probability
from totals
cross join edges
left join filled using (grp, component, bin)
order by grp, component, bin;
