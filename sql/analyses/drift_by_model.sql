-- purpose: Distribution shift between single models, all with each other.
-- source: CVPR 2022, arXiv 2203.15331, on distribution shifts
-- parameters: model (varchar, all models): only pairs with this one, by model_id, file name or name
-- grain: one row per unordered pair of different models
-- columns: a, b: model_id, a below b; model_a, model_b: file names; drift: in nats
-- reading: 0 for equal distributions: copies, or the same weights in another format (duplicates has identical ones).
--   Models with few filters drift from everything by their size alone. For the models nearest to one see nearest_models
-- nulls: models without statistics have no pairs; file names that the source does not give
-- example: warehouse analyses cnn.warehouse drift_by_model --set model=0
-- portable: yes
select a, b, model_a.model as model_a, model_b.model as model_b, drift
from drift(layer_meta.model_id)
-- without the source's own columns, which may be called a, b or drift
join (select model_id, model from models) as model_a on model_a.model_id = a
join (select model_id, model from models) as model_b on model_b.model_id = b
where
    a < b
    and case
        when getvariable('model')::varchar is null then true
        else model_id_of(getvariable('model')::varchar) in (a, b)
    end
order by a, b;
