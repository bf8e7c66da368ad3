-- purpose: Whether the quality of a model's filters goes with its accuracy: Spearman's rank correlation over the models of
--   each training data set.
-- source: CVPRW 2022, arXiv 2204.02481, on the correlation of metrics with accuracy
-- parameters: robust_only (boolean, true): whether only models known to be robust count, as in the study;
--   first_layers (boolean, false): whether only layers at conv_depth 0 count
-- grain: one row per training data set and metric
-- columns: training_dataset; metric: of accuracy_correlation; n_clean, n_robust: models with the metric and the accuracy;
--   with_clean_accuracy, with_robust_accuracy: -1 .. 1
-- reading: ranks, not values, are compared: 1 says that the order is the same, 0 that there is none. With n models
--   anything below about 2 / sqrt(n) happens by chance, and seven metrics give seven chances. Architectures differ in both:
--   robust_accuracy_correlation_by_architecture holds them fixed
-- nulls: correlations of fewer than three models, or where one side is the same for all; no rows where no accuracy is known,
--   or by default no model is known to be robust
-- example: warehouse analyses cnn.warehouse robust_accuracy_correlation --set robust_only=false
-- portable: yes
select grp as training_dataset, metric, n_clean, with_clean_accuracy, n_robust, with_robust_accuracy
from accuracy_correlation(
    training_dataset,
    keep := (robust or not coalesce(getvariable('robust_only')::boolean, true))
        and (conv_depth = 0 or not coalesce(getvariable('first_layers')::boolean, false)))
order by training_dataset, metric;
