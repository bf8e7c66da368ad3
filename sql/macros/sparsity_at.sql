-- purpose: Sparsity of groups of layers at any threshold, without reading filters: the share of filters whose peak is
--   below eps times the largest peak of their layer. quality has it for eps = 0.01.
-- grain: one row per group
-- parameters: axis: an expression over the columns of layer_meta and layer_quality, its values are the groups;
--   eps: the threshold, above 0 and at most 1; keep: a condition on the same columns, which layers count (default true)
-- columns: grp; n_filters: those of layers with statistics; n_sparse: sparse ones among them; sparsity: their share;
--   sparsity_low, sparsity_high: what it cannot lie below and above. At the thresholds of peak_edges, all of two
--   significant digits from 1e-5 to 1, the three are equal and exact. Between two of them the bounds are the values
--   there, and sparsity is interpolated; below 1e-5 the lower bound is the share of filters of zeros
-- nulls: layers where axis is NULL form no group; n_sparse where the bounds differ; all but grp and n_filters of a group
--   whose layers have NaN or infinite weights
-- example: from sparsity_at(task, 0.05) order by sparsity desc
create macro sparsity_at(axis, eps, keep := true) as table
with members as (
    -- apart from the tables that it is joined with, so that axis cannot name their columns
    from layer_groups(axis, keep := keep)
),
asked as (
    select
        case
            when eps > 0 and eps <= 1 then eps::double
            else error(concat('sparsity_at: eps is ', coalesce(eps::varchar, 'NULL'), '; expected above 0 and at most 1'))
        end as threshold
),
-- the nearest thresholds on both sides, twice the same where eps is one
bounds as (
    select
        any_value(threshold) as threshold,
        coalesce(max(edges.bin) filter (edges.eps <= threshold), 0) as low_bin,
        coalesce(max(edges.eps) filter (edges.eps <= threshold), 0) as low,
        min(edges.bin) filter (edges.eps >= threshold) as high_bin,
        min(edges.eps) filter (edges.eps >= threshold) as high
    from peak_edges as edges
    cross join asked
),
counts as (
    select
        grp,
        coalesce(sum(n), 0)::bigint as n_filters,
        sum(case when bin <= low_bin then n else 0 end)::bigint as n_low,
        sum(case when bin <= high_bin then n else 0 end)::bigint as n_high
    from members
    cross join bounds
    left join layer_peaks using (layer_id)
    group by grp
),
shares as (
    select
        grp,
        n_filters,
        case when n_low = n_high and n_filters > 0 then n_low end as n_sparse,
        n_low / nullif(n_filters, 0) as sparsity_low,
        n_high / nullif(n_filters, 0) as sparsity_high
    from counts
)
select
    grp,
    n_filters,
    n_sparse,
    sparsity_low + (sparsity_high - sparsity_low) * coalesce((threshold - low) / nullif(high - low, 0), 0) as sparsity,
    sparsity_low,
    sparsity_high
from shares
cross join bounds
order by grp;
