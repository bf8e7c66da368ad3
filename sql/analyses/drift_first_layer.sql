-- purpose: How differently the filters of first layers are shaped from those of all others, component by component.
-- source: CVPR 2022, arXiv 2203.15331, on distribution shifts by depth
-- parameters: task (varchar, all tasks): only models of this task;
--   visual_category (varchar, all categories): only models of this category;
--   training_dataset (varchar, all data sets): only models trained on it, as models.training_dataset has it;
--   architecture_family (varchar, all families): only models of this family;
--   model (varchar, all models): only this one, by model_id, file name or name
-- grain: one row per component, then one with component NULL for their sum
-- columns: component: 0 .. 8, NULL for the sum; drift: its part of the drift, in nats; share: of the sum
-- reading: first layers are those at conv_depth 0, which see the image itself; a model with several inputs has several.
--   If the first layer is no 3x3 convolution, a model has none here. Shares tell along which shapes first layers differ
-- nulls: no rows where one of the two has no filters; share where both are equal
-- example: warehouse analyses cnn.warehouse drift_first_layer --set task=Classification
-- portable: yes
with chosen as (
    select layer_id, conv_depth
    from layer_meta
    where
        task is not distinct from coalesce(getvariable('task')::varchar, task)
        and visual_category is not distinct from coalesce(getvariable('visual_category')::varchar, visual_category)
        and training_dataset is not distinct from coalesce(getvariable('training_dataset')::varchar, training_dataset)
        and architecture_family
            is not distinct from coalesce(getvariable('architecture_family')::varchar, architecture_family)
        and case
            when getvariable('model')::varchar is null then true
            else model_id = model_id_of(getvariable('model')::varchar)
        end
)
from drift_between(
    layer_meta.layer_id in (select chosen.layer_id from chosen where chosen.conv_depth = 0),
    layer_meta.layer_id in (select chosen.layer_id from chosen where chosen.conv_depth > 0));
