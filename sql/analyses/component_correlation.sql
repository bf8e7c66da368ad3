-- purpose: Covariance and correlation of the coefficients on the common basis within each group of any subset of the
--   layers.
-- source: notebook of CNN Filter DB
-- parameters: axis (column, task): whose values are the groups; task (varchar, all tasks): only models of this task;
--   visual_category (varchar, all categories): only models of this category; training_dataset (varchar, all data sets):
--   only models trained on it, as models.training_dataset has it; architecture_family (varchar, all families): only
--   models of this family; model (varchar, all models): only this one, by model_id, file name or name; depth_decile
--   (integer, all depths): only layers in this tenth of the depth; layer_id (integer, all layers): only this layer
-- grain: one row per group and ordered pair of components
-- columns: grp; i, j: components 0 .. 8; covariance: of their coefficients (n - 1); correlation: the same divided by
--   both standard deviations
-- reading: over all filters together the components are uncorrelated by construction. What a group has beside its
--   diagonal is its own structure: a correlation far from 0 says that two shapes come together in its filters
-- nulls: correlation of a component that does not vary; layers without a value of axis form no group
-- example: warehouse analyses cnn.warehouse component_correlation --set axis=depth_decile --set task=Classification
-- portable: yes
from component_covariance(
    struct_extract(layer_meta, coalesce(getvariable('axis')::varchar, 'task')),
    keep := task is not distinct from coalesce(getvariable('task')::varchar, task)
        and visual_category is not distinct from coalesce(getvariable('visual_category')::varchar, visual_category)
        and training_dataset is not distinct from coalesce(getvariable('training_dataset')::varchar, training_dataset)
        and architecture_family
            is not distinct from coalesce(getvariable('architecture_family')::varchar, architecture_family)
        and case
            when getvariable('model')::varchar is null then true
            else model_id = model_id_of(getvariable('model')::varchar)
        end
        and depth_decile is not distinct from coalesce(getvariable('depth_decile')::integer, depth_decile)
        and layer_id is not distinct from coalesce(getvariable('layer_id')::integer, layer_id));
