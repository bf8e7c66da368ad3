-- purpose: The layers whose filters are distributed most like those of a given one.
-- source: this project
-- parameters: layer_id (integer, the first layer): the given one; top (integer, 10): how many; min_filters (integer, 1):
--   layers with fewer filters are left out; other_models (boolean, false): whether layers of the same model are left out
-- grain: one row per layer, the nearest first
-- columns: rank: 1 for the nearest; layer_id; model_id; model; task; conv_depth; conv_depth_norm; n_filters; drift: in nats
-- reading: drift 0 is a copy of the weights, or of their distribution. Layers of few filters drift from everything by
--   their size alone, and are near to nothing: set min_filters
-- nulls: layers without statistics do not appear; labels that the source does not give
-- example: warehouse analyses cnn.warehouse similar_layers --set layer_id=3 --set min_filters=64 --set other_models=true
-- portable: yes
from nearest_layers(
    coalesce(getvariable('layer_id')::integer, (select min(layers.layer_id) from layers)),
    top := coalesce(getvariable('top')::integer, 10),
    keep := layer_meta.n_filters >= coalesce(getvariable('min_filters')::integer, 1)
        and (
            not coalesce(getvariable('other_models')::boolean, false)
            or layer_meta.model_id <> (
                select layers.model_id
                from layers
                where
                    layers.layer_id = coalesce(
                        getvariable('layer_id')::integer, (select min(layers.layer_id) from layers)))));
