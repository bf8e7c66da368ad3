-- purpose: The one range and number of bins of all coefficient histograms.
-- grain: one row
-- columns: lo, hi: the least and greatest coefficient of any component over all filters; bins: equal bins between them
-- example: select (hi - lo) / bins as bin_width from histogram_range
create table histogram_range as
from lake_histogram_range;
