-- purpose: Histograms of the coefficients of each layer's scaled filters on the basis. They add up, so that the drift
--   between any groups of layers needs no filters.
-- grain: one row per layer, component and bin that is not empty; layer_id is NULL for filters that no layer claims
-- columns: layer_id; component: 0 .. 8; bin: 0 .. 69 over the range of histogram_range; n: filters in it
-- example: select component, sum(n) from layer_histograms where layer_id = 0 group by component
create table layer_histograms as
-- ingest writes them in the order of layer_id, component and bin; sorting again would take memory
from lake_layer_histograms;
