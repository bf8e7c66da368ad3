-- purpose: How sparsity, variance entropy and orthogonality of the layers of each group spread in each tenth of the models'
--   depth: box-plot statistics.
-- grain: one row per group, depth and metric
-- parameters: axis: an expression over the columns of layer_meta and layer_quality, its values are the groups;
--   keep: a condition on the same columns, which layers count (default true);
--   first_apart: whether layers at conv_depth 0 are apart, as depth 0 (default false)
-- columns: grp; depth: 1 .. 10, the tenth of the depth, or 0; metric: sparsity, variance_entropy, variance_entropy_norm,
--   variance_entropy_clean, variance_entropy_clean_norm, scaled_clean_entropy or orthogonality; n_layers: that have it;
--   min, q1, median, q3, max: over the layers, quartiles interpolate linearly; mean: over the layers, each counts once
-- nulls: layers where axis or the depth is NULL count nowhere, nor those that lack the metric
-- example: from quality_by_depth(task) where metric = 'sparsity'
create macro quality_by_depth(axis, keep := true, first_apart := false) as table
with grouped as (
    from layer_groups(axis, keep := keep)
),
members as (
    select
        grouped.grp,
        case when first_apart and layers.conv_depth = 0 then 0 else layers.depth_decile end as depth,
        q.*
    from grouped
    join layers using (layer_id)
    join layer_quality as q using (layer_id)
),
long as (
    unpivot (
        select
            grp, depth, sparsity, variance_entropy, variance_entropy_norm, variance_entropy_clean,
            variance_entropy_clean_norm, scaled_clean_entropy, orthogonality
        from members
        where depth is not null
    )
    on sparsity, variance_entropy, variance_entropy_norm, variance_entropy_clean, variance_entropy_clean_norm,
        scaled_clean_entropy, orthogonality
    into name metric value value
)
select
    grp,
    depth::tinyint as depth,
    metric,
    count(*) as n_layers,
    min(value) as min,
    quantile_cont(value, 0.25) as q1,
    median(value) as median,
    quantile_cont(value, 0.75) as q3,
    max(value) as max,
    avg(value) as mean
from long
group by grp, depth, metric
order by metric, grp, depth;
