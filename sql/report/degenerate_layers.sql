-- purpose: The degenerate layers with most filters: where degeneration costs most.
-- grain: one row per degenerate layer, at most 20
-- columns: those of layer_meta and layer_quality; judged: why it counts as degenerate
select
    model,
    layer_id,
    conv_depth,
    q.n_filters,
    sparsity,
    variance_entropy,
    randomness_threshold,
    case when variance_entropy >= randomness_threshold - 0.02 then 'like random' else 'sparse and uniform' end as judged
from layer_quality as q
join layer_meta using (layer_id)
where is_degenerate
order by q.n_filters desc, layer_id
limit 20;
