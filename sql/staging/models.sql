-- purpose: models from the source's columns: labels fixed, raw labels kept, architecture family derived.
-- grain: one row per model
-- parameters: source_models: typed columns in snake_case, with raw_task and raw_visual_category as task and
--   visual_category were
with labels as (
    select
        model_id,
        unnest(['task', 'visual_category']) as label,
        unnest([task, visual_category]) as value,
        concat_ws(' ', model, name) as naming
    from source_models
),
fixed as (
    select model_id, label, any_value(f.replacement order by f.since desc) as replacement
    from labels
    join label_fixes as f using (label)
    where regexp_matches(value, f.pattern) and regexp_matches(naming, f.model_pattern)
    group by model_id, label
),
families as (
    select source_models.model_id, arg_min(p.family, p.priority) as architecture_family
    from source_models
    join architecture_patterns as p
        on regexp_matches(concat_ws(' ', source_models.model, source_models.name), p.pattern, 'i')
    group by source_models.model_id
)
select
    source_models.* replace (
        coalesce(fixed_task.replacement, source_models.task) as task,
        coalesce(fixed_category.replacement, source_models.visual_category) as visual_category,
        families.architecture_family as architecture_family
    )
from source_models
left join fixed as fixed_task on fixed_task.model_id = source_models.model_id and fixed_task.label = 'task'
left join fixed as fixed_category
    on fixed_category.model_id = source_models.model_id and fixed_category.label = 'visual_category'
left join families on families.model_id = source_models.model_id
order by source_models.model_id;
