-- purpose: The thresholds of sparsity at which layer_peaks is exact: all of two significant digits from 1e-5 to 1.
-- grain: one row per threshold
-- columns: bin: filters in the bins of layer_peaks up to this one are sparse at eps; eps: a share of the layer's largest
--   peak. A filter is sparse at eps if its peak is below eps * the layer's largest peak, in double precision
-- example: select bin from peak_edges where eps = 0.01
create table peak_edges as
from lake_peak_edges
order by bin;
