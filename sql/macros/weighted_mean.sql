-- purpose: Aggregate: the mean of x with weights, over the rows where x is not NULL.
-- parameters: x: the values; weight: their weights
-- nulls: NULL where no row has a value or the weights sum to 0
-- example: select weighted_mean(sparsity, n_filters) from layer_quality
create macro weighted_mean(x, weight) as sum(x * weight) / nullif(sum(weight) filter (where x is not null), 0);
