-- purpose: How the peaks of the filters of each layer compare with the layer's largest. The counts add up, so that the
--   sparsity of any groups of layers at any threshold needs no filters: see sparsity_at and sparsity_curve.
-- grain: one row per layer and bin that is not empty; none for layers with NaN or infinite weights
-- columns: layer_id; bin: 0 for filters of zeros and all filters of an all-zero layer, which are sparse at every
--   threshold; from 1 on those below the threshold of the bin in peak_edges but not below the one before; the last bin
--   holds the filters with the largest peak; n: filters in it
-- example: select sum(n) from layer_peaks where bin <= (select bin from peak_edges where eps = 0.05)
create table layer_peaks as
-- ingest writes them in the order of layer_id and bin; sorting again would take memory
from lake_layer_peaks;
