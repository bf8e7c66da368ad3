-- purpose: Distribution shift between models by name, all components alike: drift with the weight 1/9 for each, over the
--   fixed range of all coefficients.
-- source: medical follow-up of CNN Filter DB, arXiv 2210.13799
-- parameters: pattern (varchar, all names): regular expression that the file name or the name must contain, without regard
--   to case; category (varchar, all categories): the same for the visual category
-- grain: one row per ordered pair of models, a model with itself included
-- columns: a, b: model_id; model_a, model_b: file names; drift: mean over the components of the symmetric
--   Kullback-Leibler divergence, in nats
-- reading: 0 for equal distributions. Uniform weights let weak components, which hold little variance and much noise, count
--   as much as the first: values are larger than those of drift and not comparable with them. The range of the histograms is
--   that of the whole warehouse, so that adding a model to the list changes no other value
-- nulls: models without statistics have no rows; file names that the source does not give. More than 2,000 models are refused
-- example: warehouse analyses cnn.warehouse model_drift_matrix --set category=^medical
-- portable: yes
with named as (
    select model_id, model
    from models
)
select a, b, model_a.model as model_a, model_b.model as model_b, drift
from drift_weighted(
    layer_meta.model_id,
    [1 / 9, 1 / 9, 1 / 9, 1 / 9, 1 / 9, 1 / 9, 1 / 9, 1 / 9, 1 / 9],
    keep := case
            when getvariable('pattern')::varchar is null then true
            else coalesce(regexp_matches(model, getvariable('pattern')::varchar, 'i'), false)
                or coalesce(regexp_matches(name, getvariable('pattern')::varchar, 'i'), false)
        end
        and case
            when getvariable('category')::varchar is null then true
            else regexp_matches(visual_category, getvariable('category')::varchar, 'i')
        end)
join named as model_a on model_a.model_id = a
join named as model_b on model_b.model_id = b
order by a, b;
