-- purpose: What the cloud of a layer's coefficients on the two strongest components looks like, in the words of CNN Filter
--   DB: point, symbols, sun or spikes. The authors sorted by eye; this is a rule of ours on entropy, sparsity and
--   multimodality, the first that holds: point: at least half of the filters are sparse, or variance_entropy_norm is below
--   0.3, so that the filters are nearly multiples of each other; symbols: bimodality above 5/9 on either component, so
--   that the cloud has several centres; sun: variance_entropy_norm at least 0.95, as random filters have; spikes: the
--   rest, one centre that reaches far in few directions.
--   Limits: the thresholds are conventions, and layers near one may fall on either side; bimodality sees neither three
--   peaks of equal height nor a small second one, takes strong skew for a second peak, and looks at each component
--   alone, so that a cross or a ring counts as one centre; what only weaker components show is not seen
-- grain: one row per layer
-- columns: layer_id; shape; n_filters; sparsity; variance_entropy_norm; bimodality: the larger one of components 0 and 1
-- nulls: shape of layers with fewer than 16 filters, which show no shape, and of layers without statistics; bimodality
--   where all coefficients lie in one bin
-- example: select shape, count(*) from layer_shapes group by shape
create view layer_shapes as
with each_alone as (
    select layer_id as grp, layer_id
    from layers
),
modalities as (
    select grp as layer_id, max(bimodality) as bimodality
    from bimodality('each_alone')
    where component < 2
    group by grp
)
select
    layer_id,
    case
        when n_filters < 16 or sparsity is null then null
        when sparsity >= 0.5 or variance_entropy_norm < 0.3 then 'point'
        when bimodality > 5 / 9 then 'symbols'
        when variance_entropy_norm >= 0.95 then 'sun'
        else 'spikes'
    end as shape,
    n_filters,
    sparsity,
    variance_entropy_norm,
    bimodality
from layer_quality
left join modalities using (layer_id)
order by layer_id;
