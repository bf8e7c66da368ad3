-- purpose: Whether groups are few enough to be compared with each other, at most 2,000; an error with their number if not.
-- parameters: n_groups: how many there are
-- nulls: NULL for NULL
-- example: select few_groups(12)
create macro few_groups(n_groups) as
    case
        when n_groups > 2000
            then error(
                'the axis has ' || n_groups || ' groups, and at most 2000 can be compared with each other; '
                || 'choose a coarser axis, or fewer layers with keep')
        when n_groups is not null then true
    end;
