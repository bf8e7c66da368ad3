-- purpose: How large the groups of an axis are.
-- grain: one row per group
-- parameters: axis: an expression over the columns of layer_meta and layer_quality, its values are the groups;
--   keep: a condition on the same columns, which layers count (default true)
-- columns: grp; n_models; n_layers; n_filters
-- nulls: layers where axis is NULL form no group
-- example: from groups(visual_category)
create macro groups(axis, keep := true) as table
select
    grp,
    count(distinct model_id) as n_models,
    count(*) as n_layers,
    sum(n_filters)::bigint as n_filters
from layer_groups(axis, keep := keep)
group by grp
order by grp;
