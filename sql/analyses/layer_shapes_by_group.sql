-- purpose: How many layers of each group look like a sun, spikes, symbols or a point, in the words of CNN Filter DB.
-- source: CVPR 2022, arXiv 2203.15331, on the shapes of coefficient clouds; the rule is this project's
-- parameters: axis (column, task): whose values are the groups
-- grain: one row per group and shape that it has
-- columns: grp; shape: see the view layer_shapes for the rule, NULL for layers that show none; n_layers; n_filters; share:
--   of the group's layers that have a shape; mean_sparsity, mean_variance_entropy_norm: over the layers
-- reading: suns are what untrained or very wide layers look like, points what layers of few shapes do. The rule has
--   thresholds that are conventions: compare groups, do not take a share for more
-- nulls: share of layers without a shape, those with fewer than 16 filters or without statistics; layers without a value of
--   axis count nowhere
-- example: warehouse analyses cnn.warehouse layer_shapes_by_group --set axis=depth_decile
-- portable: yes
with shaped as (
    select
        struct_extract(layer_meta, coalesce(getvariable('axis')::varchar, 'task')) as grp,
        s.shape,
        s.n_filters,
        s.sparsity,
        s.variance_entropy_norm
    from layer_meta
    join layer_shapes as s using (layer_id)
)
select
    grp,
    shape,
    count(*) as n_layers,
    sum(n_filters)::bigint as n_filters,
    case when shape is not null then count(*) / sum(count(*)) filter (shape is not null) over (partition by grp) end
        as share,
    avg(sparsity) as mean_sparsity,
    avg(variance_entropy_norm) as mean_variance_entropy_norm
from shaped
where grp is not null
group by grp, shape
order by grp, shape nulls last;
