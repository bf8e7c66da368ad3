-- purpose: Principal components of any subset of the layers as 3x3 images, with the variance that each explains.
-- source: notebook of CNN Filter DB; CVPR 2022, arXiv 2203.15331, on the principal components of filters
-- parameters: filters (varchar, scaled): which filters and how, one of scaled, clean: scaled without the sparse ones,
--   raw: as they are, clean_raw: raw without the sparse ones; axis (column, no groups): whose values are the groups,
--   beside the whole subset; task (varchar, all tasks): only models of this task; visual_category (varchar, all
--   categories): only models of this category; training_dataset (varchar, all data sets): only models trained on it, as
--   models.training_dataset has it; architecture_family (varchar, all families): only models of this family; model
--   (varchar, all models): only this one, by model_id, file name or name; depth_decile (integer, all depths): only
--   layers in this tenth of the depth; layer_id (integer, all layers): only this layer
-- grain: one row per component 0 .. 8 of the subset, then one per group and component
-- columns: grp: NULL for the whole subset; component; eigenvalue: variance along it; explained_variance_ratio: its
--   share of the variance; cumulative_ratio: the shares up to here; w0 .. w8: the image, row by row, length 1, the
--   entry with the largest magnitude positive, the first of those that tie
-- reading: each filter is the mean plus a sum of these images. Images of equal variance are not defined one by one but
--   only the plane that they span: near-equal ratios may come with rotated images. A subset with fewer than ten filters
--   has components without variance, whose images mean nothing. With raw the layers with the largest weights rule
-- nulls: layers without a value of axis form no group
-- example: warehouse analyses cnn.warehouse eigenimages --set task=Classification --set filters=clean
-- portable: yes
with chosen as (
    select layer_id
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
        and depth_decile is not distinct from coalesce(getvariable('depth_decile')::integer, depth_decile)
        and layer_id is not distinct from coalesce(getvariable('layer_id')::integer, layer_id)
),
together as (
    select 'all' as grp, layer_id
    from chosen
),
apart as (
    select struct_extract(layer_meta, coalesce(getvariable('axis')::varchar, 'task')) as grp, layer_id
    from layer_meta
    semi join chosen using (layer_id)
    where getvariable('axis')::varchar is not null
),
covered_together as (
    from covariances_of('together', filters := coalesce(getvariable('filters')::varchar, 'scaled'))
),
covered_apart as (
    from covariances_of('apart', filters := coalesce(getvariable('filters')::varchar, 'scaled'))
),
components as (
    select null as grp, * exclude (grp)
    from components_of('covered_together')
    union all
    from components_of('covered_apart')
)
select
    grp,
    component,
    eigenvalue,
    explained_variance_ratio,
    cumulative_ratio,
    loading[1] as w0,
    loading[2] as w1,
    loading[3] as w2,
    loading[4] as w3,
    loading[5] as w4,
    loading[6] as w5,
    loading[7] as w6,
    loading[8] as w7,
    loading[9] as w8
from components
order by grp nulls first, component;
