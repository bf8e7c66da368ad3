-- purpose: The models of a subset, by what they are called and what they look at, with their sizes.
-- source: medical follow-up of CNN Filter DB, arXiv 2210.13799
-- parameters: pattern (varchar, all names): regular expression that the file name or the name must contain, without regard
--   to case; category (varchar, all categories): the same for the visual category
-- grain: one row per model
-- columns: model_id; model: file name; name; task; visual_category; training_dataset; architecture_family; n_layers,
--   n_filters: 3x3 ones; total_filters: of all sizes but 1x1, as the source says; share_3x3: of its kernels;
--   depth: nodes on the longest path; sparsity; variance_entropy_norm; paper
-- reading: model_distributions and model_drift_matrix take the same pattern and category, so that this list tells what
--   they compare
-- nulls: what the source does not say; models without a layer here are missing
-- example: warehouse analyses cnn.warehouse model_table --set category=^medical
-- portable: yes
select
    model_id,
    model,
    name,
    task,
    visual_category,
    training_dataset,
    architecture_family,
    n_layers,
    n_filters,
    total_filters,
    share_3x3,
    depth,
    sparsity,
    variance_entropy_norm,
    paper
from model_quality
where
    case
        when getvariable('pattern')::varchar is null then true
        else coalesce(regexp_matches(model, getvariable('pattern')::varchar, 'i'), false)
            or coalesce(regexp_matches(name, getvariable('pattern')::varchar, 'i'), false)
    end
    and case
        when getvariable('category')::varchar is null then true
        else regexp_matches(visual_category, getvariable('category')::varchar, 'i')
    end
order by visual_category, task, model_id;
