-- purpose: Layers and models whose filters are identical to another's, weight by weight and in the same order: copies,
--   shared backbones, layers frozen in fine-tuning.
-- grain: one row per layer or model that has a copy; the copies of one another have the same kind and sha256
-- columns: kind: layer or model; sha256: of a layer as in layer_checksums, of a model over those of its layers in the
--   order of their filters; n_copies: how many are identical, this one included; model_id; model; layer_id; conv_depth;
--   n_filters: of the layer, or of all layers of the model
-- nulls: layer_id and conv_depth of models. Small layers may be equal by chance and not by copying: all-zero layers of
--   as many filters are, and layers of a single filter or of constants can be. Weights that differ only in the sign of
--   a zero are not identical
-- example: from duplicates where kind = 'model'
create view duplicates as
with summed as (
    select layers.layer_id, model_id, conv_depth, first_filter_id, n_filters, layer_checksums.sha256
    from layers
    join layer_checksums using (layer_id)
),
digests as (
    select 'layer' as kind, sha256, model_id, layer_id, conv_depth, n_filters
    from summed
    union all
    select
        'model',
        sha256(string_agg(sha256, '' order by first_filter_id)),
        model_id,
        null,
        null,
        sum(n_filters)::bigint
    from summed
    group by model_id
),
counted as (
    select *, count(*) over (partition by kind, sha256) as n_copies
    from digests
)
select
    counted.kind, counted.sha256, counted.n_copies, counted.model_id, models.model, counted.layer_id,
    counted.conv_depth, counted.n_filters
from counted
join models using (model_id)
where counted.n_copies > 1
order by counted.kind, counted.n_filters desc, counted.sha256, counted.model_id, counted.layer_id;
