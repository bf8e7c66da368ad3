-- purpose: Sparsity of groups of layers over all thresholds of two significant digits from 1e-5 to 1, without reading
--   filters: how much could be pruned at what threshold.
-- grain: one row per group and threshold of peak_edges
-- parameters: axis: an expression over the columns of layer_meta and layer_quality, its values are the groups;
--   keep: a condition on the same columns, which layers count (default true)
-- columns: grp; eps: threshold; n_sparse: filters whose peak is below eps times the largest peak of their layer;
--   sparsity: their share of the group's filters. Both are exact
-- nulls: layers where axis is NULL form no group; n_sparse and sparsity of a group whose layers have NaN or infinite
--   weights
-- example: select eps, sparsity from sparsity_curve(task) where grp = 'Segmentation'
create macro sparsity_curve(axis, keep := true) as table
with members as (
    -- apart from the tables that it is joined with, so that axis cannot name their columns
    from layer_groups(axis, keep := keep)
),
counts as (
    -- what is sparse at every threshold is so at the first
    select grp, greatest(bin, 1) as bin, sum(n) as n
    from members
    join layer_peaks using (layer_id)
    group by grp, greatest(bin, 1)
),
totals as (
    select grp, sum(n) as n_filters
    from members
    left join layer_peaks using (layer_id)
    group by grp
),
sums as (
    select
        grp,
        eps,
        n_filters,
        coalesce(sum(n) over (partition by grp order by bin rows unbounded preceding), 0) as n_below
    from totals
    cross join peak_edges
    left join counts using (grp, bin)
)
select
    grp,
    eps,
    case when n_filters > 0 then n_below::bigint end as n_sparse,
    n_below / n_filters as sparsity
from sums
order by grp, eps;
