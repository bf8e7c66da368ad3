-- purpose: Distribution of the coefficients of each model on the common basis, for models by name.
-- source: medical follow-up of CNN Filter DB, arXiv 2210.13799
-- parameters: pattern (varchar, all names): regular expression that the file name or the name must contain, without regard
--   to case; category (varchar, all categories): the same for the visual category; component (integer, all components):
--   only this one
-- grain: one row per model, component (0 .. 8) and bin (0 .. 69), empty bins included
-- columns: model_id; model: file name; component; bin; bin_lo, bin_hi: its edges; n: filters in it; density: share of the
--   model's filters per unit of the coefficient; probability: density, with 1.1920929e-07 (float32 eps) where it is 0,
--   divided by its sum
-- reading: the basis is that of all filters in the warehouse, so that models of different subsets can be compared. One
--   broad hump is what random filters look like; spikes are filters that the model repeats
-- nulls: models without statistics have no rows
-- example: warehouse analyses cnn.warehouse model_distributions --set pattern=unet --set component=0
-- portable: yes
select grp as model_id, model, component, bin, bin_lo, bin_hi, n, density, probability
from distributions(
    layer_meta.model_id,
    keep := case
            when getvariable('pattern')::varchar is null then true
            else coalesce(regexp_matches(model, getvariable('pattern')::varchar, 'i'), false)
                or coalesce(regexp_matches(name, getvariable('pattern')::varchar, 'i'), false)
        end
        and case
            when getvariable('category')::varchar is null then true
            else regexp_matches(visual_category, getvariable('category')::varchar, 'i')
        end)
join (select model_id, model from models) as named on model_id = grp
where component = coalesce(getvariable('component')::integer, component)
order by model_id, component, bin;
