-- purpose: The models whose filters are distributed most like those of a given one.
-- grain: one row per model, the nearest first
-- parameters: model: its model_id, file name or name; top: how many (default 10)
-- columns: rank: 1 for the nearest; model_id; model; task; visual_category; training_dataset; architecture_family; drift:
--   in nats
-- nulls: models without statistics do not appear, and nothing is near one of them
-- example: from nearest_models(0)
create macro nearest_models(model, top := 10) as table
with compared as (
    select layers.model_id as grp, layer_id
    from layers
),
distributed as (
    from distributions_of('compared')
),
drifts as (
    from drift_from('distributed', model_id_of(model))
),
-- apart from models, which may have a column of any name
nearest as (
    select grp as model_id, drift, row_number() over (order by drift, grp) as rank
    from drifts
    qualify rank <= top
)
select
    nearest.rank,
    models.model_id,
    models.model,
    models.task,
    models.visual_category,
    models.training_dataset,
    models.architecture_family,
    nearest.drift
from nearest
join models on models.model_id = nearest.model_id
order by nearest.rank;
