-- purpose: Quality of groups of layers.
-- grain: one row per group
-- parameters: axis: an expression over the columns of layer_meta and layer_quality, its values are the groups;
--   keep: a condition on the same columns, which layers count (default true)
-- columns: grp; n_models; n_layers; n_filters; n_sparse; sparsity: sparse filters / filters; variance_entropy,
--   variance_entropy_norm, variance_entropy_clean, variance_entropy_clean_norm: weighted by filters;
--   scaled_clean_entropy: weighted by filters that are not sparse; share_random, share_degenerate: of the layers that
--   can be judged; orthogonality: weighted by out_channels; l1, l2: norms of all weights of the group
-- nulls: layers where axis is NULL form no group; a NULL of layer_quality does not count
-- example: from quality(task) order by share_degenerate desc
create macro quality(axis, keep := true) as table
with grouped as (
    from layer_groups(axis, keep := keep)
),
members as (
    select g.grp, g.model_id, g.out_channels, q.*
    from layer_quality as q
    join grouped as g using (layer_id)
)
select
    grp,
    count(distinct model_id) as n_models,
    count(*) as n_layers,
    sum(n_filters)::bigint as n_filters,
    sum(n_sparse)::bigint as n_sparse,
    weighted_mean(sparsity, n_filters) as sparsity,
    weighted_mean(variance_entropy, n_filters) as variance_entropy,
    weighted_mean(variance_entropy_norm, n_filters) as variance_entropy_norm,
    avg(is_random::int) as share_random,
    avg(is_degenerate::int) as share_degenerate,
    weighted_mean(variance_entropy_clean, n_filters) as variance_entropy_clean,
    weighted_mean(variance_entropy_clean_norm, n_filters) as variance_entropy_clean_norm,
    weighted_mean(scaled_clean_entropy, n_filters - n_sparse) as scaled_clean_entropy,
    weighted_mean(orthogonality, out_channels) as orthogonality,
    sum(l1) as l1,
    sqrt(sum(l2 * l2)) as l2
from members
group by grp
order by grp;
