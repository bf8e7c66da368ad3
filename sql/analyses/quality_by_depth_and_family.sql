-- purpose: How sparsity and variance entropy of the layers change with the depth, for each architecture family:
--   box-plot statistics in each tenth of the depth.
-- source: CVPR 2022, arXiv 2203.15331, on sparsity and layer entropy
-- parameters: metric (varchar, sparsity and variance_entropy): only this metric, any that quality_by_depth has;
--   first_apart (boolean, false): whether first layers, at conv_depth 0, are apart, as depth 0
-- grain: one row per family, depth and metric
-- columns: architecture_family; depth: 1 .. 10, the tenth of the depth, or 0; metric; n_layers: that have it; min, q1,
--   median, q3, max: over the layers, quartiles interpolate linearly; mean: over the layers, each counts once
-- reading: follow the median from 1 to 10, and doubt it where n_layers is small. Sparsity that rises and entropy that
--   falls towards the end tell of a network larger than its data needs
-- nulls: layers without depth and models of no known family count nowhere, nor do layers that lack the metric
-- example: warehouse analyses cnn.warehouse quality_by_depth_and_family --set metric=variance_entropy_norm
-- portable: yes
with metrics as (
    select
        unnest(case
            when getvariable('metric')::varchar is null then ['sparsity', 'variance_entropy']
            when getvariable('metric')::varchar in (
                'sparsity', 'variance_entropy', 'variance_entropy_norm', 'variance_entropy_clean',
                'variance_entropy_clean_norm', 'scaled_clean_entropy', 'orthogonality')
                then [getvariable('metric')::varchar]
            else error(
                'metric is ''' || getvariable('metric')::varchar || '''; expected sparsity, variance_entropy, '
                || 'variance_entropy_norm, variance_entropy_clean, variance_entropy_clean_norm, scaled_clean_entropy '
                || 'or orthogonality')
        end) as metric
)
select grp as architecture_family, depth, metric, n_layers, min, q1, median, q3, max, mean
from quality_by_depth(architecture_family, first_apart := coalesce(getvariable('first_apart')::boolean, false))
semi join metrics using (metric)
order by metric, architecture_family, depth;
