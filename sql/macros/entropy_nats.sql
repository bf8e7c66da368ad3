-- purpose: Entropy of a distribution, natural logarithm, -sum p ln p.
-- parameters: p: a list of probabilities; 0 ln 0 counts as 0
-- nulls: NULL for NULL and for an empty list
-- units: nats
-- example: select entropy_nats([0.5, 0.25, 0.25])
create macro entropy_nats(p) as 0 - list_sum(list_transform(p, lambda x: case when x > 0 then x * ln(x) else 0 end));
