-- purpose: The layers of a model among those of all other models at the same depth: is this one unusually sparse, random or
--   redundant for where it lies?
-- grain: one row per layer of the model
-- parameters: model: its model_id, file name or name
-- columns: layer_id; conv_depth; conv_depth_norm; depth_decile; n_filters; sparsity, variance_entropy,
--   variance_entropy_norm, orthogonality: as in layer_quality; is_random; is_degenerate; n_peers: layers of other models in
--   the same tenth of the depth, or all where the depth is not known; sparsity_percentile, variance_entropy_percentile,
--   variance_entropy_norm_percentile, orthogonality_percentile: share of the peers that have the value and lie below it,
--   ties (to 12 places) counted half, 0 to 100
-- nulls: as in layer_quality; percentiles where the value is NULL or no peer has one
-- example: from layer_percentiles(0)
create macro layer_percentiles(model) as table
with measured as (
    select
        layers.layer_id, layers.model_id, layers.conv_depth, layers.conv_depth_norm, layers.depth_decile,
        q.n_filters, q.sparsity, q.variance_entropy, q.variance_entropy_norm, q.orthogonality, q.is_random,
        q.is_degenerate
    from layers
    join layer_quality as q using (layer_id)
),
own as (
    from measured
    where measured.model_id = model_id_of(model)
),
depths as (
    select distinct depth_decile from own
),
peers as (
    select
        depths.depth_decile,
        count(*) as n_peers,
        list(sparsity) filter (where sparsity is not null) as sparsity,
        -- rounded, or rounding errors would stand in for ties
        list(round(variance_entropy, 12)) filter (where variance_entropy is not null) as variance_entropy,
        list(round(variance_entropy_norm, 12)) filter (where variance_entropy_norm is not null) as variance_entropy_norm,
        list(round(orthogonality, 12)) filter (where orthogonality is not null) as orthogonality
    from depths
    join measured on measured.depth_decile = depths.depth_decile or depths.depth_decile is null
    where measured.model_id <> model_id_of(model)
    group by depths.depth_decile
)
select
    own.layer_id,
    own.conv_depth,
    own.conv_depth_norm,
    own.depth_decile,
    own.n_filters,
    own.sparsity,
    own.variance_entropy,
    own.variance_entropy_norm,
    own.orthogonality,
    own.is_random,
    own.is_degenerate,
    coalesce(n_peers, 0) as n_peers,
    percentile_of(own.sparsity, peers.sparsity) as sparsity_percentile,
    percentile_of(round(own.variance_entropy, 12), peers.variance_entropy) as variance_entropy_percentile,
    percentile_of(round(own.variance_entropy_norm, 12), peers.variance_entropy_norm) as variance_entropy_norm_percentile,
    percentile_of(round(own.orthogonality, 12), peers.orthogonality) as orthogonality_percentile
from own
left join peers on peers.depth_decile is not distinct from own.depth_decile
order by own.layer_id;
