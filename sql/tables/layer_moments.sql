-- purpose: Moments of the filters of each layer. They add up, so that the PCA of any group of layers needs no filters.
-- grain: one row per layer, and one per run of filters that no layer claims (layer_id NULL)
-- columns: layer_id; n: filters; mean: DOUBLE[9] and scatter: DOUBLE[45], of the scaled filters; raw_mean, raw_scatter:
--   of the filters as they are; n_clean: filters that are not sparse, and clean_mean, clean_scatter (scaled),
--   clean_raw_mean, clean_raw_scatter: theirs. A scatter is the sum of outer products of the deviations from the mean,
--   its upper triangle row by row
-- nulls: everything but layer_id of a layer with NaN or infinite weights
-- example: select layer_id, n, mean from layer_moments limit 3
create table layer_moments as
select
    layer_id, n, mean::double[9] as mean, scatter::double[45] as scatter,
    raw_mean::double[9] as raw_mean, raw_scatter::double[45] as raw_scatter,
    n_clean, clean_mean::double[9] as clean_mean, clean_scatter::double[45] as clean_scatter,
    clean_raw_mean::double[9] as clean_raw_mean, clean_raw_scatter::double[45] as clean_raw_scatter
from lake_layer_moments
order by layer_id;
