-- purpose: What a warehouse holds, for the head of the report.
-- grain: one row
-- columns: models; layers; filters; unclaimed: filters that no layer claims; degenerate_layers; sparsity: share of
--   sparse filters
-- nulls: sparsity where no layer has statistics
select
    (select count(*) from models) as models,
    (select count(*) from layers) as layers,
    -- not those of sources, which tells of removed models, too
    (select sum(n_filters)::bigint from layers) + (select sum(n_unclaimed)::bigint from sources) as filters,
    (select sum(n_unclaimed)::bigint from sources) as unclaimed,
    count(*) filter (where is_degenerate) as degenerate_layers,
    weighted_mean(sparsity, n_filters) as sparsity
from layer_quality;
