-- purpose: All metrics of torchconvquality of each layer: sparsity, variance entropy, orthogonality and norms.
-- source: torchconvquality 0.4.0
-- parameters: model (varchar, all models): only this one, by model_id, file name or name
-- grain: one row per layer, in the order of depth within its model
-- columns: model_id; model; layer_id; conv_depth; in_channels, out_channels; n_filters; n_sparse: filters whose peak is
--   below 1 % of the layer's; sparsity: their share; variance_entropy: log10, at most 0.954; variance_entropy_norm: divided by
--   what as many random filters reach; variance_entropy_clean, variance_entropy_clean_norm: both without the sparse filters;
--   orthogonality: 1 - mean overlap of the output channels; l1, l2: norms of all weights; l1_standardised,
--   l2_standardised: after (w - mean) / standard deviation
-- reading: a healthy layer has low sparsity, an entropy somewhat below random and high orthogonality. Compare layers of
--   different size by the normalised entropies and by means of the norms, l1 / (9 n_filters). Unlike the library a layer
--   of copies has entropy 0, not NaN
-- nulls: entropies of fewer than two filters, normalised ones of fewer than three; orthogonality without channel numbers or
--   with one channel; standardised norms of equal weights; all of layers with NaN or infinite weights
-- example: warehouse analyses cnn.warehouse layer_metrics --set model=0
-- portable: yes
select
    model_id,
    model,
    layer_id,
    conv_depth,
    in_channels,
    out_channels,
    layer_meta.n_filters,
    n_sparse,
    sparsity,
    variance_entropy,
    variance_entropy_norm,
    variance_entropy_clean,
    variance_entropy_clean_norm,
    orthogonality,
    l1,
    l2,
    l1_standardised,
    l2_standardised
from layer_meta
join layer_quality using (layer_id)
where
    case
        when getvariable('model')::varchar is null then true
        else model_id = model_id_of(getvariable('model')::varchar)
    end
order by model_id, conv_depth, layer_id;
