-- purpose: Whether the quality of a model's filters goes with its accuracy among models of one architecture: Spearman's rank
--   correlation over the models of each training data set and architecture.
-- source: CVPRW 2022, arXiv 2204.02481, on the correlation of metrics with accuracy
-- parameters: robust_only (boolean, true): whether only models known to be robust count, as in the study;
--   min_models (integer, 3): rows with fewer models are left out
-- grain: one row per training data set, architecture and metric
-- columns: training_dataset; architecture: backbone, or network or else architecture_family where the source does not name
--   one; metric: of accuracy_correlation; n_clean, n_robust: models with the metric and the accuracy; with_clean_accuracy,
--   with_robust_accuracy: -1 .. 1
-- reading: as robust_accuracy_correlation, with fewer models a row: three models are in the same order by chance every
--   sixth time
-- nulls: correlations of fewer than three models, or where one side is the same for all; no rows where no accuracy is known,
--   or by default no model is known to be robust
-- example: warehouse analyses cnn.warehouse robust_accuracy_correlation_by_architecture --set min_models=5
-- portable: yes
select
    grp.dataset as training_dataset,
    grp.architecture as architecture,
    metric,
    n_clean,
    with_clean_accuracy,
    n_robust,
    with_robust_accuracy
from accuracy_correlation(
    case
        when training_dataset is not null and coalesce(backbone, network, architecture_family) is not null
            then {
                'dataset': training_dataset,
                'architecture': coalesce(backbone, network, architecture_family)
            }
    end,
    keep := robust or not coalesce(getvariable('robust_only')::boolean, true))
where greatest(n_clean, n_robust) >= coalesce(getvariable('min_models')::integer, 3)
order by training_dataset, architecture, metric;
