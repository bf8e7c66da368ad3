-- purpose: A filter divided by its peak, so that its largest magnitude is 1; a filter of zeros stays as it is.
-- parameters: filter: a list of weights
-- example: select scale([0.5, -2, 1])
create macro scale(filter) as list_transform(filter, lambda x: x / coalesce(nullif(peak(filter), 0), 1));
