-- purpose: Distribution of the filters of each group along each component of the basis.
-- grain: one row per group, component (0 .. 8) and bin (0 .. 69), empty bins included
-- parameters: axis: an expression over the columns of layer_meta and layer_quality, its values are the groups;
--   keep: a condition on the same columns, which layers count (default true)
-- columns: grp; component; bin; bin_lo, bin_hi: its edges; n: filters in it; density: share of the group's filters per
--   unit of the coefficient; probability: density, with 1.1920929e-07 (float32 eps) where it is 0, divided by its sum
-- nulls: layers where axis is NULL form no group; nor do groups without filters
-- example: select bin_lo, probability from distributions(task) where grp = 'Segmentation' and component = 0
create macro distributions(axis, keep := true) as table
with members as (
    -- apart from the tables that it is joined with, so that axis cannot name their columns
    from layer_groups(axis, keep := keep)
),
counts as (
    select grp, component, bin, sum(n)::bigint as n
    from layer_histograms
    join members using (layer_id)
    group by grp, component, bin
),
totals as (
    select grp, component, sum(n) as total
    from counts
    group by grp, component
),
bins as (
    select
        (unnest(range(bins)))::utinyint as bin,
        lo + bin * (hi - lo) / bins as bin_lo,
        lo + (bin + 1) * (hi - lo) / bins as bin_hi,
        (hi - lo) / bins as width
    from histogram_range
),
densities as (
    select
        grp, component, bin, bin_lo, bin_hi,
        coalesce(n, 0) as n,
        coalesce(n / (total * width), 0) as density,
        -- empty bins only: in a large group a density may be below eps
        coalesce(n / (total * width), 1.1920929e-07) as positive_density
    from totals
    cross join bins
    left join counts using (grp, component, bin)
)
select
    * exclude positive_density,
    -- in the order of the bins, so that equal groups have equal probabilities to the last bit
    positive_density / sum(positive_density) over (
        partition by grp, component
        order by bin rows between unbounded preceding and unbounded following
    ) as probability
from densities
order by grp, component, bin;
