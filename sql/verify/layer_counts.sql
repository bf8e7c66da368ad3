-- purpose: Layers whose number of filters differs between tables. Layers with NaN or infinite weights have no statistics.
-- grain: one row per fault
-- columns: fault: in words
select
    format(
        'layer_id {} has {} filters, but {} in layer_moments and {} in layer_quality, {} and {} of them not sparse',
        layer_id, coalesce(layers.n_filters::varchar, 'NULL'), coalesce(moments.n::varchar, 'NULL'),
        coalesce(quality.n_filters::varchar, 'NULL'), coalesce(moments.n_clean::varchar, 'NULL'),
        coalesce((quality.n_filters - n_sparse)::varchar, 'NULL')
    ) as fault
from warehouse.layers
join warehouse.layer_moments as moments using (layer_id)
join warehouse.layer_quality as quality using (layer_id)
where
    quality.n_filters is distinct from layers.n_filters
    or moments.n <> layers.n_filters
    or (moments.n is null) <> (n_sparse is null)
    or moments.n_clean is distinct from quality.n_filters - n_sparse;
