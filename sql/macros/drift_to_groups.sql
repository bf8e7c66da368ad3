-- purpose: Drift from a model to the groups of an axis, each without the model itself: which task, category or family it
--   resembles.
-- grain: one row per group, the nearest first
-- parameters: model: its model_id, file name or name; axis: an expression over the columns of layer_meta and
--   layer_quality, its values are the groups; keep: a condition on the same columns, which layers count, of the model
--   too (default true)
-- columns: grp; n_models, n_layers: of the group; drift: in nats
-- nulls: layers where axis is NULL form no group; no rows if keep leaves none of the model's layers
-- example: from drift_to_groups(0, task)
create macro drift_to_groups(model, axis, keep := true) as table
with grouped as (
    from layer_groups(axis, keep := keep)
),
others as (
    from grouped
    where grouped.model_id <> model_id_of(model)
),
compared as (
    select {'own': false, 'value': others.grp} as grp, others.layer_id
    from others
    union all
    select {'own': true, 'value': null}, kept.layer_id
    from layer_groups(true, keep := keep) as kept
    where kept.model_id = model_id_of(model)
),
distributed as (
    from distributions_of('compared')
),
drifts as (
    from drift_from('distributed', {'own': true, 'value': null})
),
sizes as (
    select others.grp, count(distinct others.model_id) as n_models, count(*) as n_layers
    from others
    group by others.grp
)
select sizes.grp, n_models, n_layers, drift
from drifts
join sizes on sizes.grp = drifts.grp.value
order by drift, sizes.grp;
