-- purpose: Kullback-Leibler divergence of two discrete distributions, sum p ln(p / q).
-- parameters: p, q: lists of probabilities of equal length
-- nulls: NULL for NULL
-- units: nats; infinite where q is 0 and p is not
-- example: select kl_divergence([0.5, 0.5], [0.9, 0.1])
create macro kl_divergence(p, q) as
    case
        when len(p) <> len(q) then error('kl_divergence: the lists have ' || len(p) || ' and ' || len(q) || ' entries')
        else list_sum(list_transform(
            p,
            lambda x, i: case when x = 0 then 0 when q[i] = 0 then 'infinity'::double else x * ln(x / q[i]) end))
    end;
