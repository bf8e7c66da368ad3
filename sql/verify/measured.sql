-- purpose: What is stored of chosen layers and can be computed again from their filters alone.
-- grain: one row per layer
-- parameters: $1: the layers' ids
select
    layer_id,
    sha256::varchar as sha256,
    n::bigint as n,
    mean::double[9] as mean,
    scatter::double[45] as scatter,
    raw_mean::double[9] as raw_mean,
    raw_scatter::double[45] as raw_scatter
from warehouse.layer_checksums
join warehouse.layer_moments using (layer_id)
where list_contains($1, layer_id);
