-- purpose: The layers whose filters are distributed most like those of a given one.
-- grain: one row per layer, the nearest first
-- parameters: layer: the layer_id of the given one; top: how many (default 10); keep: a condition over the columns of layer_meta and
--   layer_quality, among which layers (default true)
-- columns: rank: 1 for the nearest; layer_id; model_id; model; task; conv_depth; conv_depth_norm; n_filters; drift: in nats
-- nulls: layers without statistics do not appear
-- example: from nearest_layers(0, keep := n_filters >= 64)
create macro nearest_layers(layer, top := 10, keep := true) as table
with kept as (
    from layer_groups(layer_meta.layer_id, keep := keep)
),
compared as (
    select kept.grp, kept.layer_id from kept
    union
    select layers.layer_id, layers.layer_id from layers where layers.layer_id = layer
),
distributed as (
    from distributions_of('compared')
),
drifts as (
    from drift_from(
        'distributed',
        case
            when layer in (select layers.layer_id from layers) then layer
            else error('there is no layer with layer_id ' || coalesce(layer::varchar, 'NULL'))
        end)
)
select
    row_number() over (order by drift, drifts.grp) as rank,
    layer_meta.layer_id,
    layer_meta.model_id,
    layer_meta.model,
    layer_meta.task,
    layer_meta.conv_depth,
    layer_meta.conv_depth_norm,
    layer_meta.n_filters,
    drift
from drifts
join layer_meta on layer_meta.layer_id = drifts.grp
qualify rank <= top
order by rank;
