-- purpose: What share of the filters of robust and of normal models is sparse, over all data sets and for each.
-- source: CVPRW 2022, arXiv 2204.02481, on sparsity
-- parameters: unknown_as_robust (boolean, false): whether models of unknown robustness count as robust, as in the study's
--   notebooks
-- grain: one row for the robust, the normal and the unknown models of all data sets together, then the same for each
-- columns: training_dataset: NULL for all together; robust: true, false, or NULL for models of unknown robustness;
--   n_models; n_layers; n_filters; n_sparse: sparse filters; sparsity: sparse filters / filters
-- reading: published are 0.0945 for robust and 0.3948 for normal models, with the two models of unknown robustness among
--   the robust ones: set unknown_as_robust to compare. Where the source says nothing of robustness, all rows are unknown
-- nulls: sparsity of models whose layers all lack statistics; models without a data set count in the first rows alone
-- example: warehouse analyses cnn.warehouse robust_sparsity --set unknown_as_robust=true
-- portable: yes
with members as (
    select
        case
            when coalesce(getvariable('unknown_as_robust')::boolean, false) then robust is distinct from false
            else robust
        end as robust,
        training_dataset,
        model_id,
        q.n_filters,
        q.n_sparse,
        q.sparsity
    from layer_meta
    join layer_quality as q using (layer_id)
),
counts as (
    select
        training_dataset,
        robust,
        grouping(training_dataset) as is_total,
        count(distinct model_id) as n_models,
        count(*) as n_layers,
        sum(n_filters)::bigint as n_filters,
        sum(n_sparse)::bigint as n_sparse,
        weighted_mean(sparsity, n_filters) as sparsity
    from members
    group by grouping sets ((training_dataset, robust), (robust))
)
select training_dataset, robust, n_models, n_layers, n_filters, n_sparse, sparsity
from counts
where is_total = 1 or training_dataset is not null
order by is_total desc, training_dataset, robust desc nulls last;
