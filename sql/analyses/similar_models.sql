-- purpose: The models whose filters are distributed most like those of a given one.
-- source: this project
-- parameters: model (varchar, the first model): the given one, by model_id, file name or name; top (integer, 10): how many
-- grain: one row per model, the nearest first
-- columns: rank: 1 for the nearest; model_id; model; task; visual_category; training_dataset; architecture_family; drift:
--   in nats
-- reading: drift 0 is a copy of the weights, or of their distribution: duplicate_filters tells which. Models of the same
--   family, or fine-tuned from the same weights, come next. A nearest drift that is large says that the model has no
--   like here
-- nulls: models without statistics do not appear; labels that the source does not give
-- example: warehouse analyses cnn.warehouse similar_models --set model=3 --set top=5
-- portable: yes
from nearest_models(
    coalesce(getvariable('model')::varchar, (select min(models.model_id)::varchar from models)),
    top := coalesce(getvariable('top')::integer, 10));
