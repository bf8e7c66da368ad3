-- purpose: What share of all filters, and of those of each group, is sparse, lies in degenerate layers or in random
--   ones.
-- source: CVPR 2022, arXiv 2203.15331 and its supplement, on degenerate layers
-- parameters: axis (column, task): whose values are the groups
-- grain: one row for all layers, then one per group
-- columns: grp: NULL for all layers; n_models; n_layers; n_filters; n_judged: filters of layers whose entropy is known;
--   n_in_degenerate, n_in_random: filters that lie in degenerate layers and in random ones; n_sparse: sparse filters;
--   share_in_degenerate, share_in_random: of the judged filters; sparsity: sparse filters / filters of layers with
--   statistics
-- reading: how much of the data tells of layers that learned little. Large layers rule here; share_degenerate of
--   quality counts layers instead. A sparse filter does next to nothing whatever its layer
-- nulls: shares of groups whose layers all lack statistics; layers without a value of axis count in the first row alone
-- example: warehouse analyses cnn.warehouse degenerate_filters --set axis=architecture_family
-- portable: yes
with members as (
    select
        struct_extract(layer_meta, coalesce(getvariable('axis')::varchar, 'task')) as grp,
        model_id,
        q.n_filters,
        n_sparse,
        is_degenerate,
        is_random
    from layer_meta
    join layer_quality as q using (layer_id)
),
counts as (
    select
        grp,
        grouping(grp) as is_total,
        count(distinct model_id) as n_models,
        count(*) as n_layers,
        sum(n_filters)::bigint as n_filters,
        coalesce(sum(n_filters) filter (is_degenerate is not null), 0)::bigint as n_judged,
        coalesce(sum(n_filters) filter (is_degenerate), 0)::bigint as n_in_degenerate,
        coalesce(sum(n_filters) filter (is_random), 0)::bigint as n_in_random,
        coalesce(sum(n_sparse), 0)::bigint as n_sparse,
        sum(n_filters) filter (n_sparse is not null) as n_with_sparsity
    from members
    group by grouping sets ((grp), ())
)
select
    grp,
    n_models,
    n_layers,
    n_filters,
    n_judged,
    n_in_degenerate,
    n_in_random,
    n_sparse,
    n_in_degenerate / nullif(n_judged, 0) as share_in_degenerate,
    n_in_random / nullif(n_judged, 0) as share_in_random,
    n_sparse / n_with_sparsity as sparsity
from counts
where is_total = 1 or grp is not null
order by is_total desc, grp;
