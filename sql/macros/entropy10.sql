-- purpose: Entropy (log10) of non-negative numbers divided by their sum.
-- parameters: weights: a list; 0 log 0 counts as 0, and a list of zeros has entropy 0
-- nulls: NULL for NULL and for an empty list
-- example: select entropy10([0.5, 0.25, 0.25])
create macro entropy10(weights) as
    case
        when list_sum(weights) = 0 then 0.0::double
        else -list_sum(list_transform(
            weights,
            lambda x: case when x > 0 then x / list_sum(weights) * log10(x / list_sum(weights)) else 0 end)) + 0.0::double
    end;
