-- purpose: For each layer of a model the layer of another model whose filters are distributed most like its own.
-- grain: one row per layer of the model, the closest pair first
-- parameters: model: its model_id, file name or name
-- columns: layer_id, conv_depth: of the model's layer; other_layer_id, other_model_id, other_model, other_conv_depth: of the
--   other; drift: in nats
-- nulls: layers without statistics do not appear
-- example: from nearest_layers_of(0) limit 10
create macro nearest_layers_of(model) as table
with compared as (
    select layers.layer_id as grp, layers.layer_id
    from layers
),
distributed as (
    from distributions_of('compared')
),
vectors as (
    select v.*, owners.model_id = model_id_of(model) as is_own
    from drift_vectors('distributed') as v
    join layers as owners on owners.layer_id = v.grp
),
nearest as (
    select mine.grp as layer_id, min({'drift': drift_of_vectors(mine, other), 'other': other.grp}) as best
    from vectors as mine
    join vectors as other on mine.is_own and not other.is_own
    group by mine.grp
)
select
    nearest.layer_id,
    mine.conv_depth,
    nearest.best.other as other_layer_id,
    other.model_id as other_model_id,
    models.model as other_model,
    other.conv_depth as other_conv_depth,
    nearest.best.drift as drift
from nearest
join layers as mine on mine.layer_id = nearest.layer_id
join layers as other on other.layer_id = nearest.best.other
join models on models.model_id = other.model_id
order by drift, nearest.layer_id;
