-- purpose: Which layers make up the groups of an axis: what drift, pca, quality and the others sum over.
-- grain: one row per layer that is in a group
-- parameters: axis: an expression over the columns of layer_meta and layer_quality, its values are the groups; it may
--   hold window functions; keep: a condition on the same columns, which layers count (default true)
-- columns: grp; layer_id; model_id; n_filters; out_channels
-- nulls: layers where axis is NULL form no group
-- example: select grp, count(*) from layer_groups(is_degenerate, keep := conv_depth > 0) group by grp
create macro layer_groups(axis, keep := true) as table
select *
from (
    select axis as grp, layer_id, model_id, n_filters, out_channels
    from layer_meta
    join (select * exclude (n_filters) from layer_quality) using (layer_id)
    where keep
)
where grp is not null;
