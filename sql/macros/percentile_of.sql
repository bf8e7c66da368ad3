-- purpose: Percentile of a number among others: the share of them below it, ties counted half.
-- parameters: x: the number; others: a list of numbers without NULL
-- units: 0 to 100
-- nulls: NULL for NULL and for an empty list
-- example: select percentile_of(3, [1, 2, 3, 4])
create macro percentile_of(x, others) as
    100 * list_avg(list_transform(others, lambda y: case when y < x then 1.0 when y = x then 0.5 when x is not null then 0.0 end));
