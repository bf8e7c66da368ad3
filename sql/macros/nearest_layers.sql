-- purpose: The layers whose filters are distributed most like those of a given one.
-- grain: one row per layer, the nearest first
-- parameters: layer: the layer_id of the given one; top: how many (default 10); keep: a condition over the columns of layer_meta and
--   layer_quality, among which layers (default true)
-- columns: rank: 1 for the nearest; layer_id; model_id; model; task; conv_depth; conv_depth_norm; n_filters; drift: in nats
-- nulls: layers without statistics do not appear, and nothing is near one of them
-- example: from nearest_layers(0, keep := n_filters >= 64)
create macro nearest_layers(layer, top := 10, keep := true) as table
with given as (
    -- apart from layers, which may have a column of any name
    select layer as layer_id
),
kept as (
    from layer_groups(layer_meta.layer_id, keep := keep)
),
compared as (
    select grp, layer_id from kept
    union
    select layers.layer_id, layers.layer_id from layers join given on layers.layer_id = given.layer_id
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
),
nearest as (
    select grp as layer_id, drift, row_number() over (order by drift, grp) as rank
    from drifts
    qualify rank <= top
)
select
    nearest.rank,
    layer_meta.layer_id,
    layer_meta.model_id,
    layer_meta.model,
    layer_meta.task,
    layer_meta.conv_depth,
    layer_meta.conv_depth_norm,
    layer_meta.n_filters,
    nearest.drift
from nearest
join layer_meta on layer_meta.layer_id = nearest.layer_id
order by nearest.rank;
