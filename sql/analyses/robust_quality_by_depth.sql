-- purpose: How sparsity, entropy and orthogonality of robust and of normal models spread in each tenth of the depth, first
--   layers apart: box-plot statistics over the models.
-- source: CVPRW 2022, arXiv 2204.02481, on sparsity, entropy and orthogonality by depth
-- parameters: metric (varchar, sparsity and scaled_clean_entropy and orthogonality): only this one, any that
--   quality_by_depth has; training_dataset (varchar, all together and each): only this one
-- grain: one row per training data set, metric, depth and kind of model, all data sets together first
-- columns: training_dataset: NULL for all together; metric; depth: 0 for layers at conv_depth 0, 1 .. 10 for the tenths of
--   the depth of the others; robust; n_models: that have layers with the metric there; min, q1, median, q3, max, mean:
--   over the models, quartiles interpolate linearly
-- reading: a model counts once at each depth, with the layers that it has there together, weighted as quality does. In the
--   study normal models grow sparser and less varied with the depth than robust ones. Unlike there a model is not
--   counted once per pair
-- nulls: no rows where the source says nothing of robustness; layers without depth and models of unknown robustness count
--   nowhere, orthogonality is missing without channel numbers
-- example: warehouse analyses cnn.warehouse robust_quality_by_depth --set metric=sparsity
-- portable: yes
with wanted as (
    select
        unnest(case
            when getvariable('metric')::varchar is null then ['sparsity', 'scaled_clean_entropy', 'orthogonality']
            when getvariable('metric')::varchar in (
                'sparsity', 'variance_entropy', 'variance_entropy_norm', 'variance_entropy_clean',
                'variance_entropy_clean_norm', 'scaled_clean_entropy', 'orthogonality')
                then [getvariable('metric')::varchar]
            else error(
                'metric is ''' || getvariable('metric')::varchar || '''; expected sparsity, variance_entropy, '
                || 'variance_entropy_norm, variance_entropy_clean, variance_entropy_clean_norm, scaled_clean_entropy or '
                || 'orthogonality')
        end) as metric
),
measured as (
    select q.grp.model as model_id, q.grp.depth as depth, q.* exclude (grp)
    from quality(
        case
            when depth_decile is not null or conv_depth = 0
                then {
                    'model': layer_meta.model_id,
                    'depth': (case when conv_depth = 0 then 0 else depth_decile end)::tinyint
                }
        end,
        keep := robust is not null) as q
),
metrics as (
    unpivot (
        select
            model_id, depth, sparsity, variance_entropy, variance_entropy_norm, variance_entropy_clean,
            variance_entropy_clean_norm, scaled_clean_entropy, orthogonality
        from measured
    )
    on sparsity, variance_entropy, variance_entropy_norm, variance_entropy_clean, variance_entropy_clean_norm,
        scaled_clean_entropy, orthogonality
    into name metric value value
),
-- apart from other columns of the source, which may be called like one of ours
kinds as (
    select model_id, training_dataset, robust
    from models
),
boxes as (
    select
        training_dataset,
        grouping(training_dataset) as is_total,
        metric,
        depth,
        robust,
        count(*) as n_models,
        min(value) as min,
        quantile_cont(value, 0.25) as q1,
        median(value) as median,
        quantile_cont(value, 0.75) as q3,
        max(value) as max,
        avg(value) as mean
    from metrics
    semi join wanted using (metric)
    join kinds using (model_id)
    group by grouping sets ((training_dataset, metric, depth, robust), (metric, depth, robust))
)
select training_dataset, metric, depth, robust, n_models, min, q1, median, q3, max, mean
from boxes
where
    case
        when getvariable('training_dataset')::varchar is null then is_total = 1 or training_dataset is not null
        else training_dataset = getvariable('training_dataset')::varchar
    end
order by is_total desc, training_dataset, metric, depth, robust;
