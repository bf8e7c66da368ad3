-- purpose: Largest magnitude of a filter's weights.
-- parameters: filter: a list of weights
-- example: select filter_id, peak(kernel) from kernels limit 5
create macro peak(filter) as list_max(list_transform(filter, lambda x: abs(x)));
