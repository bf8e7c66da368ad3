-- purpose: Layers and models whose filters are identical to another's, weight by weight: copies, shared backbones, layers
--   frozen in fine-tuning.
-- source: this project
-- parameters: kind (varchar, both): only this, layer or model; min_filters (integer, 2): smaller ones are left out
-- grain: one row per layer or model that has a copy, the largest first; copies of one another have the same kind and sha256
-- columns: kind: layer or model; sha256: of the weights; n_copies: how many are identical, this one included; model_id;
--   model; layer_id; conv_depth; n_filters: of the layer, or of all layers of the model
-- reading: identical models are the same network twice, and count twice wherever it is grouped. Small layers can be equal by
--   chance, and all-zero layers of as many filters are: set min_filters
-- nulls: layer_id and conv_depth of models; no rows where nothing is there twice
-- example: warehouse analyses cnn.warehouse duplicate_filters --set kind=model
-- portable: yes
with wanted as (
    select
        unnest(case
            when getvariable('kind')::varchar is null then ['layer', 'model']
            when getvariable('kind')::varchar in ('layer', 'model') then [getvariable('kind')::varchar]
            else error('kind is ''' || getvariable('kind')::varchar || '''; expected layer or model')
        end) as kind
)
select kind, sha256, n_copies, model_id, model, layer_id, conv_depth, n_filters
from duplicates
semi join wanted using (kind)
where n_filters >= coalesce(getvariable('min_filters')::integer, 2)
order by kind, n_filters desc, sha256, model_id, layer_id;
