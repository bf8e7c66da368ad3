-- purpose: Where the filters of each layer are, in the order of the filters.
-- grain: one row per layer
select
    layer_id::integer as layer_id,
    model_id::integer as model_id,
    first_filter_id::bigint as first_filter_id,
    n_filters::bigint as n_filters
from warehouse.layers
order by first_filter_id;
